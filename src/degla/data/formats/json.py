"""A JSON list of records, `[{"image": "0001.jpg", "caption": "A dog on a sofa."}, ...]`, with the fields of JSONL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from degla.data.sources import Columns, Placed, captions_of_rows
from degla.errors import InputError
from degla.parse import describe_json, open_file, read_json

ENDINGS = (".json",)


def claims(path: Path) -> bool:
    """Claim a file that starts with a list; the format of the published DeGLA file, which also does, is tried first."""
    return first_character(path) == "["


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """Yield one caption (or list of captions) per record.

    Raises:
        InputError: the file has another structure, or a record has an invalid field.
    """
    document = read_document(path, list, needed="a list of records is needed.")
    return captions_of_rows(((f"{path} record {number}", row) for number, row in enumerate(document)), columns)


def first_character(path: Path) -> str:
    """Return the first character of a text file that is not white space; "" if there is none or no file."""
    if not path.is_file():
        return ""
    with open_file(path) as stream:
        return stream.read(4096).decode("utf-8-sig", errors="replace").lstrip()[:1]


def read_document(path: Path, kind: type, *, needed: str) -> Any:
    """Read a JSON file whose value must be a list or an object; `needed` ends the message.

    Raises:
        InputError: see `read_json`; or the value is of another kind.
    """
    document = read_json(path, remedy="Files with one record per line must end in .jsonl.")
    if not isinstance(document, kind):
        raise InputError(f"{path}: found {describe_json(document)}, but {needed}")
    return document
