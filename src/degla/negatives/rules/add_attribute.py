"""Adds an adjective to a noun: "a dog on a sofa" -> "a spotted dog on a sofa".

Only what is conspicuous and seldom true: the adjectives that `lexicon_data/additions.toml` lists for the noun's sort.
Whatever else a picture may show without its caption's saying so ("white", "wooden", "roasted") is refused, whoever
proposes it. The noun must have no adjective of that sort already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from degla.negatives.grammar.additions import additions, is_absent
from degla.negatives.grammar.chunks import Chunk, Token, adjectives, determiner, determiner_fits, nouns
from degla.negatives.grammar.edits import insert, write
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.llm import Slot
from degla.negatives.rule import Place, ReplacingRule, find_change

_MOST_ADJECTIVES = 1
"""Adjectives that a noun may have already; more read like a list."""


@dataclass(frozen=True)
class AddAttribute(ReplacingRule):
    """Add one adjective.

    Source: the attribute additions of SugarCrepe (arXiv 2306.14610). Differs: single adjectives, by lists.

    Use when: a property too many is to be noticed. In the embedded world the model lost at added things and properties
    by the paper's five rules, and gained by all eleven.
    """

    kind: str = "attribute"
    """What the negatives break."""
    instruction: str = (
        "Add one adjective to one noun: a pattern, a colour, damage or another state that such a thing seldom has and "
        "that nobody would overlook, such as striped, purple, broken or moldy. No size, age or judgement."
    )
    """What a language model is told to change."""

    def places(self, caption: Caption) -> dict[Place, tuple[str, ...]]:
        """Empty places before nouns, each with the adjectives that may be added there."""
        return {
            (place, place): additions().attributes(caption.tokens[head].lemma) for _, place, head in _places(caption)
        }

    def slots(self, caption: Caption) -> tuple[Slot, ...]:
        """None: what a language model finds likely at a noun may be true unsaid; it chooses from the rule's list."""
        return ()

    def accepts(self, caption: Caption, place: Place, word: str) -> bool:
        """Nothing speaks against the adjective."""
        return not _objection(caption, *_at(caption, place[0]), word)

    def form(self, caption: Caption, place: Place, word: str) -> str | None:
        """The word itself, where it is one of the noun's list."""
        _, head = _at(caption, place[0])
        return word if word in additions().attributes(caption.tokens[head].lemma) else None

    def put(self, caption: Caption, place: Place, word: str) -> str | None:
        """The caption with an adjective put in."""
        form = self.form(caption, place, word)
        return None if form is None else write(caption, insert(caption, caption.tokens, place[0], [form], tag="JJ"))

    def refusal(self, caption: Caption, negative: str, content: tuple[str, ...]) -> str:
        """Exactly one adjective more, of the noun's list, before a noun that has none of its sort."""
        change = find_change(caption.tokens, content)
        found = [(chunk, head) for chunk, _, head in _places(caption) if chunk.core <= change.start <= head]
        if change.end != change.start or len(change.words) != 1 or not found:
            return "not_rule"
        word = change.words[0]
        if not lexicon().is_adjective(word):
            return "unknown_word"
        return _objection(caption, *found[0], word)


@lru_cache(maxsize=64)
def _places(caption: Caption) -> tuple[tuple[Chunk, int, int], ...]:
    """Phrases, where an adjective may be put in, and the noun that it describes; asked for once more a candidate."""
    return tuple(_found(caption))


def _found(caption: Caption) -> Iterator[tuple[Chunk, int, int]]:
    tokens = caption.tokens
    for chunk in caption.chunks:
        owned = any(token.tag == "POS" for token in tokens[chunk.start : chunk.end])
        played = lexicon().is_in_group(tokens[chunk.head].lemma, "game") and determiner(tokens, chunk) is None
        if owned or played or not determiner_fits(tokens, chunk) or is_absent(caption, chunk):
            continue
        for start, end in nouns(tokens, chunk)[:1]:
            own = adjectives(tokens, chunk)
            plain = all(
                token.tag in ("DT", "CD", "PRP$") or (token.is_adjective and token.lower not in ("colored", "coloured"))
                for token in tokens[chunk.core : start]
            )
            if (
                plain
                and not _opens_compound(tokens, start, chunk)
                and len(own) <= _MOST_ADJECTIVES
                and not tokens[end - 1].tag.startswith("NNP")
            ):
                # "a big striped dog", but "a striped blue star" and "a flooded professional court"
                graded = all(additions().is_vague(tokens[place].lower) for place in own)
                yield chunk, start if graded else own[0], end - 1


def _opens_compound(tokens: Sequence[Token], start: int, chunk: Chunk) -> bool:
    """Whether words before the noun are one description of two words: "a light filled room"."""
    return any(
        tokens[place].tag in ("VBN", "VBG") or tokens[place].lower.endswith("ed")
        for place in range(chunk.core + 1, start)
        if tokens[place - 1].tag not in ("DT", "CD", "PRP$")
    )


def _at(caption: Caption, place: int) -> tuple[Chunk, int]:
    return next((chunk, head) for chunk, start, head in _places(caption) if start == place)


def _objection(caption: Caption, chunk: Chunk, head: int, word: str) -> str:
    """What speaks against an adjective for a noun; "" where nothing does."""
    known, noun = lexicon(), caption.tokens[head].lemma
    if word in caption.vocabulary:
        return "already_in_caption"
    if additions().is_said_by(word, caption.vocabulary):
        return "still_true"
    if known.is_in_group(word, "colour") and known.is_person(noun):
        return "person_colour"
    if any(known.share_sort(token.lower, word) for token in caption.tokens[chunk.core : head]):
        return "compatible"  # "a red wooden chair" has a colour and a material
    listed = word in additions().attributes(noun) and not additions().is_typical(word, noun)
    return "" if listed else "still_true"


RULE = AddAttribute()
