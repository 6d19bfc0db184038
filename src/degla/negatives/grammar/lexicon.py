"""Everyday words: their groups, possible replacements, and pairs that must never replace each other.

It uses two files of `lexicon_data/`: the hand-written `groups.toml` defines possible replacements; `wordnet.tsv`,
derived from WordNet 3.0 by `tools/build_lexicon.py`, defines which to refuse (same sense, above or below, part and
whole).
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from degla.errors import DeglaError

DATA_FOLDER = Path(__file__).parent / "lexicon_data"
GROUPS_NAME = "groups.toml"
RELATIONS_NAME = "relations.toml"
ADDITIONS_NAME = "additions.toml"
TABLE_NAME = "wordnet.tsv"
"""Each line begins with its sort: n a noun, s a sense of nouns, a an adjective, r a sense of adjectives with similar
ones, x an adjective with its antonym, c a compound noun."""
DATA_FILES = (GROUPS_NAME, TABLE_NAME, RELATIONS_NAME, ADDITIONS_NAME)

Relation = Literal["", "synonym", "hypernym", "part", "compatible"]
"""Why one word must not replace another; "" if it may."""

PEOPLE = ("person", "someone", "role")
_PART_DEPTH = 3
"""Number of steps from part to whole to follow: thumb, hand, arm, body."""


@dataclass(frozen=True)
class WordGroup:
    """Words of one sort; two words exclude each other if no cluster has both.

    Attributes:
        clusters: sets of words that may be true of the same thing; clusters may overlap.
        draws: the words that replacements are drawn from.
    """

    clusters: tuple[frozenset[str], ...]
    draws: tuple[str, ...]

    def cluster(self, word: str) -> frozenset[str]:
        """Return the word and all words that share a cluster with it; empty if the group does not list it."""
        return self._mates.get(word, frozenset())

    @cached_property
    def _mates(self) -> dict[str, frozenset[str]]:
        mates: dict[str, frozenset[str]] = {}
        for cluster in self.clusters:
            for word in cluster:
                mates[word] = mates.get(word, frozenset()) | cluster
        return mates


@dataclass(frozen=True)
class Group(WordGroup):
    """A group of nouns or adjectives.

    Attributes:
        name: name in `groups.toml`.
        above: words that are true of the whole group ("seating" of every chair).
        living: for nouns: whether they are people or animals.
        of: for adjectives: "living" or "thing" if the group applies only to one of the two, else "".
    """

    name: str
    above: frozenset[str] = frozenset()
    living: bool = False
    of: str = ""


AnyGroup = TypeVar("AnyGroup", bound=WordGroup)


def read_data(name: str) -> str:
    """Return the text of a file of `lexicon_data/`.

    Raises:
        DeglaError: the file is missing from the installation.
    """
    try:
        return (DATA_FOLDER / name).read_text(encoding="utf-8")
    except OSError as error:
        raise DeglaError(f"{error.filename}: the word tables are missing. Reinstall degla.") from None


def read_tables(name: str) -> dict[str, Any]:
    """Return a hand-written file of `lexicon_data/` as nested tables."""
    return tomllib.loads(read_data(name))


def make_groups(tables: dict[str, Any]) -> dict[str, Group]:
    """Return the groups of one section of `groups.toml` by name."""
    groups = {}
    for name, table in tables.items():
        clusters = tuple(frozenset(cluster) for cluster in table["clusters"])
        everything = tuple(word for cluster in table["clusters"] for word in cluster)
        source = tables[table["draw_from"]] if "draw_from" in table else table
        draws = tuple(source.get("draw", () if "draw_from" in table else everything))
        more = {key: table[key] for key in ("living", "of") if key in table}
        groups[name] = Group(clusters, draws, name, frozenset(table.get("above", ())), **more)
    return groups


def members(groups: Iterable[AnyGroup]) -> dict[str, tuple[AnyGroup, ...]]:
    """Map each word to the groups that list it."""
    listing: dict[str, tuple[AnyGroup, ...]] = {}
    for group in groups:
        for word in frozenset().union(*group.clusters):
            listing[word] = (*listing.get(word, ()), group)
    return listing


@cache
def digest() -> str:
    """Return 16 hexadecimal digits of the SHA-256 of all word tables; an equal digest gives equal negatives."""
    content = b"".join((DATA_FOLDER / name).read_bytes() for name in DATA_FILES)
    return hashlib.sha256(content).hexdigest()[:16]


class Lexicon:
    """The word tables in memory; `lexicon()` returns the shared instance.

    All words are lower-case dictionary forms.
    """

    def __init__(self, groups: dict[str, Any], table: str) -> None:
        self.nouns = make_groups(groups["nouns"])
        self.adjectives = make_groups(groups["adjectives"])
        self.words = {name: frozenset(words) for name, words in groups["words"].items()}
        self._noun_groups = members(self.nouns.values())
        self._adjective_groups = members(self.adjectives.values())
        self._generals = frozenset().union(*(group.above for group in self.nouns.values()))
        rows: dict[str, list[list[str]]] = {sort: [] for sort in "nsarxc"}
        for line in table.splitlines():
            sort, *fields = line.split("\t")
            rows[sort].append(fields)
        self._noun_senses = {word: _numbers(senses) for word, _, _, senses in rows["n"]}
        self._anchored = {word: group for word, _, group, _ in rows["n"]}
        self._above = {int(sense): _numbers(above) for sense, above, _ in rows["s"]}
        self._wholes = {int(sense): _numbers(wholes) for sense, _, wholes in rows["s"]}
        self._adjective_senses = {word: _numbers(senses) for word, _, _, senses in rows["a"]}
        self._everyday = {word for word, count, *_ in rows["a"] if int(count) >= 3}
        self._near = {int(sense): _numbers(near) for sense, near in rows["r"]}
        self._opposites: dict[str, tuple[str, ...]] = {}
        for word, other in rows["x"]:
            self._opposites[word] = (*self._opposites.get(word, ()), other)
        self._names = {name for (name,) in rows["c"]}

    def is_noun(self, word: str) -> bool:
        """Whether the word is a noun in the tables."""
        return word in self._noun_senses or word in self._noun_groups or word in self._generals

    def is_adjective(self, word: str) -> bool:
        """Whether the word is an adjective in the tables."""
        return word in self._adjective_senses or word in self._adjective_groups

    def is_attribute(self, word: str) -> bool:
        """Whether the word belongs to a hand-written adjective group: colours, sizes, materials, ..."""
        return word in self._adjective_groups

    def is_in_group(self, word: str, group: str) -> bool:
        """Whether a noun or adjective is listed in the group of that name."""
        groups = (*self._noun_groups.get(word, ()), *self._adjective_groups.get(word, ()))
        return any(one.name == group for one in groups)

    def share_sort(self, word: str, other: str) -> bool:
        """Whether one hand-written group of adjectives lists both words."""
        return any(group in self.adjective_groups(other) for group in self.adjective_groups(word))

    def is_name(self, first: str, head: str) -> bool:
        """Whether the two words name one thing, as "fire hydrant" does."""
        name = f"{first} {head}"
        return name in self.words["names"] or (name in self._names and not self.is_attribute(first))

    def is_mass(self, word: str) -> bool:
        """Whether the noun has no plural and takes no "a"."""
        return word in self.words["mass"]

    def adjective_groups(self, word: str) -> tuple[Group, ...]:
        """Return the hand-written groups of an adjective."""
        return self._adjective_groups.get(word, ())

    def everyday_opposites(self, word: str) -> list[str]:
        """Return WordNet's antonyms of an adjective that occur at least three times in WordNet's own texts."""
        return [other for other in self._opposites.get(word, ()) if other in self._everyday]

    @cache  # noqa: B019 - the tables live as long as the process, and so with the others
    def is_person(self, noun: str) -> bool:
        """Whether the noun names a person: by its group, else by WordNet's first sense."""
        groups = self.noun_groups(noun)
        return groups[0].name in PEOPLE if groups else self.is_a(noun, "person")

    def is_listed(self, noun: str) -> bool:
        """Whether a hand-written group lists the noun."""
        return noun in self._noun_groups

    def is_concrete(self, word: str) -> bool:
        """Whether a noun names something that an image can show: it is in a group, or its first sense is physical.

        Physical senses are found as what "dog" and "sand" have in common but "happiness" lacks.
        """
        if self.noun_groups(word) or word in self._generals:
            return True
        return bool(self.first_over(word) & self._matter)

    @cached_property
    def _matter(self) -> frozenset[int]:
        """The senses above every physical thing and above nothing else."""
        return self.first_over("dog") & self.first_over("sand") - self.first_over("happiness")

    def is_material(self, word: str) -> bool:
        """Whether a noun names a material, such as "plastic" or "wool", and is in no group of things."""
        made_of = self.is_in_group(word, "material") or self.is_a(word, "material", "substance")
        return made_of and not self.noun_groups(word)

    def is_event(self, word: str) -> bool:
        """Whether a noun names an event or activity, such as "match" or "climb", rather than a thing."""
        return word in self.words["event"] or (not self.noun_groups(word) and self.is_a(word, "event"))

    def noun_groups(self, word: str) -> tuple[Group, ...]:
        """Return the groups of a noun: those that list it, else the one anchored nearest above its first sense."""
        anchored = self._anchored.get(word)
        return self._noun_groups.get(word) or ((self.nouns[anchored],) if anchored else ())

    def group_names(self, noun: str) -> frozenset[str]:
        """Return the names of a noun's groups."""
        return frozenset(group.name for group in self.noun_groups(noun))

    @cache  # noqa: B019
    def noun_sorts(self, word: str) -> frozenset[str]:
        """Return the names of a noun's groups, and of the groups that it is above: "drink" above tea and coffee."""
        return self.group_names(word) | {group.name for group in self.nouns.values() if word in group.above}

    def is_living(self, word: str) -> bool:
        """Whether the noun names a person or an animal."""
        groups = self.noun_groups(word)
        return groups[0].living if groups else self.is_person(word)

    def adjective_relation(self, word: str, other: str) -> Relation:
        """Return why one adjective must not replace the other; "" only if they exclude each other. Symmetric."""
        if word == other:
            return "synonym"
        mine, theirs = self._adjective_groups.get(word, ()), self._adjective_groups.get(other, ())
        shared = [group for group in mine if group in theirs]
        if any(other in group.cluster(word) for group in shared):
            return "synonym"
        senses, others = self._adjective_senses.get(word, ()), self._adjective_senses.get(other, ())
        if not shared and not set(senses).isdisjoint(others):
            return "synonym"
        if shared or other in self._opposites.get(word, ()) or word in self._opposites.get(other, ()):
            return ""
        near = any(not set(self._near.get(sense, ())).isdisjoint(others) for sense in senses)
        return "synonym" if near else "compatible"

    def over(self, word: str) -> frozenset[int]:
        """Return every sense of a noun and all senses above them."""
        return self._over(self.senses_in_order(word))

    def first_over(self, word: str) -> frozenset[int]:
        """Return the first sense of a noun and all senses above it."""
        return self._over(self.senses_in_order(word)[:1])

    def always_over(self, word: str, general: str) -> bool:
        """Whether a general noun's first sense is above every sense of a noun, as for "hiker" but not "stroller"."""
        top = set(self.senses_in_order(general)[:1])
        return all(top & self._over((sense,)) for sense in self.senses_in_order(word))

    def is_a(self, word: str, *kinds: str) -> bool:
        """Whether the first sense of a noun equals that of one of the kinds, or is below it."""
        return any(sense in self.first_over(word) for kind in kinds for sense in self.senses_in_order(kind)[:1])

    def is_part(self, part: str, whole: str) -> bool:
        """Whether one thing is a part of the other in any sense, or in the first senses of some sort of the other."""
        return bool(self.senses(whole) & self._wholes_over(self.over(part))) or self.is_usual_part(part, whole)

    def is_usual_part(self, part: str, whole: str) -> bool:
        """Whether one thing is a part of the other in the first sense of both, or of some sort of the other."""
        return bool(self.first_over(whole) & self._wholes_over(frozenset(self.senses_in_order(part)[:1])))

    def senses_in_order(self, word: str) -> tuple[int, ...]:
        """Return the senses of a noun, most frequent first."""
        return self._noun_senses.get(word, ())

    def senses(self, word: str) -> frozenset[int]:
        """Return the senses of a noun."""
        return frozenset(self.senses_in_order(word))

    def above(self, sense: int) -> tuple[int, ...]:
        """Return the senses directly above a sense."""
        return self._above.get(sense, ())

    @cache  # noqa: B019
    def _over(self, senses: tuple[int, ...]) -> frozenset[int]:
        ancestors, waiting = set[int](), list(senses)
        while waiting:
            sense = waiting.pop()
            if sense not in ancestors:
                ancestors.add(sense)
                waiting += self.above(sense)
        return frozenset(ancestors)

    @cache  # noqa: B019
    def _wholes_over(self, senses: frozenset[int]) -> frozenset[int]:
        """Return the senses that any given one is a part of, up to three steps."""
        layer, wholes = set(senses), set[int]()
        for _ in range(_PART_DEPTH):
            layer = {whole for sense in layer for whole in self._wholes.get(sense, ())} - wholes
            wholes |= layer
        return frozenset(wholes)


def _numbers(field: str) -> tuple[int, ...]:
    return tuple(int(number) for number in field.split())


@cache
def lexicon() -> Lexicon:
    """Return the package's word tables, read once (about a tenth of a second).

    Raises:
        DeglaError: the tables are missing from the installation.
    """
    return Lexicon(read_tables(GROUPS_NAME), read_data(TABLE_NAME))
