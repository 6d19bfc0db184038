"""Prepositions and verbs that exclude each other, from `lexicon_data/relations.toml`, by what stands behind them."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from degla.errors import DeglaError
from degla.negatives.grammar.groups import DATA_FOLDER, RELATIONS_NAME

Sort = Literal["prepositions", "verbs"]


@dataclass(frozen=True)
class RelationGroup:
    """Words of one sort; words of two clusters exclude each other.

    Attributes:
        clusters: words of one cluster may be true together.
        draws: the words that replacements are drawn from.
        objects: groups of the nouns that may stand behind the word; empty for any noun, or for a verb without one.
        subjects: groups of the nouns that may stand before a verb, "living" or "thing"; empty for any.
    """

    clusters: tuple[frozenset[str], ...]
    draws: tuple[str, ...]
    objects: frozenset[str]
    subjects: frozenset[str]

    def cluster(self, word: str) -> frozenset[str]:
        """The cluster of a word; empty where the group does not list it."""
        return next((cluster for cluster in self.clusters if word in cluster), frozenset())

    def suits(self, sort: Sort, objects: Collection[str], subjects: Collection[str]) -> bool:
        """Whether the group is for a word with such nouns behind and before it."""
        behind = bool(self.objects & set(objects)) if self.objects else sort == "prepositions" or not objects
        return behind and (not self.subjects or bool(self.subjects & set(subjects)))


class Relations:
    """The groups in memory; `relations()` gives the ones that are shared. Verbs are dictionary forms."""

    def __init__(self, tables: dict[str, Any]) -> None:
        self.groups: dict[Sort, tuple[RelationGroup, ...]] = {
            "prepositions": _groups(tables["prepositions"]),
            "verbs": _groups(tables["verbs"]),
        }
        self.words = {name: frozenset(words) for name, words in tables["words"].items()}
        self._listed: dict[Sort, dict[str, list[RelationGroup]]] = {"prepositions": {}, "verbs": {}}
        for sort, groups in self.groups.items():
            for group in groups:
                for word in {word for cluster in group.clusters for word in cluster}:
                    self._listed[sort].setdefault(word, []).append(group)
        self.longest = max(len(word.split()) for word in self._listed["prepositions"])

    def is_known(self, sort: Sort, word: str) -> bool:
        """Whether a group lists the word."""
        return word in self._listed[sort]

    def relation(
        self, sort: Sort, word: str, other: str, *, objects: Collection[str] = (), subjects: Collection[str] = ()
    ) -> str:
        """Why one word must not replace the other: only words of two clusters of one group may. Symmetric.

        Groups that suit what stands around the word decide, where both words are in one: people sit or stand, a vase
        that sits stands as well.
        """
        shared = [group for group in self._listed[sort].get(word, ()) if group.cluster(other)]
        shared = [group for group in shared if group.suits(sort, objects, subjects)] or shared
        if word == other or any(group.cluster(word) == group.cluster(other) for group in shared):
            return "synonym"
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
        found = [
            draw
            for group in self._listed[sort].get(word, ())
            if group.suits(sort, objects, subjects)
            for draw in group.draws
            if draw not in group.cluster(word)
            and not self.relation(sort, word, draw, objects=objects, subjects=subjects)
        ]
        return tuple(dict.fromkeys(found))

    def match(self, texts: Sequence[str], start: int) -> int:
        """Index after the longest preposition that begins at `start`; `start` where none does."""
        for end in range(min(len(texts), start + self.longest), start, -1):
            if " ".join(texts[start:end]) in self._listed["prepositions"]:
                return end
        return start


def _groups(tables: dict[str, Any]) -> tuple[RelationGroup, ...]:
    return tuple(
        RelationGroup(
            tuple(frozenset(cluster) for cluster in table["clusters"]),
            tuple(table.get("draw", [cluster[0] for cluster in table["clusters"]])),
            frozenset(table.get("objects", ())),
            frozenset(table.get("subjects", ())),
        )
        for table in tables.values()
    )


@cache
def relations() -> Relations:
    """The package's groups of prepositions and verbs, read once.

    Raises:
        DeglaError: the file is not where the package was installed.
    """
    try:
        return Relations(tomllib.loads((DATA_FOLDER / RELATIONS_NAME).read_text(encoding="utf-8")))
    except OSError as error:
        raise DeglaError(f"{error.filename}: the word tables are missing; install degla again.") from None
