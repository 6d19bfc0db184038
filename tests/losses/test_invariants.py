"""The eighteen invariants of decision 0005; no published defect is on by default."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from degla.losses.core.objective import loss_class
from degla.shelf import LOSSES

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "decisions" / "0005-invariants.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \|(.*)$", TABLE, flags=re.MULTILINE)


def test_there_are_eighteen_laws() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 19))


@pytest.mark.parametrize("name", LOSSES.names())
def test_published_defects_are_off_by_default(name: str) -> None:
    term = loss_class(name)()
    assert "published" not in [getattr(term, field.name) for field in dataclasses.fields(term)]
