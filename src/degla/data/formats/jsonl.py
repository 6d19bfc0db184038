"""JSON lines: one record a line, with the fields of the package's own records or with named columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from degla.data.formats._json import describe
from degla.data.sources import Columns, Placed, captions_of_row
from degla.errors import InputError
from degla.parse import read_json_lines
from degla.records import NegativeRecord, read_jsonl


def claims(path: Path) -> bool:
    """Files called .jsonl or .ndjson."""
    return path.suffix.lower() in (".jsonl", ".ndjson")


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """One caption (or list of captions) a line; blank lines are passed over.

    Raises:
        InputError: a line is not a JSON object, or has a wrong field (file and line named).
    """
    for number, (where, row) in enumerate(read_json_lines(path)):
        if not isinstance(row, dict):
            raise InputError(f"{where}: found {describe(row)} where an object is needed.")
        if number == 0:
            columns = columns.settle(list(row), where=where)
        yield from captions_of_row(row, columns=columns, where=where, number=number)


def negatives(path: Path) -> Iterator[NegativeRecord]:
    """One `NegativeRecord` a line."""
    return read_jsonl(NegativeRecord, path)
