"""Decisions name the tests that enforce them: every row of their tables names some, and all exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROWS = [
    (name, row[0], row[1])
    for name in ("0005-invariants.md", "0007-audit.md")
    for row in re.findall(
        r"^\| ([A-Z]?\d+) \|(.*)$", (ROOT / "docs" / "decisions" / name).read_text(encoding="utf-8"), re.MULTILINE
    )
]
WORDS_ALONE = {"E6", "E7"}
"""Findings that are sentences of the README or the log."""


def test_every_finding_of_the_audit_has_a_row() -> None:
    findings = {number for name, number, _ in ROWS if name.startswith("0007")}
    numbers = {"A": 16, "B": 8, "C": 7, "D": 8, "E": 7, "F": 9}
    assert findings == {f"{letter}{number}" for letter, last in numbers.items() for number in range(1, last + 1)}


@pytest.mark.parametrize(("name", "number", "row"), ROWS, ids=[f"{name[:4]}-{number}" for name, number, _ in ROWS])
def test_every_row_names_tests_that_exist(name: str, number: str, row: str) -> None:
    named = NAMED.findall(row)
    assert named or number in WORDS_ALONE, f"{name}: {number} is held by no test"
    for file, function in named:
        assert function in _functions(file), f"{file}::{function}"


@cache
def _functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
