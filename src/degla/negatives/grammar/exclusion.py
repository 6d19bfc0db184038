"""Which words may be inserted into a caption: what excludes what, and what an image may show without being mentioned.

Nouns and adjectives that replace others must exclude them. Additions and replacements may be true although the caption
does not say so: `lexicon_data/additions.toml` lists objects for a noun, attributes of a noun and parts of a room. Words
are drawn from what a caption would mention; what may be present unmentioned, or is typical of its noun, is refused as
"still_true".
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, Final

from degla.negatives.grammar.chunks import Chunk, token_at
from degla.negatives.grammar.lexicon import ADDITIONS_NAME, Relation, lexicon, read_tables
from degla.negatives.grammar.phrases import Caption

_LISTING: Final = frozenset({"with", "and", ",", "has", "have", "having", "including", "contains", "containing", "or"})
_LACKING: Final = frozenset({"absence", "lack"})
_ABSENT: Final = frozenset({"no", "not", "n't", "never", "without", "missing", "lacking"})
_HAVING: Final = frozenset({"wear", "have", "in", "under"})
"""Verbs and prepositions for what a person wears or has."""
_KINDS: Final = ("mammal", "bird", "other_animal", "fruit", "vegetable", "instrument")
"""Groups whose members, even unlisted ones, exclude each other: WordNet has one place for each."""
_REMEMBERED: Final = 65_536
"""Number of nouns whose additions are cached."""
_CLOSE: Final = 3
"""Number of steps in WordNet up to which two senses are too close to exclude each other."""


@lru_cache(maxsize=200_000)
def noun_relation(word: str, other: str) -> Relation:
    """Return why one noun must not replace the other; symmetric."""
    if word > other:
        return noun_relation(other, word)
    if word == other:
        return "synonym"
    tables = lexicon()
    mine, theirs = tables.noun_groups(word), tables.noun_groups(other)
    if any(other in group.cluster(word) for group in mine):
        return "compatible"
    if any(other in group.above for group in mine) or any(word in group.above for group in theirs):
        return "hypernym"
    if any(group.cluster(word) and group.cluster(other) for group in mine if group in theirs):
        if not tables.is_in_group(word, "shape") and (tables.is_a(word, other) or tables.is_a(other, word)):
            return "hypernym"  # "boat" of a canoe; in drawings no circle is an oval
        return ""  # WordNet's rarer senses would make a boy a man and a bus a car
    if tables.senses(word) & tables.senses(other):
        return "synonym"
    if tables.senses(word) & tables.over(other) or tables.senses(other) & tables.over(word):
        return "hypernym"
    if tables.is_part(word, other) or tables.is_part(other, word):
        return "part"
    if tables.is_person(word) and tables.is_person(other):
        return "compatible"  # a worker may be a person, a woman or a tourist
    if any(group in theirs and group.name in _KINDS for group in mine):
        return ""
    return "compatible" if _are_close(word, other) else ""


def _are_close(word: str, other: str) -> bool:
    """Whether the first senses are at most three steps apart via a common ancestor: "sky" and "air"."""
    up = [_steps_above(word), _steps_above(other)]
    return any(mine + up[1][sense] <= _CLOSE for sense, mine in up[0].items() if sense in up[1])


@cache
def _steps_above(word: str) -> dict[int, int]:
    layer, distances = set(lexicon().senses_in_order(word)[:1]), dict[int, int]()
    for steps in range(_CLOSE):
        distances |= dict.fromkeys(layer - distances.keys(), steps)
        layer = {above for sense in layer for above in lexicon().above(sense)}
    return distances


@cache
def adjective_choices(word: str, *, living: bool) -> tuple[str, ...]:
    """Return everyday adjectives that exclude an adjective: from another cluster of its group, else its antonyms.

    Args:
        word: the adjective to replace.
        living: whether it describes a person or an animal: the opposite of an old man is not a new man.
    """
    tables, sort = lexicon(), "living" if living else "thing"
    choices = [
        draw
        for group in tables.adjective_groups(word)
        if group.of in ("", sort)
        for draw in group.draws
        if draw not in group.cluster(word) and not tables.adjective_relation(word, draw)
    ]
    if not choices and not tables.adjective_groups(word):
        pointing = tables.words["pointing"]
        choices = [other for other in tables.everyday_opposites(word) if other not in pointing]
    return tuple(dict.fromkeys(choices))


@cache
def noun_choices(word: str, *, mass: bool, but: str = "") -> tuple[str, ...]:
    """Return everyday nouns that may replace a noun: from another cluster of its group and unrelated in WordNet.

    Args:
        word: the noun to replace.
        mass: whether the place takes a mass noun ("covered with _").
        but: a group to which the noun does not belong here.
    """
    tables = lexicon()
    for group in tables.noun_groups(word):
        if group.name == but:
            continue
        cluster = group.cluster(word)
        choices = tuple(
            draw
            for draw in group.draws
            if draw not in cluster and tables.is_mass(draw) == mass and not noun_relation(word, draw)
        )
        if choices:
            return choices
    return ()


class Additions:
    """The lists in memory; `additions()` returns the shared instance. Words are dictionary forms."""

    def __init__(self, tables: dict[str, Any]) -> None:
        self._objects, self._attributes = tables["objects"], tables["attributes"]
        self._typical = {noun: frozenset(words) for noun, words in tables["typical"].items()}
        self._words = {name: frozenset(words) for name, words in tables["words"].items()}

    @lru_cache(maxsize=_REMEMBERED)  # noqa: B019 - the lists live as long as the process
    def objects(self, noun: str) -> tuple[str, ...]:
        """Return nouns of things that may be added next to a noun's thing."""
        return _draws(self._objects, noun)

    @lru_cache(maxsize=_REMEMBERED)  # noqa: B019
    def attributes(self, noun: str) -> tuple[str, ...]:
        """Return adjectives that may be added to a noun."""
        return _draws(self._attributes, noun)

    def may_be_present(self, noun: str) -> bool:
        """Whether an image may well show such a thing without its caption mentioning it."""
        return noun in self._words["present_nouns"] or bool(lexicon().group_names(noun) & self._words["present"])

    def is_vague(self, adjective: str) -> bool:
        """Whether an adjective expresses a size, an age, a judgement or the like."""
        return any(group.name in self._words["vague"] for group in lexicon().adjective_groups(adjective))

    def is_implied(self, adjective: str, vocabulary: frozenset[str]) -> bool:
        """Whether a caption's words imply an adjective: a person dressed as a clown is costumed."""
        return adjective in self._words["disguised"] and not vocabulary.isdisjoint(self._words["disguises"])

    def is_seldom(self, adjective: str, noun: str) -> bool:
        """Whether an adjective may be added to a noun and is not typical of it."""
        return adjective in self.attributes(noun) and adjective not in self._typical.get(noun, ())


def _draws(lists: dict[str, Any], noun: str) -> tuple[str, ...]:
    """Return the words of the list for the noun itself, else of the first list for its sort."""
    entry = next((one for one in lists.values() if noun in one.get("words", ())), None)
    if entry is None:
        sorts = {group.name for group in lexicon().noun_groups(noun)[:1]}
        entry = next((one for one in lists.values() if sorts.intersection(one.get("for", ()))), {"draw": ()})
    return tuple(entry["draw"])


@cache
def additions() -> Additions:
    """Return the package's lists of additions, read once.

    Raises:
        DeglaError: the file is missing from the installation.
    """
    return Additions(read_tables(ADDITIONS_NAME))


def may_be_there(caption: Caption, span: tuple[int, int], lemma: str) -> bool:
    """Whether a noun that replaces the one at `span` (its tokens) may also be in the image.

    That is so for what nearly every image has, what holds or covers the old thing, parts of another named thing
    ("a wheel" next to a car), materials, and other contents of a room: a kitchen with a sink may well have a
    microwave.
    """
    tables, old, before = lexicon(), caption.tokens[span[1] - 1].lemma, caption.chunk_at(span[0]).before
    sorts, own = tables.noun_sorts(lemma), tables.noun_sorts(old)
    had = before.lower in _LISTING or before.lemma in _HAVING
    if had and (sorts & tables.words["unsaid"] - own or "body_upper" in sorts):
        return True  # "a black nose" may come with black paws
    inner, outer = tables.words["inner"], tables.words["outer"]
    if (own & inner and sorts & outer) or (own & outer and sorts & inner):
        return True
    if tables.is_material(lemma) and not tables.is_material(old):
        return True
    if any(tables.is_usual_part(lemma, other) for other in caption.other_nouns(span)):
        return True
    seldom = lemma in additions().objects(old)
    usual = bool(sorts & tables.words["room_contents"]) or additions().may_be_present(lemma)
    return usual and not seldom and is_inventory(caption, span)


def is_absent(chunk: Chunk) -> bool:
    """Whether a phrase names something absent: "where a door should be", "without a door", "not wearing a hat"."""
    earlier = chunk.before if not chunk.before.is_verb else token_at(chunk.source, chunk.start - 2)
    denied = earlier.lower in _ABSENT or any(token.lower == "no" for token in chunk.tokens)
    if chunk.before.lower == "of":  # "absence of a lesion", "no sign of a lesion"
        denied |= token_at(chunk.source, chunk.start - 2).lower in _LACKING
        denied |= token_at(chunk.source, chunk.start - 3).lower == "no"
    after = " ".join(token.lower for token in chunk.source[chunk.end : chunk.end + 2])
    return denied or after in ("should be", "would be", "used to", "is missing")


def is_inventory(caption: Caption, span: tuple[int, int]) -> bool:
    """Whether the noun is one of several things in a room, or is listed with two of its fixtures."""
    tables, chunk = lexicon(), caption.chunk_at(span[0])
    listed = chunk.before.lower in _LISTING or chunk.after.lower in (",", "and") or chunk.before.is_noun
    if not chunk.before.text or not listed:
        return False  # the last is "a bath tub a toilet and a sink"
    if tables.words["room_contents"].isdisjoint(tables.group_names(caption.tokens[span[1] - 1].lemma)):
        return False
    others = caption.other_nouns(span)
    room = any(one in tables.words["room_words"] or tables.is_in_group(one, "room") for one in others)
    fixtures = sum(
        tables.is_in_group(one, "appliance") or tables.is_in_group(one, "bathroom_fixture") for one in others
    )
    return room or fixtures > 1
