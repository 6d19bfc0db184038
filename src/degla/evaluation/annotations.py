"""Annotation files of published benchmarks: JSON enters, rows with their keys leave, wrong files are named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from degla.errors import InputError


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
        raise InputError(f"{file}: must be one JSON object, got a {type(content).__name__}. Fetch the file again.")
    return content


def read_list(file: Path, published: Published) -> list[Any]:
    """The elements of a file that is one JSON list; raises like `read_object`."""
    content = _read(file, published)
    if not isinstance(content, list):
        raise InputError(f"{file}: must be one JSON list, got a {type(content).__name__}. Fetch the file again.")
    return content


def read_lines(file: Path, published: Published) -> Iterator[tuple[int, Any]]:
    """Line numbers, from 1, and contents of a file with one JSON value a line; raises like `read_object`."""
    for number, line in enumerate(read_text(file, published).splitlines(), start=1):
        if line.strip():
            yield number, _parse(line, f"{file} line {number}")


def _read(file: Path, published: Published) -> Any:
    return _parse(read_text(file, published), str(file))


def read_text(file: Path, published: Published) -> str:
    """The whole of a text file.

    Raises:
        InputError: the file is missing (the message says where to get it and how it must lie) or not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read: {error.strerror}. Get it from {published.source}; the files must lie so:\n"
            f"{published.layout}"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start}). Fetch it again.") from None


def _parse(text: str, where: str) -> Any:
    def refuse_repeated(members: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(members)
        if len(content) < len(members):
            keys = [key for key, _ in members]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"{where}: the key {twice!r} stands there twice. Fetch the file again.")
        return content

    try:
        return json.loads(text, object_pairs_hook=refuse_repeated)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: not JSON: {error.msg} in line {error.lineno}, column {error.colno}. Fetch the file again."
        ) from None
    except RecursionError:
        raise InputError(f"{where}: not an annotation file: nested too deeply.") from None
