"""Reads captions and negatives from files: any format of the shelf `formats` in, one kind of record out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from degla.data.columns import DEFAULT_COLUMNS, Columns, Placed
from degla.errors import InputError
from degla.parse import check_regular, shorten
from degla.records import CaptionRecord, NegativeRecord
from degla.shelf import Shelf

__all__ = ["FORMATS", "Columns", "read_captions", "read_negatives"]

FORMATS = Shelf("degla.data.formats", "file format")

_RECENT = 65_536  # names that are held in a set before they are sorted in


def read_captions(path: Path, *, format: str = "auto", columns: Columns = DEFAULT_COLUMNS) -> Iterator[CaptionRecord]:
    """Read the captions of a file, validated, in the file's order.

    Args:
        path: the file, or the folder of a Hugging Face dataset.
        format: a member of the shelf `formats`, or "auto" to tell it from the path and the first bytes.
        columns: which field holds what, for the formats that have named fields.

    Raises:
        InputError: at once where the file is missing or of no known format; while reading where a record is
            wrong, an id occurs twice, or the file holds no caption.
    """
    member = _choose(path, format=format, ability="captions")
    return _unique(lambda: member.captions(path, columns), path=path)


def read_negatives(path: Path, *, format: str = "auto") -> Iterator[NegativeRecord]:
    """Read the negatives of a file, validated, in the file's order; refused ones too.

    Args:
        path: the file.
        format: a member of the shelf `formats` that holds negatives, or "auto".

    Raises:
        InputError: at once where the file is missing or of no known format; while reading where a record is
            wrong or the file holds no negative.
    """
    member = _choose(path, format=format, ability="negatives")
    return _some(member.negatives(path), path=path)


def _choose(path: Path, *, format: str, ability: str) -> ModuleType:
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # a name that no file system takes
        raise InputError(f"{shorten(path)}: cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not there:
        raise InputError(f"{path}: there is no such file or folder; {ability} are read from it.")
    if not path.is_dir():
        check_regular(path, remedy=f"Write the {ability} to a file first.")
    if format == "auto":
        members = [FORMATS.load(name) for name in FORMATS.names()]
        able = [member for member in members if hasattr(member, ability)]
        for member in able:
            if member.claims(path):
                return member
        if path.is_file() and path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty.")
        names = ", ".join(member.__name__.rpartition(".")[2] for member in able)
        raise InputError(
            f"{path}: cannot tell how its {ability} are written. Name the format (--format, in training "
            f"--data.format), one of: {names}."
        )
    member = FORMATS.load(format)
    if not hasattr(member, ability):
        names = ", ".join(name for name in FORMATS.names() if hasattr(FORMATS.load(name), ability))
        raise InputError(f"{path}: format {format!r} does not hold {ability}. Formats that do: {names}.")
    if path.is_dir() and not member.claims(path):
        raise InputError(f"{path}: is a folder; format {format!r} is read from a file.")
    return member


def _unique(captions: Callable[[], Iterator[Placed]], *, path: Path) -> Iterator[CaptionRecord]:
    seen = _Seen()
    empty = True
    for where, record in captions():
        empty = False
        if seen.add(record.id):
            earlier = next(place for place, other in captions() if other.id == record.id or place == where)
            if earlier != where:
                raise InputError(
                    f"{where}: caption id {record.id!r} was used before, at {earlier}. Negatives are joined "
                    "by it, so give every caption its own id."
                )
        yield record
    if empty:
        raise InputError(f"{path}: the file holds no caption.")


class _Seen:
    """Names seen so far, as hashes: 8 bytes each, so that millions of captions can be streamed."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def add(self, name: str) -> bool:
        """Note a name; whether it was there before, as far as its hash tells."""
        number = hash(name)
        known = number in self._recent
        if not known and len(self._older):
            place = int(self._older.searchsorted(number))
            known = place < len(self._older) and int(self._older[place]) == number
        self._recent.add(number)
        if len(self._recent) == _RECENT:
            joined = [self._older, np.fromiter(self._recent, dtype=np.int64, count=_RECENT)]
            self._older, self._recent = np.sort(np.concatenate(joined)), set()
        return known


def _some(negatives: Iterator[NegativeRecord], *, path: Path) -> Iterator[NegativeRecord]:
    empty = True
    for record in negatives:
        empty = False
        yield record
    if empty:
        raise InputError(f"{path}: the file holds no negative.")
