"""What a JSON file begins with, and what a value in it is, in words."""

from __future__ import annotations

from pathlib import Path

from degla.parse import open_file

NOT_LINES = "Files with one record a line are called .jsonl."
"""What to do where a .json file is not one JSON text."""


def first_character(path: Path) -> str:
    """The first character of a text file that is not white space; "" where there is none."""
    with open_file(path) as stream:
        return stream.read(4096).decode("utf-8-sig", errors="replace").lstrip()[:1]


def describe(value: object) -> str:
    """Say in JSON's words what a value is: "a list of 3 entries", "an object with the keys 'a', 'b'", ..."""
    match value:
        case dict():
            keys = ", ".join(repr(key[:40]) for key in list(value)[:6])
            return f"an object with the keys {keys}" if keys else "an empty object"
        case list():
            return f"a list of {len(value)} entries" if value else "an empty list"
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {value[:40]!r}"
    return f"the number {str(value)[:40]}"
