"""Reorder the caption's words so that the meaning changes: phrases, prepositions or verbs change places.

The result reads as a sentence, however absurd: "a man on a horse" becomes "a horse on a man". An order with the same
meaning ("a cat and a dog", "a red round ball", a place named first) is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final

from degla.negatives.grammar.chunks import Token, token_at
from degla.negatives.grammar.edits import disagrees, exchange
from degla.negatives.grammar.meaning import POSTURES, tagged
from degla.negatives.grammar.orders import loose_ends, movable, objection, refuse_order
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.relations import is_animate, landmark, noun_sorts, relations
from degla.negatives.grammar.suitability import doer
from degla.negatives.rule import ExchangingRule, Swap

_PLACING: Final = {
    word: sort
    for sort, alike in enumerate(
        ("on over above", "under below beneath", "in inside within", "behind", "outside", "around")
    )
    for word in alike.split()
}
"""Prepositions by group; two of different groups may change places."""

_WORN: Final = frozenset({"upper_clothing", "lower_clothing", "footwear", "headwear"})


class ReshuffleOrder(ExchangingRule):
    """Reorder a caption: same words, different meaning.

    Source: arXiv 2504.16801, rule (a), "reshuffle the whole sentence". Differs: phrases stay whole.

    Use when: the model should learn word order from few negatives. In the embedded world, one reshuffled negative per
    caption improved composition as much as the paper's five rules.
    """

    kind = "order"
    """What the negatives break."""
    instruction = (
        "Put the words of the caption in another order, so that its things change places or roles. Use exactly the "
        "same words, each as often as before."
    )
    """Instruction to a language model."""

    def refusal(self, caption: Caption, negative: str, content: tuple[str, ...]) -> str:
        """Require the same words in another order with another meaning, and agreement with the nouns."""
        tokens = tagged(caption.tokens, negative)
        if tokens is None or Counter(content) != Counter(caption.content):
            return "not_rule"
        return refuse_order(caption, tokens)

    def exchanges(self, caption: Caption) -> Iterator[Swap]:
        """Yield other orders of the caption's phrases, prepositions and verbs; only `check` examines them closely."""
        if loose_ends(caption.tokens, caption.chunks) or disagrees(caption):
            return  # the tagger did not understand the caption, or it is not English
        spans = movable(caption)
        pairs = combinations(spans, 2)
        free = [pair for pair in pairs if not objection(caption, *(caption.chunk_at(start) for start, _ in pair))]
        for pair in free:
            yield exchange(caption.tokens, *pair), ""
        for three in combinations(spans[:5], 3):
            if all(pair in free for pair in combinations(three, 2)):
                yield exchange(caption.tokens, *three), ""
        for one, other in combinations(_exchangeable(caption), 2):
            if _same_sort(caption, one, other):
                yield exchange(caption.tokens, (one, one + 1), (other, other + 1)), ""


def _exchangeable(caption: Caption) -> list[int]:
    return [
        place
        for place, token in enumerate(caption.tokens)
        if place not in caption.inside
        and token_at(caption.tokens, place + 1).lower != "n't"
        and (
            (token.lower in _PLACING and not _is_worn(caption, place + 1))
            or (token.tag in ("VBG", "VBN", "VBZ", "VBP") and token.role not in ("amod", "compound"))
        )
    ]


def _is_worn(caption: Caption, place: int) -> bool:
    """Whether clothes begin at `place`: a person is "in a uniform" but not "on" it."""
    chunk = caption.chunk_from(place)
    return chunk is not None and bool(_WORN & set(noun_sorts(chunk.noun)))


def _same_sort(caption: Caption, first: int, second: int) -> bool:
    """Whether two words between phrases are interchangeable: spatial prepositions, or verbs used alike."""
    tokens = caption.tokens
    one, other = tokens[first], tokens[second]
    if one.lemma == other.lemma or "have" in (one.lemma, other.lemma) or "be" in (one.lemma, other.lemma):
        return False
    if one.lower in _PLACING and other.lower in _PLACING:
        things = {chunk.start for chunk in caption.chunks if chunk.role == "thing"}
        return (
            _PLACING[one.lower] != _PLACING[other.lower]
            and one.tag == other.tag == "IN"
            and {first + 1, second + 1} <= things
            and (_excludes(caption, first, other.lower) or _excludes(caption, second, one.lower))
        )
    if not (one.is_verb and one.tag == other.tag) or {one.lemma, other.lemma} & relations().words["aiming"]:
        return False
    if not (relations().is_known("verbs", one.lemma) and relations().is_known("verbs", other.lemma)):
        return False  # "is enhancing", "appears to be": what their subjects and objects are is unknown
    if one.tag == "VBN" and token_at(tokens, first + 1).lower != token_at(tokens, second + 1).lower:
        return False  # "held up by posts, submerged in water"
    alone = sum(is_animate(chunk.noun) for chunk in caption.chunks) < 2
    idle = {one.lemma, other.lemma} <= POSTURES
    if (doer(caption, first) == doer(caption, second) or (alone and idle)) and not _takes_phrase(tokens, first):
        return False  # one subject that poses and stands does both in either order
    return _takes_phrase(tokens, first) == _takes_phrase(tokens, second)


def _excludes(caption: Caption, place: int, other: str) -> bool:
    """Whether another preposition would be false at `place`: a person playing "in a boat" also plays "on" it."""
    behind = landmark(caption.chunk_at(place + 1).noun)
    return not relations().relation("prepositions", caption.tokens[place].lower, other, objects=behind)


def _takes_phrase(tokens: Sequence[Token], place: int) -> bool:
    return token_at(tokens, place + 1).tag in ("DT", "PRP$", "CD", "JJ", "NN", "NNS", "NNP", "PRP")
