"""JSON Lines: one record per line, with the fields of the package's own records or with named columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from degla.data.columns import Columns, Placed, captions_of_rows
from degla.parse import read_json_lines
from degla.records import NegativeRecord, read_jsonl

ENDINGS = (".jsonl", ".ndjson")


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """Yield one caption (or list of captions) per line; blank lines are ignored.

    Raises:
        InputError: a line is not a JSON object or has an invalid field; names file and line.
    """
    return captions_of_rows(read_json_lines(path), columns)


def negatives(path: Path) -> Iterator[NegativeRecord]:
    """Yield one `NegativeRecord` per line."""
    return read_jsonl(NegativeRecord, path)
