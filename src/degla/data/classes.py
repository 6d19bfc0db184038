"""Reads the list of classes that images are told apart by."""

from __future__ import annotations

from pathlib import Path

from degla.data.formats._json import describe
from degla.errors import InputError
from degla.parse import read_json, read_text


def read_classes(path: Path) -> tuple[str, ...]:
    """Names of the classes, in order: one a line, or a JSON list, or a JSON object with such a list as "classes".

    Raises:
        InputError: the file cannot be read, has another form, fewer than two classes, or one of them twice.
    """
    if path.suffix.lower() == ".json":
        found = read_json(path)
        names = found.get("classes") if isinstance(found, dict) else found
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(
                f'{path}: found {describe(found)} where a list of class names (or {{"classes": [...]}}) is needed.'
            )
    else:
        names = read_text(path).splitlines()
    names = [name.strip() for name in names if name.strip()]
    if len(names) < 2:
        raise InputError(f"{path}: holds {len(names)} classes; two or more are needed, one a line.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: class {twice!r} is there twice.")
    return tuple(names)
