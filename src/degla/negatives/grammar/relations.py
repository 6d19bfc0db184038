"""Prepositions and verbs that exclude each other, by what stands around them, and nouns too large for one another.

`lexicon_data/relations.toml` lists both. Nouns have one of four magnitudes: grounds and buildings, what people sit at
or ride in, people and large animals, small things: no bedroom in a sink, no beach on a boy.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, Literal, get_args

from degla.negatives.grammar.chunks import Token
from degla.negatives.grammar.lexicon import RELATIONS_NAME, WordGroup, lexicon, members, read_tables

Sort = Literal["prepositions", "verbs"]

_BEARING: Final = frozenset({"on", "upon", "onto", "on top of", "atop", "in", "inside", "inside of", "within", "into"})
_HOLDING: Final = frozenset({"in", "inside", "inside of", "within"})
_VEHICLE: Final = 3
_REMEMBERED: Final = 65_536
"""Nouns whose sorts are remembered."""
GROUND: Final = 4
"""Magnitude of what has its place: grounds, rooms, buildings."""


_PLACES: Final = frozenset({"room", "place", "building", "weather", "time_of_day"})
_GROUNDS: Final = frozenset(
    {"grass", "snow", "sand", "water", "beach", "ocean", "sidewalk", "road", "river", "ice", "shade", "dirt", "mud"}
)


@dataclass(frozen=True)
class RelationGroup(WordGroup):
    """Prepositions or verbs.

    Attributes:
        seldom: words that never come in, as hardly anybody says them there.
        objects: groups of the nouns that may stand behind the word; empty for any noun, or for a verb without one.
        subjects: groups of the nouns that may stand before a verb, "living" or "thing"; empty for any.
    """

    seldom: frozenset[str]
    objects: frozenset[str]
    subjects: frozenset[str]

    def suits(self, sort: Sort, objects: Collection[str], subjects: Collection[str]) -> bool:
        """Whether the group is for a word with such nouns behind and before it."""
        behind = bool(self.objects & set(objects)) if self.objects else sort == "prepositions" or not objects
        return behind and (not self.subjects or bool(self.subjects & set(subjects)))


class Relations:
    """The groups in memory; `relations()` gives the ones that are shared. Verbs are dictionary forms."""

    def __init__(self, tables: dict[str, Any]) -> None:
        self.groups: dict[Sort, tuple[RelationGroup, ...]] = {sort: _groups(tables[sort]) for sort in get_args(Sort)}
        self.nouns_of_kind = {kind: frozenset(nouns) for kind, nouns in tables["kinds"].items()}
        self.words = {name: frozenset(words) for name, words in tables["words"].items()}
        self._actors = {
            (verb, table.get("with_object", False)): frozenset(table["by"])
            for table in tables["actors"].values()
            for verb in table["verbs"]
        }
        self._same_ground = frozenset(frozenset(pair.split()) for pair in tables["words"]["same_ground"])
        self._listed = {sort: members(groups) for sort, groups in self.groups.items()}
        self.scale = {int(size): table for size, table in tables["scale"].items()}
        self.longest = max(len(word.split()) for word in self._listed["prepositions"])

    def is_known(self, sort: Sort, word: str) -> bool:
        """Whether a group lists the word."""
        return word in self._listed[sort]

    @lru_cache(maxsize=_REMEMBERED)  # noqa: B019 - the tables live as long as the process
    def kinds(self, noun: str) -> tuple[str, ...]:
        """Kinds of things that a noun is listed as, which count before its groups in `groups.toml`."""
        return tuple(kind for kind, nouns in self.nouns_of_kind.items() if noun in nouns)

    def actors(self, verb: str, *, with_object: bool) -> frozenset[str]:
        """Sorts of nouns, or "living", that do what a verb says, to a thing or not; empty where anything may."""
        own = with_object and self._actors.get((verb, True))
        return own or self._actors.get((verb, False), frozenset())

    def is_same_ground(self, noun: str, other: str) -> bool:
        """Whether who is on or in the one is on or in the other: a beach and its sand."""
        return frozenset((noun, other)) in self._same_ground

    def relation(
        self, sort: Sort, word: str, other: str, *, objects: Collection[str] = (), subjects: Collection[str] = ()
    ) -> str:
        """Why `other` must not replace `word`; "" where it may.

        Only groups that suit what stands around the word are asked: one must tell the two words apart and none may hold
        them for alike. Where no group can tell, they count as compatible.
        """
        suited = [group for group in self._listed[sort].get(word, ()) if group.suits(sort, objects, subjects)]
        shared = [group for group in suited if group.cluster(other)]
        if word == other or any(word in group.cluster(other) for group in shared):
            return "synonym"
        if not self._fits(other, suited):
            return "word_order"
        return "" if shared else "compatible"

    def choices(
        self, sort: Sort, word: str, *, objects: Collection[str], subjects: Collection[str] = ()
    ) -> tuple[str, ...]:
        """What may replace a word, from the groups that suit what stands around it.

        Args:
            sort: prepositions or verbs.
            word: what is to be replaced.
            objects: groups of the noun behind it; empty where there is none.
            subjects: groups of the noun before a verb.
        """
        suited = [group for group in self._listed[sort].get(word, ()) if group.suits(sort, objects, subjects)]
        draws = dict.fromkeys(draw for group in suited for draw in group.draws)
        return tuple(draw for draw in draws if not self.relation(sort, word, draw, objects=objects, subjects=subjects))

    def fits(self, preposition: str, objects: Collection[str]) -> bool:
        """Whether one says the preposition before such a noun; True where no group knows better."""
        known = self._listed["prepositions"].get(preposition, ())
        return self._fits(preposition, [group for group in known if group.suits("prepositions", objects, ())])

    @staticmethod
    def _fits(word: str, groups: Sequence[RelationGroup]) -> bool:
        listing = [group for group in groups if group.cluster(word)]
        return not listing or any(word not in group.seldom for group in listing)

    def match(self, texts: Sequence[str], start: int) -> int:
        """Index after the longest preposition that begins at `start`; `start` where none does."""
        for end in range(min(len(texts), start + self.longest), start, -1):
            if " ".join(texts[start:end]) in self._listed["prepositions"]:
                return end
        return start


def noun_sorts(noun: Token) -> tuple[str, ...]:
    """The groups of a noun or pronoun, with "living" or "thing"; empty where nothing is known of it."""
    if noun.tag in ("PRP", "WP"):
        return ("person", "living") if noun.lower in ("he", "she", "him", "her", "who", "they", "them") else ()
    return _sorts_of_noun(noun.lemma)


@lru_cache(maxsize=_REMEMBERED)
def _sorts_of_noun(lemma: str) -> tuple[str, ...]:
    groups = tuple(group.name for group in lexicon().noun_groups(lemma))
    if not groups and (lexicon().is_person(lemma) or lemma in relations().words["people"]):
        return ("person", "living")
    return (*groups, "living" if lexicon().is_living(lemma) else "thing") if groups else ()


def landmark(noun: Token) -> tuple[str, ...]:
    """What a noun is to a preposition before it: its kinds, else its groups."""
    return relations().kinds(noun.lemma) or noun_sorts(noun)


def all_sorts(noun: Token) -> frozenset[str]:
    """A noun's kinds and its groups."""
    return frozenset((*relations().kinds(noun.lemma), *noun_sorts(noun)))


def is_place(noun: str) -> bool:
    """Whether a noun names a ground, a room or another place, where all of a scene is."""
    return noun in _GROUNDS or bool(lexicon().group_names(noun) & _PLACES)


def fits_before(preposition: str, lemma: str) -> bool:
    """Whether one says "in" or another preposition before a noun: no "on a park", no "in a table"."""
    if preposition in ("on", "in") and lemma in lexicon().words[f"not_{preposition}"]:
        return False
    return relations().fits(preposition, landmark(Token(lemma, lemma, "NN", lemma)))


def magnitude(noun: Token) -> int:
    """4 for grounds and buildings, 3 for furniture and vehicles, 2 for people, 1 for small things, 0 where unknown."""
    return _magnitude(noun.lemma, noun_sorts(noun))


@lru_cache(maxsize=_REMEMBERED)
def _magnitude(lemma: str, own: tuple[str, ...]) -> int:
    scale = relations().scale
    sorts = {*own, *relations().kinds(lemma)}
    named = next((size for size, table in scale.items() if lemma in table.get("words", ())), 0)
    return named or next((size for size, table in scale.items() if sorts.intersection(table.get("sorts", ()))), 0)


def is_out_of_scale(figure: Token, preposition: str, support: Token) -> bool:
    """Whether a thing stands in or on one that could not bear or hold it, or has its own surroundings "with" it.

    Args:
        figure: head of the phrase before.
        preposition: one or more words, lower case.
        support: head of the phrase behind.
    """
    one, other = magnitude(figure), magnitude(support)
    if not one or not other:
        return False
    if preposition == "with":
        return other == GROUND and one < GROUND
    if preposition in _HOLDING and one == other == _VEHICLE:
        return True
    return preposition in _BEARING and (one - other > 1 or (one == GROUND and other < GROUND))


def _groups(tables: dict[str, Any]) -> tuple[RelationGroup, ...]:
    return tuple(
        RelationGroup(
            tuple(frozenset(cluster) for cluster in table["clusters"]),
            tuple(table.get("draw", [cluster[0] for cluster in table["clusters"]])),
            *(frozenset(table.get(words, ())) for words in ("seldom", "objects", "subjects")),
        )
        for table in tables.values()
    )


@cache
def relations() -> Relations:
    """The package's groups of prepositions and verbs, read once.

    Raises:
        DeglaError: the file is not where the package was installed.
    """
    return Relations(read_tables(RELATIONS_NAME))
