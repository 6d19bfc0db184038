"""What may be added to a caption, from `lexicon_data/additions.toml`: objects beside a noun, attributes of a noun.

A picture holds more than its caption says, so an addition may be true without anyone's knowing it. What is drawn is
what a caption would mention; what may be there unsaid, or is typical of its noun, is refused as "still_true".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from degla.negatives.grammar.groups import ADDITIONS_NAME, read_tables
from degla.negatives.grammar.lexicon import lexicon


@dataclass(frozen=True)
class _List:
    sorts: frozenset[str]
    words: frozenset[str]
    draws: tuple[str, ...]


class Additions:
    """The lists in memory; `additions()` gives the ones that are shared. Words are dictionary forms."""

    def __init__(self, tables: dict[str, Any]) -> None:
        self._objects = _lists(tables["objects"])
        self._attributes = _lists(tables["attributes"])
        self._typical = {noun: frozenset(words) for noun, words in tables["typical"].items()}
        self._words = {name: frozenset(words) for name, words in tables["words"].items()}

    def objects(self, noun: str) -> tuple[str, ...]:
        """Nouns of things that may be added beside a noun's."""
        return _draws(self._objects, noun)

    def attributes(self, noun: str) -> tuple[str, ...]:
        """Adjectives that may be added to a noun."""
        return _draws(self._attributes, noun)

    def may_be_present(self, noun: str) -> bool:
        """Whether a picture may well hold such a thing without its caption's saying so."""
        sorts = {group.name for group in lexicon().noun_groups(noun)}
        return noun in self._words["present_nouns"] or bool(sorts & self._words["present"])

    def is_vague(self, adjective: str) -> bool:
        """Whether an adjective says a size, an age, a judgement or the like."""
        return any(group.name in self._words["vague"] for group in lexicon().adjective_groups(adjective))

    def is_typical(self, adjective: str, noun: str) -> bool:
        """Whether most things of the noun's name are so anyway."""
        return adjective in self._typical.get(noun, ())


def _lists(tables: dict[str, Any]) -> tuple[_List, ...]:
    return tuple(
        _List(frozenset(table.get("for", ())), frozenset(table.get("words", ())), tuple(table["draw"]))
        for table in tables.values()
    )


def _draws(lists: tuple[_List, ...], noun: str) -> tuple[str, ...]:
    named = next((one.draws for one in lists if noun in one.words), None)
    if named is not None:
        return named
    sorts = {group.name for group in lexicon().noun_groups(noun)[:1]}
    return next((one.draws for one in lists if sorts & one.sorts), ())


@cache
def additions() -> Additions:
    """The package's lists of additions, read once.

    Raises:
        DeglaError: the file is not where the package was installed.
    """
    return Additions(read_tables(ADDITIONS_NAME))
