"""JSON lines: one record a line, with the fields of the package's own records or with named columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from degla.data.sources import Columns, Placed, captions_of_rows
from degla.parse import read_json_lines
from degla.records import NegativeRecord, read_jsonl

ENDINGS = (".jsonl", ".ndjson")


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """One caption (or list of captions) a line; blank lines are passed over.

    Raises:
        InputError: a line is not a JSON object, or has a wrong field (file and line named).
    """
    return captions_of_rows(read_json_lines(path), columns)


def negatives(path: Path) -> Iterator[NegativeRecord]:
    """One `NegativeRecord` a line."""
    return read_jsonl(NegativeRecord, path)
