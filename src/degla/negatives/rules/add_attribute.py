"""Adds an adjective to a noun: "a dog on a sofa" -> "a spotted dog on a sofa".

Only what is conspicuous and seldom true: the adjectives that `lexicon_data/additions.toml` lists for the noun's sort.
Whatever else a picture may show without its caption's saying so ("white", "wooden", "roasted") is refused, whoever
proposes it. The noun must have no adjective of that sort already.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from degla.negatives.grammar.chunks import Chunk, Token, adjectives, determiner, determiner_fits, nouns
from degla.negatives.grammar.exclusion import additions, is_absent
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.llm import Slot
from degla.negatives.rule import Place, ReplacingRule, find_change

_MOST_ADJECTIVES = 1
"""Adjectives that a noun may have already; more read like a list."""


class AddAttribute(ReplacingRule):
    """Add one adjective.

    Source: the attribute additions of SugarCrepe (arXiv 2306.14610). Differs: single adjectives, by lists.

    Use when: a property too many is to be noticed. In the embedded world the model lost at added things and properties
    by the paper's five rules, and gained by all eleven.
    """

    kind = "attribute"
    """What the negatives break."""
    instruction = (
        "Add one adjective to one noun: a pattern, a colour, damage or another state that such a thing seldom has and "
        "that nobody would overlook, such as striped, purple, broken or moldy. No size, age or judgement."
    )
    """What a language model is told to change."""

    def places(self, caption: Caption) -> dict[Place, tuple[str, ...]]:
        """Empty places before nouns, each with the adjectives that may be added there."""
        return {
            (place, place): additions().attributes(caption.tokens[head].lemma)
            for place, (_, head) in _places(caption).items()
        }

    def slots(self, caption: Caption) -> tuple[Slot, ...]:
        """None: what a language model finds likely at a noun may be true unsaid; it chooses from the rule's list."""
        return ()

    def accepts(self, caption: Caption, place: Place, word: str) -> bool:
        """Nothing speaks against the adjective."""
        return not _objection(caption, *_places(caption)[place[0]], word)

    def form(self, caption: Caption, place: Place, word: str) -> str | None:
        """The word itself, where it is one of the noun's list."""
        _, head = _places(caption)[place[0]]
        return word if word in additions().attributes(caption.tokens[head].lemma) else None

    def refusal(self, caption: Caption, negative: str, content: tuple[str, ...]) -> str:
        """Exactly one adjective more, of the noun's list, before a noun that has none of its sort."""
        change = find_change(caption.tokens, content)
        found = [(chunk, head) for chunk, head in _places(caption).values() if chunk.core <= change.start <= head]
        if change.end != change.start or len(change.words) != 1 or not found:
            return "not_rule"
        word = change.words[0]
        if not lexicon().is_adjective(word):
            return "unknown_word"
        return _objection(caption, *found[0], word)


@lru_cache(maxsize=64)
def _places(caption: Caption) -> dict[int, tuple[Chunk, int]]:
    """A phrase and its noun, by where an adjective may be put in; kept as they are asked for once more a candidate."""
    found: dict[int, tuple[Chunk, int]] = {}
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
                found[start if graded else own[0]] = (chunk, end - 1)
    return found


def _opens_compound(tokens: Sequence[Token], start: int, chunk: Chunk) -> bool:
    """Whether words before the noun are one description of two words: "a light filled room"."""
    return any(
        tokens[place].tag in ("VBN", "VBG") or tokens[place].lower.endswith("ed")
        for place in range(chunk.core + 1, start)
        if tokens[place - 1].tag not in ("DT", "CD", "PRP$")
    )


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
    return "" if additions().is_seldom(word, noun) else "still_true"
