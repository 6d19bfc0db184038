"""Add a thing next to a thing: "a dog on a sofa" -> "a dog and a turtle on a sofa".

The added thing is one that a caption would mention, that fits into the scene and is rarely in it, by the lists of
`lexicon_data/additions.toml`; things that captions often leave unmentioned (walls, clothes, cups) are refused. A verb
whose subject grows becomes plural.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Chunk, Token, makes_compound
from degla.negatives.grammar.edits import agree, insert, write
from degla.negatives.grammar.exclusion import additions, is_absent, noun_relation
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.meaning import content_of
from degla.negatives.grammar.phrases import Caption
from degla.negatives.llm import Slot
from degla.negatives.rule import Place, ReplacingRule

_CONNECTORS: Final = (("and",), ("with",), ("beside",), ("next", "to"), ("near",))
_SINGULAR: Final = frozenset({"a", "an", "one", "another"})
_CLOSING: Final = frozenset({"IN", "TO", "CC"})
_GOING_ON: Final = frozenset({"CC", "POS", "WDT", "WP", ",", "HYPH", "RP", "CD", "NN", "NNS", "NNP", "RBR"})
_SCENES: Final = frozenset({"room", "place", "game", "time_of_day", "weather"})
"""Sorts of nouns that contain the scene instead of being part of it."""
_OPEN: Final = frozenset({"with", "near", "beside", "to", "by", "behind"})
"""Prepositions that tie no place to their noun: nothing is "on a table and a turtle"."""
_LONGEST: Final = 5
"""Maximum words of an added phrase, including its article."""


class AddObject(ReplacingRule):
    """Add one thing.

    Source: the object additions of SugarCrepe (arXiv 2306.14610). Differs: only things that captions mention.

    Use when: the model should notice added things. Its effect was not measured alone; the text alone
    gives its negatives away.
    """

    kind = "object"
    """What the negatives break."""
    instruction = (
        'Add one thing beside a thing of the caption, with "and": something that fits into the scene, that the caption '
        "would mention if it were there, and that a picture of the caption would not show. No background, clothes or "
        "parts."
    )
    """Instruction to a language model."""

    def places(self, caption: Caption) -> dict[Place, tuple[str, ...]]:
        """Return empty places after noun phrases, each with the nouns that may be added there."""
        return {(chunk.end, chunk.end): additions().objects(chunk.noun.lemma) for chunk in _extendable(caption)}

    def accepts(self, caption: Caption, place: Place, word: str) -> bool:
        """Whether there is no reason against the thing."""
        return not _objection(caption, word)

    def form(self, caption: Caption, place: Place, word: str) -> str | None:
        """Return the noun in its dictionary form if it can follow "a", else None."""
        lemma, tables = words.singular(word), lexicon()
        countable = not tables.is_mass(lemma) and lemma not in tables.words["plural_only"]
        return lemma if tables.is_noun(lemma) and countable else None

    def put(self, caption: Caption, place: Place, word: str) -> str | None:
        """Return the caption with "and a ..." inserted, and a plural verb if the phrase is its subject."""
        form = self.form(caption, place, word)
        tokens = _grown(caption, caption.chunk_at(place[0] - 1))
        if form is None or tokens is None:
            return None
        return write(caption, insert(caption, tokens, place[0], ["and", words.article(form), form], tag="NN"))

    def slots(self, caption: Caption) -> tuple[Slot, ...]:
        """Return the slots after "and a" where a thing may be added."""
        return tuple(Slot(f"{slot.before} and a", slot.after, slot.word) for slot in super().slots(caption))

    def fill(self, caption: Caption, slot: Slot, word: str) -> str | None:
        """Return the caption with a proposed thing in a slot; None if it cannot be used there."""
        return super().fill(caption, Slot(slot.before.removesuffix(" and a"), slot.after, slot.word), word)

    def refusal(self, caption: Caption, negative: str, content: tuple[str, ...]) -> str:
        """Require exactly one added thing, next to a thing of the caption, that its image would not show."""
        for chunk in _extendable(caption):
            for connector in _CONNECTORS:
                tokens = _grown(caption, chunk) if connector == ("and",) else caption.tokens
                phrase = None if tokens is None else _addition(tokens, chunk, content, connector)
                if phrase:
                    return _judge(caption, phrase)
        return "not_rule"


def _extendable(caption: Caption) -> Iterator[Chunk]:
    """Yield phrases that "and a ..." can follow: not in a list, not followed by "of" or "who", without a pronoun."""
    for place, chunk in enumerate(caption.chunks):
        before, head, after = chunk.before, chunk.noun, chunk.after
        framed = place > 0 and caption.chunks[place - 1].role == "frame" and before.lower == "of"
        following = caption.chunks[place + 1] if place + 1 < len(caption.chunks) else None
        if chunk.role != "thing" or not chunk.determiner_fits:
            continue
        if is_absent(chunk) or makes_compound(chunk, following):
            continue
        closed = before.tag in _CLOSING or before.text == ","
        if closed and not framed and before.lower not in _OPEN:
            continue
        scene = lexicon().group_names(head.lemma) & _SCENES
        if scene or head.lemma in lexicon().words["generic"] or head.tag.startswith("NNP"):
            continue
        if after.tag in _GOING_ON or after.lower in ("of", "that", "&", "or"):
            continue
        if place or not any(token.tag in ("PRP", "PRP$") for token in caption.tokens[chunk.end :]):
            yield chunk


def _grown(caption: Caption, chunk: Chunk) -> Sequence[Token] | None:
    """Return the caption's tokens with the phrase's verbs in the plural; None if one has no plural."""
    if chunk.number == "many":
        return caption.tokens
    return agree(caption, chunk, many=True, announced=False)


def _addition(
    tokens: Sequence[Token], chunk: Chunk, content: Sequence[str], connector: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the phrase that a text adds to a caption's phrase with a connector; empty if it changes anything else."""
    before, after = content_of(tokens[: chunk.end]), content_of(tokens[chunk.end :])
    start, end = len(before) + len(connector), len(content) - len(after)
    same = (*content[:start], *content[end:]) == (*before, *connector, *after)
    return tuple(content[start:end]) if same and start < end else ()


def _judge(caption: Caption, phrase: Sequence[str]) -> str:
    """Return the reason against an added phrase: its article or number, adjectives, or noun."""
    tables = lexicon()
    if len(phrase) > _LONGEST:
        return "not_rule"
    lemma = words.singular(phrase[-1])
    if not tables.is_noun(lemma):
        return "unknown_word"
    first, many = phrase[0], words.is_plural(phrase[-1])
    counts = first in words.DETERMINERS_OF_MANY or first == "some"
    if first not in _SINGULAR and not counts and not (len(phrase) == 1 and (many or tables.is_mass(lemma))):
        return "agreement"
    if (many or tables.is_mass(lemma)) and first in _SINGULAR:
        return "agreement"
    if (
        counts
        and not many
        and lemma not in tables.words["invariant"]
        and not (first == "some" and tables.is_mass(lemma))
    ):
        return "agreement"
    between = phrase[1:-1]
    if not all(tables.is_adjective(word) or tables.is_noun(words.singular(word)) for word in between):
        return "not_rule"
    return _objection(caption, lemma)


def _objection(caption: Caption, lemma: str) -> str:
    """Return the reason against adding a thing; "" if there is none."""
    tables = lexicon()
    if lemma in caption.vocabulary or words.plural(lemma) in caption.vocabulary:
        return "already_in_caption"
    for token in caption.tokens:
        if token.is_noun:
            relation = noun_relation(token.lemma, lemma)
            if relation == "part":
                return "still_true"
            if relation and (relation == "synonym" or not tables.is_person(lemma)):
                return "already_in_caption"
    if not tables.is_concrete(lemma):
        return "abstract"
    return "still_true" if additions().may_be_present(lemma) else ""
