"""Tables of what was measured, on the systems' pages, follow from the records that lie beside them."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest

from degla.shelf import SYSTEMS
from degla.systems.page import page_of
from degla.systems.record import load_record

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "docs" / "studies" / "systems").glob("*/system.json"))


def _tables(text: str) -> list[str]:
    lines = groupby(text.splitlines(), key=lambda line: line.startswith("|"))
    return ["\n".join(table) for is_table, table in lines if is_table]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_tables_follow_from_their_record(path: Path) -> None:
    name = path.parent.name
    record = load_record(path.parent, system=name)
    page = (ROOT / "docs" / f"systems-{name}.md").read_text(encoding="utf-8")
    made = _tables(page_of(SYSTEMS.load(name).SYSTEM, record).markdown())
    assert len(made) >= 2 and len({row.seed for row in record.cases}) >= 3
    for table in made:
        assert table in page, f"docs/systems-{name}.md must have:\n{table}"
    assert record.command in page


def test_systems_have_records() -> None:
    assert {path.parent.name for path in RECORDS} == set(SYSTEMS.names())
