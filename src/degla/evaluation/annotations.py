"""Annotation files of published benchmarks: JSON enters, rows with their keys leave, wrong files are named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from degla.errors import InputError
from degla.evaluation.benchmarks import Benchmark


def read_object(file: Path, benchmark: Benchmark) -> dict[str, Any]:
    """The members of a file that is one JSON object, in the file's order.

    Raises:
        InputError: the file is missing (the message says where to get it and how it must lie), is not JSON, is not an
            object or holds a key twice.
    """
    content = _read(file, benchmark)
    if not isinstance(content, dict):
        raise InputError(f"{file}: must be one JSON object, got a {type(content).__name__}. Fetch the file again.")
    return content


def read_list(file: Path, benchmark: Benchmark) -> list[Any]:
    """The elements of a file that is one JSON list; raises like `read_object`."""
    content = _read(file, benchmark)
    if not isinstance(content, list):
        raise InputError(f"{file}: must be one JSON list, got a {type(content).__name__}. Fetch the file again.")
    return content


def read_lines(file: Path, benchmark: Benchmark) -> Iterator[tuple[int, Any]]:
    """Line numbers, from 1, and contents of a file with one JSON value a line; raises like `read_object`."""
    for number, line in enumerate(_text(file, benchmark).splitlines(), start=1):
        if line.strip():
            yield number, _parse(line, f"{file} line {number}")


def _read(file: Path, benchmark: Benchmark) -> Any:
    return _parse(_text(file, benchmark), str(file))


def _text(file: Path, benchmark: Benchmark) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read: {error.strerror}. Get it from {benchmark.source}; the files must lie so:\n"
            f"{benchmark.layout}"
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
