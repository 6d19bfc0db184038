"""One whole JSON document, read with errors that name the file, line and column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from degla.errors import InputError


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        InputError: it cannot be read, is not UTF-8 text, or is not JSON (line and column named).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except json.JSONDecodeError as error:
        lines = "" if error.lineno > 1 else " Files with one record a line are called .jsonl."
        raise InputError(f"{path} line {error.lineno}: not JSON: {error.msg} at column {error.colno}.{lines}") from None


def first_character(path: Path) -> str:
    """The first character of a text file that is not white space; "" where there is none."""
    with path.open("rb") as stream:
        return stream.read(4096).decode("utf-8-sig", errors="replace").lstrip()[:1]


def describe(value: object) -> str:
    """Say in JSON's words what a value is: "a list of 3 entries", "an object with the keys 'a', 'b'", ..."""
    match value:
        case dict():
            keys = ", ".join(repr(key) for key in list(value)[:6])
            return f"an object with the keys {keys}" if keys else "an empty object"
        case list():
            return f"a list of {len(value)} entries" if value else "an empty list"
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {value[:40]!r}"
    return f"the number {value}"
