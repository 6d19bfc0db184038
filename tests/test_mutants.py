"""The list of planted bugs fits the source and the tests; `make mutants` plants them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tools.mutate import MOST_KNOWN, ROOT, Mutant, read_mutants

MUTANTS = read_mutants()


def test_there_are_enough_in_every_room() -> None:
    rooms = Counter(mutant.room for mutant in MUTANTS)
    assert len(MUTANTS) >= 120 and min(rooms.values()) >= 4, rooms
    assert sum(mutant.audit for mutant in MUTANTS) == 14
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert sum(bool(mutant.known) for mutant in MUTANTS) <= MOST_KNOWN
    assert not any(mutant.audit and mutant.known for mutant in MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.room}: {mutant.name}")
def test_fits(mutant: Mutant) -> None:
    assert mutant.planted() and mutant.harm and mutant.tests
    for name in mutant.tests:
        file, _, function = name.partition("::")
        path = Path(ROOT / "tests" / file)
        assert path.is_file(), name
        assert not function or f"def {function.partition('[')[0]}(" in path.read_text(), name
