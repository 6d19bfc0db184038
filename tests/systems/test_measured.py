"""Tables of results on the systems' pages follow from the committed records."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest

from degla.shelf import SYSTEMS
from degla.systems.page import page_of
from degla.systems.record import load_record

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "studies" / "systems"
RECORDS = sorted(FOLDER.rglob("system.json"))
"""NAME/system.json, and NAME/DATA/system.json of runs on other data, which may have fewer seeds."""


def _tables(text: str) -> list[str]:
    lines = groupby(text.splitlines(), key=lambda line: line.startswith("|"))
    return ["\n".join(table) for is_table, table in lines if is_table]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.relative_to(FOLDER).as_posix())
def test_tables_follow_from_their_record(path: Path) -> None:
    name, *others = path.parent.relative_to(FOLDER).parts
    record = load_record(path.parent, system=name)
    page = (ROOT / "docs" / f"systems-{name}.md").read_text(encoding="utf-8")
    expected = _tables(page_of(SYSTEMS.load(name).SYSTEM, record).markdown())
    assert expected and (others or (len(expected) >= 2 and len({row.seed for row in record.cases}) >= 3))
    for table in expected:
        assert table in page, f"docs/systems-{name}.md must have:\n{table}"
    assert record.command in page


def test_systems_have_records() -> None:
    assert {path.parent.name for path in RECORDS if path.parent.parent == FOLDER} == set(SYSTEMS.names())
