"""Prepositions and verbs that exclude each other, depending on their context, and nouns that are too large for others.

`lexicon_data/relations.toml` lists both. Nouns have one of four magnitudes: grounds and buildings, furniture and
vehicles, people and large animals, small things: no bedroom in a sink, no beach on a boy.
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
_WORN: Final = frozenset({"upper_clothing", "lower_clothing", "footwear", "headwear", "accessory"})
_REMEMBERED: Final = 65_536
"""Number of nouns whose sorts are cached."""
GROUND: Final = 4
"""Magnitude of grounds, rooms and buildings."""
UNKNOWN, THING, MACHINE, ALIVE = range(4)
"""What a noun says about who acts: nothing, a thing, what drives or flies, who acts on their own (or their image)."""
_MOVING: Final = frozenset({"land_vehicle", "vehicle_kind", "watercraft", "aircraft", "mount"})
"""Sorts and kinds of things that move on their own or under someone."""


_PLACES: Final = frozenset({"room", "place", "building", "weather", "time_of_day"})
_GROUNDS: Final = frozenset(
    {"grass", "snow", "sand", "water", "beach", "ocean", "sidewalk", "road", "river", "ice", "shade", "dirt", "mud"}
)


@dataclass(frozen=True)
class RelationGroup(WordGroup):
    """A group of prepositions or verbs.

    Attributes:
        seldom: words that are never inserted, because they are rarely used in this context.
        objects: groups of nouns that may follow the word; empty for any noun, or for a verb without object.
        subjects: groups of nouns that may precede a verb, "living" or "thing"; empty for any.
    """

    seldom: frozenset[str]
    objects: frozenset[str]
    subjects: frozenset[str]

    def suits(self, sort: Sort, objects: Collection[str], subjects: Collection[str]) -> bool:
        """Whether the group applies to a word with such nouns after and before it."""
        behind = bool(self.objects & set(objects)) if self.objects else sort == "prepositions" or not objects
        return behind and (not self.subjects or bool(self.subjects & set(subjects)))


class Relations:
    """The groups in memory; `relations()` returns the shared instance. Verbs are dictionary forms."""

    def __init__(self, tables: dict[str, Any]) -> None:
        self.groups: dict[Sort, tuple[RelationGroup, ...]] = {sort: _groups(tables[sort]) for sort in get_args(Sort)}
        self.nouns_of_kind = {kind: frozenset(nouns) for kind, nouns in tables["kinds"].items()}
        self.words = {name: frozenset(words) for name, words in tables["words"].items()}
        self._actors = {
            (verb, table.get("with_object", False)): frozenset(table["by"])
            for table in tables["actors"].values()
            for verb in table["verbs"]
        }
        self.objects = {verb: frozenset(table["of"]) for table in tables["objects"].values() for verb in table["verbs"]}
        self._same_ground = frozenset(frozenset(pair.split()) for pair in tables["words"]["same_ground"])
        self._listed = {sort: members(groups) for sort, groups in self.groups.items()}
        self.scale = {int(size): table for size, table in tables["scale"].items()}
        self.longest = max(len(word.split()) for word in self._listed["prepositions"])

    def is_known(self, sort: Sort, word: str) -> bool:
        """Whether a group lists the word."""
        return word in self._listed[sort]

    @lru_cache(maxsize=_REMEMBERED)  # noqa: B019 - the tables live as long as the process
    def kinds(self, noun: str) -> tuple[str, ...]:
        """Return the kinds of things that list a noun; they take precedence over its groups in `groups.toml`."""
        return tuple(kind for kind, nouns in self.nouns_of_kind.items() if noun in nouns)

    def actors(self, verb: str, *, with_object: bool) -> frozenset[str]:
        """Return the sorts of nouns (or "living") that can be a verb's subject, with or without object; empty: any."""
        own = with_object and self._actors.get((verb, True))
        return own or self._actors.get((verb, False), frozenset())

    def is_same_ground(self, noun: str, other: str) -> bool:
        """Whether being on or in one noun means being on or in the other: a beach and its sand."""
        return frozenset((noun, other)) in self._same_ground

    def relation(
        self, sort: Sort, word: str, other: str, *, objects: Collection[str] = (), subjects: Collection[str] = ()
    ) -> str:
        """Return why `other` must not replace `word`; "" if it may.

        Only groups that fit the word's context count: one must list both words, and none may treat them as alike. If no
        group lists both, they count as compatible.
        """
        suited = self._suited(sort, word, objects, subjects)
        shared = [group for group in suited if group.cluster(other)]
        if word == other or any(word in group.cluster(other) for group in shared):
            return "synonym"
        if not self._fits(other, suited):
            return "word_order"
        return "" if shared else "compatible"

    def choices(
        self, sort: Sort, word: str, *, objects: Collection[str], subjects: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Return the possible replacements of a word, from the groups that fit its context.

        Args:
            sort: prepositions or verbs.
            word: the word to replace.
            objects: groups of the noun after it; empty if there is none.
            subjects: groups of the noun before a verb.
        """
        suited = self._suited(sort, word, objects, subjects)
        draws = dict.fromkeys(draw for group in suited for draw in group.draws)
        return tuple(draw for draw in draws if not self.relation(sort, word, draw, objects=objects, subjects=subjects))

    def fits(self, preposition: str, objects: Collection[str]) -> bool:
        """Whether the preposition is idiomatic before such a noun; True unless a group says otherwise."""
        return self._fits(preposition, self._suited("prepositions", preposition, objects, ()))

    def _suited(
        self, sort: Sort, word: str, objects: Collection[str], subjects: Collection[str]
    ) -> list[RelationGroup]:
        return [group for group in self._listed[sort].get(word, ()) if group.suits(sort, objects, subjects)]

    @staticmethod
    def _fits(word: str, groups: Sequence[RelationGroup]) -> bool:
        listing = [group for group in groups if group.cluster(word)]
        return not listing or any(word not in group.seldom for group in listing)

    def match(self, texts: Sequence[str], start: int) -> int:
        """Return the index after the longest preposition that begins at `start`; `start` if there is none."""
        for end in range(min(len(texts), start + self.longest), start, -1):
            if " ".join(texts[start:end]) in self._listed["prepositions"]:
                return end
        return start


def noun_sorts(noun: Token) -> tuple[str, ...]:
    """Return the groups of a noun or pronoun, with "living" or "thing"; empty if it is unknown."""
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
    """Return a noun's kinds, else its groups, for a preposition before it."""
    return relations().kinds(noun.lemma) or noun_sorts(noun)


def all_sorts(noun: Token) -> frozenset[str]:
    """Return a noun's kinds and groups."""
    return frozenset((*relations().kinds(noun.lemma), *noun_sorts(noun)))


def is_place(noun: str) -> bool:
    """Whether a noun names a ground, a room or another place for a whole scene."""
    return noun in _GROUNDS or bool(lexicon().group_names(noun) & _PLACES)


def fits_before(preposition: str, lemma: str) -> bool:
    """Whether a preposition is idiomatic before a noun: no "on a park", no "in a table"."""
    if preposition in ("on", "in") and lemma in lexicon().words[f"not_{preposition}"]:
        return False
    sorts = landmark(Token(lemma, lemma, "NN", lemma))
    stays = preposition == "at" and not relations().words["at_stays"].isdisjoint(sorts)
    return stays or relations().fits(preposition, sorts)


def magnitude(noun: Token) -> int:
    """Return 4 for grounds and buildings, 3 for furniture and vehicles, 2 for people, 1 for small things, else 0."""
    return _magnitude(noun.lemma, noun_sorts(noun))


@lru_cache(maxsize=_REMEMBERED)
def _magnitude(lemma: str, own: tuple[str, ...]) -> int:
    scale = relations().scale
    sorts = {*own, *relations().kinds(lemma)}
    direct = next((size for size, table in scale.items() if lemma in table.get("words", ())), 0)
    return direct or next((size for size, table in scale.items() if sorts.intersection(table.get("sorts", ()))), 0)


@lru_cache(maxsize=_REMEMBERED)
def is_placed(lemma: str) -> bool:
    """Whether the tables know what sort of thing a noun names, without which no new place of it can be judged."""
    sorts = lexicon().noun_sorts(lemma) or relations().kinds(lemma) or _sorts_of_noun(lemma)
    return bool(sorts) or lemma in relations().words["everyday"]


def is_limb(noun: Token) -> bool:
    """Whether a noun names first of all a part of a body."""
    groups = lexicon().noun_groups(noun.lemma)
    return bool(groups) and groups[0].name == "body_upper"


def agency(noun: Token) -> int:
    """Return what a noun says about who acts; limbs and statues count as those whose they are."""
    sorts = all_sorts(noun)
    if is_animate(noun) or is_limb(noun) or noun.lemma in relations().words["figures"]:
        return ALIVE
    if sorts & _MOVING or noun.lemma in relations().words["carried_by_air"]:
        return MACHINE
    return THING if sorts or lexicon().is_noun(noun.lemma) else UNKNOWN


def is_animate(noun: Token) -> bool:
    """Whether a noun or pronoun refers to people or animals."""
    if noun.tag in ("PRP", "WP"):
        return noun.lower != "it"
    return lexicon().is_living(noun.lemma) or "living" in all_sorts(noun)


@lru_cache(maxsize=_REMEMBERED)
def is_clothing(lemma: str) -> bool:
    """Whether a noun names something worn."""
    grouped = bool(_WORN & lexicon().group_names(lemma))
    return lemma in relations().objects["wear"] or (grouped and lemma not in relations().words["carried"])


def is_out_of_scale(figure: Token, preposition: str, support: Token) -> bool:
    """Whether a thing is in or on one that could not hold it, or "with" its own surroundings.

    Args:
        figure: head noun of the phrase before.
        preposition: one or more words in lower case.
        support: head noun of the phrase after.
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
    """Return the package's groups of prepositions and verbs, read once.

    Raises:
        DeglaError: the file is missing from the installation.
    """
    return Relations(read_tables(RELATIONS_NAME))
