"""The list of planted bugs fits the source and the tests; `make mutants` plants them."""

from __future__ import annotations

from collections import Counter
from functools import cache

from tools.mutate import MOST_KNOWN, ROOT, read_mutants

MUTANTS = read_mutants()


def test_there_are_enough_in_every_room() -> None:
    rooms = Counter(mutant.room for mutant in MUTANTS)
    assert len(MUTANTS) >= 120 and min(rooms.values()) >= 4, rooms
    assert sum(mutant.audit for mutant in MUTANTS) == 14
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert sum(bool(mutant.known) for mutant in MUTANTS) <= MOST_KNOWN
    assert not any(mutant.audit and mutant.known for mutant in MUTANTS)


def test_fits() -> None:
    """In one test: they are many, and each takes less time than the report of a test."""
    text_of = cache(lambda path: path.read_text())
    for mutant in MUTANTS:
        what = f"{mutant.room}: {mutant.name}"
        assert mutant.planted() and mutant.harm and mutant.tests, what
        for name in mutant.tests:
            file, _, function = name.partition("::")
            path = ROOT / "tests" / file
            assert path.is_file(), f"{what}: {name}"
            assert not function or f"def {function.partition('[')[0]}(" in text_of(path), f"{what}: {name}"
