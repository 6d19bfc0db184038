"""Replace one adjective with one that excludes it: a colour with a colour, a material with a material, or an opposite.

The new adjective is from the same group but another cluster of `lexicon_data/groups.toml`, or an antonym in WordNet;
whether it describes a living thing decides between the opposites of "old".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from degla.negatives.grammar.chunks import Chunk, governed, token_at
from degla.negatives.grammar.edits import subjects
from degla.negatives.grammar.exclusion import adjective_choices, is_absent
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.relations import landmark
from degla.negatives.rule import Place, ReplacingRule

_DENIALS: Final = frozenset({"not", "n't", "never"})
_SHADES: Final = frozenset({"light", "dark", "bright", "deep", "pale"})

_CHILDREN: Final = frozenset({"boy", "girl", "child", "kid", "baby", "toddler", "infant", "teenager"})
"""Nouns for which no opposite of "young" is possible."""


class ReplaceAdjectives(ReplacingRule):
    """Replace one adjective.

    Source: arXiv 2504.16801, rule (d). Differs: the new word is known to exclude the old one.

    Use when: the model should learn to distinguish properties, and captions have adjectives that others exclude.
    """

    kind = "attribute"
    """What the negatives break."""
    instruction = (
        "Replace one adjective by another of its sort that cannot be true of the same thing: a colour by another "
        "colour, a material by another material, a size by the opposite."
    )
    """Instruction to a language model."""

    def places(self, caption: Caption) -> dict[Place, tuple[str, ...]]:
        """Return the replaceable adjectives, each with those that exclude it."""
        return {
            (place, place + 1): adjective_choices(caption.tokens[place].lower, living=living)
            for place, living in _places(caption)
        }

    def accepts(self, caption: Caption, place: Place, word: str) -> bool:
        """Whether the word is not yet in the caption, and does not give "dark white"."""
        shaded = token_at(caption.tokens, place[0] - 1).lower in _SHADES
        bad = (shaded and word in ("black", "white", "gray")) or _is_misplaced(caption, place, word)
        return word not in caption.vocabulary and not bad

    def refusal(self, caption: Caption, negative: str, content: tuple[str, ...]) -> str:
        """Require exactly one changed adjective, whose replacement excludes it and is not in the caption."""
        change = self.single_change(caption, content)
        if change is None or len(change[2]) != 1:
            return "not_rule"
        place, (old,), (word,) = change
        if not lexicon().is_adjective(word):
            return "unknown_word"
        if word in caption.vocabulary:
            return "already_in_caption"
        reason = lexicon().adjective_relation(old, word)
        return reason or ("word_order" if _is_misplaced(caption, place, word) else "")


def _is_misplaced(caption: Caption, place: Place, word: str) -> bool:
    """Whether an adjective that stands behind a verb only would stand before its noun: "an alive tree"."""
    return place[0] in caption.inside and word in lexicon().words["predicative"]


def _places(caption: Caption) -> Iterator[tuple[int, bool]]:
    """Yield the indices of the replaceable adjectives, and whether they describe a living thing."""
    tokens, tables = caption.tokens, lexicon()
    for chunk in caption.chunks:
        for place in () if is_absent(chunk) else chunk.adjectives():
            word, following, head = tokens[place].lower, tokens[place + 1], chunk.noun
            coloured = tables.is_in_group(following.lower, "colour") or following.lower in ("colored", "coloured")
            shades = (word in _SHADES and coloured) or "navy" in (word, token_at(tokens, place - 1).lower)
            grown = head.lemma in _CHILDREN and tables.is_in_group(word, "age_living")
            wide = tables.is_in_group(word, "opening") and tables.words["wide_open"] & set(landmark(head))
            unseen = wide or word in tables.words["unseen"]
            if not (place in caption.named or shades or grown or unseen or tables.is_name(word, following.lemma)):
                yield place, chunk.is_living
    for place, token in enumerate(tokens):
        if place in caption.inside or not token.is_adjective or token.role != "acomp":
            continue
        if token.lower in tables.words["pointing"] | tables.words["unseen"] or token.lower in ("left", "right"):
            continue
        denied = governed(tokens, token.governor, "neg")
        if denied or not _DENIALS.isdisjoint(one.lower for one in tokens[max(token.governor, 0) : place]):
            continue  # what is "not very wide" need not be wide if it is "not very narrow"
        if token.lower in ("close", "near") and token_at(tokens, place + 1).lower == "to":
            continue  # a preposition: nothing is "distant to" a thing
        subject = _subject(caption, place)
        noun = subject.noun.lemma if subject else ""
        grown = noun in _CHILDREN and tables.is_in_group(token.lower, "age_living")
        coloured = tables.is_person(noun) and tables.is_in_group(token.lower, "colour")
        if not (grown or coloured or (subject and is_absent(subject))):
            yield place, subject is not None and (subject.is_living or noun in ("he", "she"))


def _subject(caption: Caption, place: int) -> Chunk | None:
    """Return the phrase that a predicate describes: the verb's subject, or the nearest phrase before if it has none."""
    own = next(iter(subjects(caption.tokens, caption.tokens[place].governor)), place)
    found = next((one for one in caption.chunks if one.start <= own < one.end), None)
    return found or next((one for one in reversed(caption.chunks) if one.end <= place), None)
