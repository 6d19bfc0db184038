"""Arrays of files: each by its name, whole numbers that are whole, and one line about what cannot be read."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from degla.errors import InputError
from degla.parse import in_one_line


@contextmanager
def reading(path: Path, wrong: str, *kinds: type[Exception]) -> Iterator[None]:
    """A block in which another library reads a file.

    Args:
        path: of the file.
        wrong: what is said of a file at which the library fails, such as "is no file of CIFAR".
        kinds: of errors by which the library says so.

    Raises:
        InputError: it fails.
    """
    try:
        yield
    except kinds as error:
        raise InputError(f"{path}: {wrong} ({in_one_line(error)}); fetch or make it again.") from None


def read_arrays(path: Path, names: Sequence[str], *, what: str, optional: Sequence[str] = ()) -> dict[str, Any]:
    """The arrays of these names; nothing of the file is run.

    Args:
        path: of the file.
        names: that must be there.
        what: needs them, for the message.
        optional: that may be there.

    Raises:
        InputError: the file cannot be read, or a name is missing.
    """
    with (
        reading(path, "cannot be read as arrays", ValueError, OSError, EOFError, BadZipFile, zlib.error),
        np.load(path, allow_pickle=False) as file,
    ):
        missing = [name for name in names if name not in file]
        if missing:
            raise InputError(f"{path}: has no {missing[0]!r}; {what} needs {', '.join(names)}.")
        return {name: file[name] for name in (*names, *optional) if name in file}


def whole_numbers(values: NDArray[Any], *, where: str, axes: int = 1) -> NDArray[np.int64]:
    """Numbers of any type as integers; of a mask (true or false), the places that are true.

    Args:
        values: that should be whole.
        where: for the message.
        axes: that they should have: 1 for a row, 2 for a table.

    Raises:
        InputError: a value is no whole number, or they have other axes; several masks in a table are no mask.
    """
    if values.ndim != axes:
        form = "one row" if axes == 1 else "a table"
        raise InputError(f"{where}: must be {form} of numbers, and has the shape {values.shape}.")
    if values.dtype.kind == "b":
        return np.flatnonzero(values)
    if values.dtype.kind == "f":
        wrong = ~np.isfinite(values) | (values != np.floor(values))
        if wrong.any():
            place = np.argwhere(wrong)[0].tolist()
            raise InputError(f"{where}: entry {place} is {values[tuple(place)]}; whole numbers are needed.")
    elif values.dtype.kind not in "iu":
        raise InputError(f"{where}: must be whole numbers, and is of the type {values.dtype}.")
    return values.astype(np.int64)
