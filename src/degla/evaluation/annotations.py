"""Annotation files of published benchmarks: JSON enters, rows with their keys leave, wrong files are named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from degla import parse
from degla.errors import InputError

_AGAIN: Final = "Fetch the file again."


class Published(Protocol):
    """What a message says of files that lack: where to get them, and how they must lie."""

    @property
    def source(self) -> str:
        """Where a user gets the files."""

    @property
    def layout(self) -> str:
        """How they must lie, one path a line."""


def read_object(file: Path, published: Published) -> dict[str, Any]:
    """The members of a file that is one JSON object, in the file's order.

    Raises:
        InputError: the file is missing (the message says where to get it and how it must lie), is not JSON, is not an
            object or holds a key twice.
    """
    content = _read(file, published)
    if not isinstance(content, dict):
        raise InputError(f"{file}: must be one JSON object, got a {type(content).__name__}. {_AGAIN}")
    return content


def read_list(file: Path, published: Published) -> list[Any]:
    """The elements of a file that is one JSON list; raises like `read_object`."""
    content = _read(file, published)
    if not isinstance(content, list):
        raise InputError(f"{file}: must be one JSON list, got a {type(content).__name__}. {_AGAIN}")
    return content


def read_lines(file: Path, published: Published) -> Iterator[tuple[int, Any]]:
    """Line numbers, from 1, and contents of a file with one JSON value a line; raises like `read_object`."""
    for number, line in enumerate(read_text(file, published).split("\n"), start=1):
        if line.strip():
            yield number, parse.parse_json(line, where=f"{file} line {number}", remedy=_AGAIN, lines=False)


def _read(file: Path, published: Published) -> Any:
    return parse.parse_json(read_text(file, published), where=str(file), remedy=_AGAIN)


def read_text(file: Path, published: Published) -> str:
    """The whole of a text file.

    Raises:
        InputError: the file is missing (the message says where to get it and how it must lie) or not UTF-8.
    """
    layout = f"Get it from {published.source}; the files must lie so:\n{published.layout}"
    return parse.decode(parse.read_bytes(file, remedy=layout), where=str(file), remedy=_AGAIN)
