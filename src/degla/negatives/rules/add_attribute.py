"""Add an adjective to a noun: "a dog on a sofa" -> "a striped dog on a sofa".

Only conspicuous and rarely true adjectives, which `lexicon_data/additions.toml` lists for the noun's sort, are used.
Whatever an image may show without its caption saying so ("white", "wooden", "roasted") is refused, whatever proposes
it. The noun must not have an adjective of that sort already.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

from degla.negatives.grammar.chunks import Chunk
from degla.negatives.grammar.exclusion import additions, is_absent
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.llm import Slot
from degla.negatives.rule import Place, ReplacingRule, find_change

_MOST_ADJECTIVES = 1
"""Maximum adjectives that a noun may already have; more would read like a list."""


class AddAttribute(ReplacingRule):
    """Add one adjective.

    Source: the attribute additions of SugarCrepe (arXiv 2306.14610). Differs: single adjectives, by lists.

    Use when: the model should notice added properties. In the embedded world, the paper's five rules made the model
    worse at added properties, and all eleven made it better; the text alone answers these questions.
    """

    kind = "attribute"
    """What the negatives break."""
    instruction = (
        "Add one adjective to one noun: a pattern, a colour, damage or another state that such a thing seldom has and "
        "that nobody would overlook, such as striped, purple, broken or moldy. No size, age or judgement."
    )
    """Instruction to a language model."""

    def places(self, caption: Caption) -> dict[Place, tuple[str, ...]]:
        """Return empty places before nouns, each with the adjectives that may be added there."""
        return {(place, place): additions().attributes(chunk.noun.lemma) for place, chunk in _places(caption).items()}

    def slots(self, caption: Caption) -> tuple[Slot, ...]:
        """Return no slots: a word that a model finds likely may be true, so it may only choose from the rule's list."""
        return ()

    def accepts(self, caption: Caption, place: Place, word: str) -> bool:
        """Whether there is no reason against the adjective."""
        return not _objection(caption, _places(caption)[place[0]], word)

    def form(self, caption: Caption, place: Place, word: str) -> str | None:
        """Return the word if it is in the noun's list, else None."""
        return word if word in additions().attributes(_places(caption)[place[0]].noun.lemma) else None

    def refusal(self, caption: Caption, negative: str, content: tuple[str, ...]) -> str:
        """Require exactly one added adjective, from the noun's list, before a noun with none of its sort."""
        change = find_change(caption.tokens, content)
        chunks = [
            chunk
            for chunk in _places(caption).values()
            if chunk.core + (chunk.determiner is not None) <= change.start <= chunk.head
        ]
        if change.end != change.start or len(change.words) != 1 or not chunks:
            return "not_rule"
        word = change.words[0]
        if not lexicon().is_adjective(word):
            return "unknown_word"
        return _objection(caption, chunks[0], word)


@lru_cache(maxsize=64)
def _places(caption: Caption) -> dict[int, Chunk]:
    """Return phrases by where an adjective may be inserted; cached because they are needed for every candidate."""
    places: dict[int, Chunk] = {}
    for chunk in caption.chunks:
        owned = any(token.tag == "POS" for token in chunk.tokens)
        played = lexicon().is_in_group(chunk.noun.lemma, "game") and chunk.determiner is None
        if owned or played or not chunk.determiner_fits or is_absent(chunk):
            continue
        for start, _ in chunk.nouns()[:1]:
            own = chunk.adjectives()
            plain = all(
                token.tag in ("DT", "CD", "PRP$") or (token.is_adjective and token.lower not in ("colored", "coloured"))
                for token in chunk.source[chunk.core : start]
            )
            named = chunk.noun.tag.startswith("NNP")
            if plain and not named and not _opens_compound(chunk, start) and len(own) <= _MOST_ADJECTIVES:
                # "a big striped dog", but "a striped blue star" and "a flooded professional court"
                graded = all(additions().is_vague(chunk.source[place].lower) for place in own)
                shaded = bool(own) and chunk.source[own[0] - 1].lower == "light"  # "a striped light brown dog"
                places[start if graded else own[0] - shaded] = chunk
    return places


def _opens_compound(chunk: Chunk, start: int) -> bool:
    """Whether two words before the noun form one description: "a light filled room"."""
    return any(
        token.tag in ("VBN", "VBG") or token.lower.endswith("ed")
        for before, token in pairwise(chunk.source[chunk.core : start])
        if before.tag not in ("DT", "CD", "PRP$")
    )


def _objection(caption: Caption, chunk: Chunk, word: str) -> str:
    """Return the reason against an adjective for a phrase's noun; "" if there is none."""
    tables, noun = lexicon(), chunk.noun.lemma
    if word in caption.vocabulary:
        return "already_in_caption"
    if additions().is_implied(word, caption.vocabulary):
        return "still_true"
    if tables.is_in_group(word, "colour") and tables.is_person(noun):
        return "person_colour"
    if any(tables.share_sort(token.lower, word) for token in chunk.source[chunk.core : chunk.head]):
        return "compatible"  # "a red wooden chair" has a colour and a material
    return "" if additions().is_seldom(word, noun) else "still_true"
