"""Everyday words: which groups they belong to, what may replace them, and which pairs must never replace each other.

Two files of `lexicon_data/`: `groups.toml`, written by hand, says what may be drawn as a replacement; `wordnet.tsv`,
derived from WordNet 3.0 by `tools/build_lexicon.py`, says what must be refused (same sense, above or below, part and
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
DATA_FILES = (GROUPS_NAME, TABLE_NAME, RELATIONS_NAME, ADDITIONS_NAME)

Relation = Literal["", "synonym", "hypernym", "part", "compatible"]
"""Why one word must not replace another; "" where it may."""

PEOPLE = ("person", "someone", "role")
_PART_DEPTH = 3
"""Steps from part to whole that are followed: thumb, hand, arm, body."""


@dataclass(frozen=True)
class WordGroup:
    """Words of one sort; two words that no cluster holds both of exclude each other.

    Attributes:
        clusters: words of one cluster may be true of the same thing; clusters may overlap.
        draws: the words that replacements are drawn from.
    """

    clusters: tuple[frozenset[str], ...]
    draws: tuple[str, ...]

    def cluster(self, word: str) -> frozenset[str]:
        """The word and all that share a cluster with it; empty where the group does not list it."""
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
    """Nouns or adjectives.

    Attributes:
        name: as in `groups.toml`.
        above: words that are true of the whole group ("seating" of every chair).
        living: nouns: people and animals.
        of: adjectives: "living" or "thing" where the group applies to one of the two only, else "".
    """

    name: str
    above: frozenset[str] = frozenset()
    living: bool = False
    of: str = ""


AnyGroup = TypeVar("AnyGroup", bound=WordGroup)


def read_data(name: str) -> str:
    """The text of a file of `lexicon_data/`.

    Raises:
        DeglaError: the file is not where the package was installed.
    """
    try:
        return (DATA_FOLDER / name).read_text(encoding="utf-8")
    except OSError as error:
        raise DeglaError(f"{error.filename}: the word tables are missing; install degla again.") from None


def read_tables(name: str) -> dict[str, Any]:
    """A hand-written file of `lexicon_data/` as nested tables."""
    return tomllib.loads(read_data(name))


def make_groups(tables: dict[str, Any]) -> dict[str, Group]:
    """The groups of one section of `groups.toml`, by name."""
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
    """The groups that list a word, by word."""
    listing: dict[str, tuple[AnyGroup, ...]] = {}
    for group in groups:
        for word in frozenset().union(*group.clusters):
            listing[word] = (*listing.get(word, ()), group)
    return listing


@cache
def digest() -> str:
    """SHA-256 of all files of word tables, 16 hexadecimal digits: the same digest gives the same negatives."""
    content = b"".join((DATA_FOLDER / name).read_bytes() for name in DATA_FILES)
    return hashlib.sha256(content).hexdigest()[:16]


class Lexicon:
    """The word tables in memory; `lexicon()` gives the one that is shared.

    Words are lower-case dictionary forms throughout.
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
        """Whether the word is a noun of the tables."""
        return word in self._noun_senses or word in self._noun_groups or word in self._generals

    def is_adjective(self, word: str) -> bool:
        """Whether the word is an adjective of the tables."""
        return word in self._adjective_senses or word in self._adjective_groups

    def is_attribute(self, word: str) -> bool:
        """Whether the word belongs to a hand-written adjective group: colours, sizes, materials, ..."""
        return word in self._adjective_groups

    def is_in_group(self, word: str, group: str) -> bool:
        """Whether a noun or adjective is listed in the group of that name."""
        listed = (*self._noun_groups.get(word, ()), *self._adjective_groups.get(word, ()))
        return any(one.name == group for one in listed)

    def share_sort(self, word: str, other: str) -> bool:
        """Whether one hand-written group of adjectives lists both words."""
        return any(group in self.adjective_groups(other) for group in self.adjective_groups(word))

    def is_name(self, first: str, head: str) -> bool:
        """Whether the two words name one thing, as "fire hydrant" does."""
        name = f"{first} {head}"
        return name in self.words["names"] or (name in self._names and not self.is_attribute(first))

    def is_mass(self, word: str) -> bool:
        """Whether the noun takes no plural and no "a"."""
        return word in self.words["mass"]

    def adjective_groups(self, word: str) -> tuple[Group, ...]:
        """The hand-written groups of an adjective."""
        return self._adjective_groups.get(word, ())

    def everyday_opposites(self, word: str) -> list[str]:
        """WordNet's antonyms of an adjective that its own texts have at least three times."""
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
        """Whether a noun names something that a picture can show: it is in a group, or WordNet's first sense is matter.

        What a dog and sand have in common and happiness has not is being a physical thing.
        """
        if self.noun_groups(word) or word in self._generals:
            return True
        return bool(self.first_over(word) & self._matter)

    @cached_property
    def _matter(self) -> frozenset[int]:
        """The senses that are above every physical thing and above nothing else."""
        return self.first_over("dog") & self.first_over("sand") - self.first_over("happiness")

    def is_material(self, word: str) -> bool:
        """Whether a noun names what things are made of, as "plastic" and "wool" do, and is in no group of things."""
        made_of = self.is_in_group(word, "material") or self.is_a(word, "material", "substance")
        return made_of and not self.noun_groups(word)

    def is_event(self, word: str) -> bool:
        """Whether a noun names something that happens or is done, as "match" and "climb" do, and no thing."""
        return word in self.words["event"] or (not self.noun_groups(word) and self.is_a(word, "event"))

    def noun_groups(self, word: str) -> tuple[Group, ...]:
        """The groups of a noun: those that list it, else the one anchored nearest above its first sense."""
        anchored = self._anchored.get(word)
        return self._noun_groups.get(word) or ((self.nouns[anchored],) if anchored else ())

    def group_names(self, noun: str) -> frozenset[str]:
        """Names of a noun's groups."""
        return frozenset(group.name for group in self.noun_groups(noun))

    @cache  # noqa: B019
    def noun_sorts(self, word: str) -> frozenset[str]:
        """Names of a noun's groups, and of the groups that it stands above: "drink" of every tea and coffee."""
        return self.group_names(word) | {group.name for group in self.nouns.values() if word in group.above}

    def is_living(self, word: str) -> bool:
        """Whether the noun names a person or an animal."""
        groups = self.noun_groups(word)
        return groups[0].living if groups else self.is_person(word)

    def adjective_relation(self, word: str, other: str) -> Relation:
        """Why one adjective must not replace the other: only words known to exclude each other may. Symmetric."""
        if word == other:
            return "synonym"
        mine, theirs = self._adjective_groups.get(word, ()), self._adjective_groups.get(other, ())
        shared = [group for group in mine if group in theirs]
        if any(group.cluster(word) == group.cluster(other) for group in shared):
            return "synonym"
        senses, others = self._adjective_senses.get(word, ()), self._adjective_senses.get(other, ())
        if not shared and not set(senses).isdisjoint(others):
            return "synonym"
        if shared or other in self._opposites.get(word, ()) or word in self._opposites.get(other, ()):
            return ""
        near = any(not set(self._near.get(sense, ())).isdisjoint(others) for sense in senses)
        return "synonym" if near else "compatible"

    def over(self, word: str) -> frozenset[int]:
        """Every sense of a noun and all senses above them."""
        return self._over(self.senses_in_order(word))

    def first_over(self, word: str) -> frozenset[int]:
        """The first sense of a noun and all senses above it."""
        return self._over(self.senses_in_order(word)[:1])

    def always_over(self, word: str, general: str) -> bool:
        """Whether a general noun's first sense is above every sense of a noun: of "hiker", not of "stroller"."""
        top = set(self.senses_in_order(general)[:1])
        return all(top & self._over((sense,)) for sense in self.senses_in_order(word))

    def is_a(self, word: str, *kinds: str) -> bool:
        """Whether the first sense of a noun is that of one of the kinds, or below it."""
        return any(sense in self.first_over(word) for kind in kinds for sense in self.senses_in_order(kind)[:1])

    def is_part(self, part: str, whole: str) -> bool:
        """Whether one thing is a part of the other in any sense, or in the first senses of some sort of the other."""
        return bool(self.senses(whole) & self._wholes_over(self.over(part))) or self.is_usual_part(part, whole)

    def is_usual_part(self, part: str, whole: str) -> bool:
        """Whether one thing is a part of the other in the first sense of both, or of some sort of the other."""
        return bool(self.first_over(whole) & self._wholes_over(frozenset(self.senses_in_order(part)[:1])))

    def senses_in_order(self, word: str) -> tuple[int, ...]:
        """The senses of a noun, most frequent first."""
        return self._noun_senses.get(word, ())

    def senses(self, word: str) -> frozenset[int]:
        """The senses of a noun."""
        return frozenset(self.senses_in_order(word))

    def above(self, sense: int) -> tuple[int, ...]:
        """The senses directly above one."""
        return self._above.get(sense, ())

    @cache  # noqa: B019
    def _over(self, senses: tuple[int, ...]) -> frozenset[int]:
        found, waiting = set[int](), list(senses)
        while waiting:
            sense = waiting.pop()
            if sense not in found:
                found.add(sense)
                waiting += self.above(sense)
        return frozenset(found)

    @cache  # noqa: B019
    def _wholes_over(self, senses: frozenset[int]) -> frozenset[int]:
        """Senses that any of the given ones is a part of, up to three steps."""
        layer, found = set(senses), set[int]()
        for _ in range(_PART_DEPTH):
            layer = {whole for sense in layer for whole in self._wholes.get(sense, ())} - found
            found |= layer
        return frozenset(found)


def _numbers(field: str) -> tuple[int, ...]:
    return tuple(int(number) for number in field.split())


@cache
def lexicon() -> Lexicon:
    """The package's word tables, read once (about a tenth of a second).

    Raises:
        DeglaError: the tables are not where the package was installed.
    """
    return Lexicon(read_tables(GROUPS_NAME), read_data(TABLE_NAME))
