"""A JSON list of records, `[{"image": "0001.jpg", "caption": "A dog on a sofa."}, ...]`, with fields as in JSONL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from degla.data.formats import degla
from degla.data.formats._json import NOT_LINES, describe, first_character
from degla.data.sources import Columns, Placed, captions_of_row
from degla.errors import InputError
from degla.parse import read_json


def claims(path: Path) -> bool:
    """A .json file that starts with a list and is not the published DeGLA file."""
    return path.is_file() and path.suffix.lower() == ".json" and first_character(path) == "[" and not degla.claims(path)


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """One caption (or list of captions) a record.

    Raises:
        InputError: the file has another shape, or a record a wrong field.
    """
    document = read_json(path, remedy=NOT_LINES)
    if not isinstance(document, list):
        raise InputError(f"{path}: found {describe(document)} where a list of records is needed.")
    for number, row in enumerate(document):
        where = f"{path} record {number}"
        if not isinstance(row, dict):
            raise InputError(f"{where}: found {describe(row)} where an object is needed.")
        if number == 0:
            columns = columns.settle(list(row), where=where)
        yield from captions_of_row(row, columns=columns, where=where, number=number)
