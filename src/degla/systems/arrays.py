"""Arrays from files: read by name, checked to be integers and disjoint, with one-line errors for unreadable files."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from degla.errors import InputError
from degla.parse import in_one_line


@contextmanager
def reading(path: Path, wrong: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of another library that reads a file into an `InputError`.

    Args:
        path: path of the file.
        wrong: what the message says about the file, such as "not a CIFAR file".
        kinds: exceptions by which the library fails.

    Raises:
        InputError: the library fails.
    """
    try:
        yield
    except kinds as error:
        raise InputError(f"{path}: {wrong} ({in_one_line(error)}). Download or recreate it.") from None


def read_arrays(path: Path, names: Sequence[str], *, what: str, optional: Sequence[str] = ()) -> dict[str, Any]:
    """Read the arrays with these names, without unpickling.

    Args:
        path: path of the file.
        names: required names.
        what: what needs them, for the message.
        optional: optional names.

    Raises:
        InputError: the file cannot be read, or a name is missing.
    """
    if path.is_file() and not is_zipfile(path):  # numpy would speak of pickles that can be trusted.
        raise InputError(
            f"{path}: cannot be read as arrays (not an .npz archive, or cut off). Download or recreate it."
        )
    with (
        reading(path, "cannot be read as arrays", ValueError, OSError, EOFError, BadZipFile, zlib.error),
        np.load(path, allow_pickle=False) as file,
    ):
        missing = [name for name in names if name not in file]
        if missing:
            raise InputError(f"{path}: {missing[0]!r} is missing; {what} needs {', '.join(names)}.")
        return {name: file[name] for name in (*names, *optional) if name in file}


def whole_numbers(values: NDArray[Any], *, where: str, axes: int = 1) -> NDArray[np.int64]:
    """Convert numbers of any type to integers, and a boolean mask to the indices that are true.

    Args:
        values: numbers that should be integers.
        where: where they are from, for the message.
        axes: required number of axes: 1 for a row, 2 for a table.

    Raises:
        InputError: a value is not an integer, or the number of axes differs; a table is not a mask.
    """
    if values.ndim != axes:
        form = "one row" if axes == 1 else "a table"
        raise InputError(f"{where}: must be {form} of numbers, but has shape {values.shape}.")
    if values.dtype.kind == "b" and axes == 1:
        return np.flatnonzero(values)
    if values.dtype.kind == "f":
        wrong = ~np.isfinite(values) | (values != np.floor(values))
        if wrong.any():
            place = np.argwhere(wrong)[0].tolist()
            raise InputError(f"{where}: entry {place} is {values[tuple(place)]}; it must be an integer.")
    elif values.dtype.kind not in "iu":
        raise InputError(f"{where}: must be integers, but has dtype {values.dtype}.")
    return values.astype(np.int64)


def require_disjoint(name: str, parts: Mapping[str, Sequence[Any]], *, say: Callable[[Any], str]) -> None:
    """Require that no two parts of data share an item.

    Args:
        name: name of the data, for the message.
        parts: items of each part.
        say: how the message names an item.

    Raises:
        InputError: an item is in two parts.
    """
    for one, other in combinations(parts, 2):
        shared = set(parts[one]) & set(parts[other])
        if shared:
            raise InputError(f"{name}: {say(min(shared))} is in both {one} and {other}. Remove it from one.")
