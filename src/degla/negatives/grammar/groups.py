"""Groups of everyday words, written by hand in `lexicon_data/groups.toml`: what may be drawn as a replacement."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from degla.errors import DeglaError

DATA_FOLDER = Path(__file__).parent / "lexicon_data"
GROUPS_NAME = "groups.toml"
RELATIONS_NAME = "relations.toml"
ADDITIONS_NAME = "additions.toml"


@dataclass(frozen=True)
class Group:
    """Words of one sort; two words that no cluster holds both of exclude each other.

    Attributes:
        name: as in `groups.toml`.
        clusters: words of one cluster may be true of the same thing; clusters may overlap.
        draws: the words that replacements are drawn from.
        above: words that are true of the whole group ("seating" of every chair).
        living: nouns: people and animals.
        mass: nouns: the draws have no plural and no "a".
        of: adjectives: "living" or "thing" where the group applies to one of the two only, else "".
    """

    name: str
    clusters: tuple[frozenset[str], ...]
    draws: tuple[str, ...]
    above: frozenset[str] = frozenset()
    living: bool = False
    mass: bool = False
    of: str = ""

    def cluster(self, word: str) -> frozenset[str]:
        """The word and all that share a cluster with it; empty where the group does not list it."""
        return frozenset().union(*(cluster for cluster in self.clusters if word in cluster))


def read_groups() -> dict[str, Any]:
    """The hand-written groups as nested tables."""
    return read_tables(GROUPS_NAME)


def read_tables(name: str) -> dict[str, Any]:
    """A hand-written file of the package's data as nested tables.

    Raises:
        DeglaError: the file is not where the package was installed.
    """
    try:
        return tomllib.loads((DATA_FOLDER / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise DeglaError(f"{error.filename}: the word tables are missing; install degla again.") from None


def make_groups(tables: dict[str, Any]) -> dict[str, Group]:
    """The groups of one section of `groups.toml`, by name."""
    groups = {}
    for name, table in tables.items():
        clusters = tuple(frozenset(cluster) for cluster in table["clusters"])
        everything = tuple(word for cluster in table["clusters"] for word in cluster)
        source = tables[table["draw_from"]] if "draw_from" in table else table
        draws = tuple(source.get("draw", () if "draw_from" in table else everything))
        groups[name] = Group(
            name,
            clusters,
            draws,
            frozenset(table.get("above", ())),
            table.get("living", False),
            table.get("mass", False),
            table.get("of", ""),
        )
    return groups


def members(groups: dict[str, Group]) -> dict[str, tuple[Group, ...]]:
    """The groups that list a word, by word."""
    found: dict[str, tuple[Group, ...]] = {}
    for group in groups.values():
        for cluster in group.clusters:
            for word in cluster:
                found[word] = (*found.get(word, ()), group)
    return found
