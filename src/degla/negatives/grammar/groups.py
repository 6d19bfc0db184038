"""Groups of everyday words, written by hand in `lexicon_data/groups.toml`: what may be drawn as a replacement."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from degla.errors import DeglaError

DATA_FOLDER = Path(__file__).parent / "lexicon_data"
GROUPS_NAME = "groups.toml"
RELATIONS_NAME = "relations.toml"
ADDITIONS_NAME = "additions.toml"


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
        mass: nouns: the draws have no plural and no "a".
        of: adjectives: "living" or "thing" where the group applies to one of the two only, else "".
    """

    name: str
    above: frozenset[str] = frozenset()
    living: bool = False
    mass: bool = False
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


def read_groups() -> dict[str, Any]:
    """The hand-written groups as nested tables."""
    return read_tables(GROUPS_NAME)


def make_groups(tables: dict[str, Any]) -> dict[str, Group]:
    """The groups of one section of `groups.toml`, by name."""
    groups = {}
    for name, table in tables.items():
        clusters = tuple(frozenset(cluster) for cluster in table["clusters"])
        everything = tuple(word for cluster in table["clusters"] for word in cluster)
        source = tables[table["draw_from"]] if "draw_from" in table else table
        draws = tuple(source.get("draw", () if "draw_from" in table else everything))
        more = {key: table[key] for key in ("living", "mass", "of") if key in table}
        groups[name] = Group(clusters, draws, name, frozenset(table.get("above", ())), **more)
    return groups


def members(groups: Iterable[AnyGroup]) -> dict[str, tuple[AnyGroup, ...]]:
    """The groups that list a word, by word."""
    listing: dict[str, tuple[AnyGroup, ...]] = {}
    for group in groups:
        for word in frozenset().union(*group.clusters):
            listing[word] = (*listing.get(word, ()), group)
    return listing
