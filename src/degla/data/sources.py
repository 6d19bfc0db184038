"""Read captions and negatives from files: any format of the shelf `formats` in, one kind of record out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from degla.data.columns import DEFAULT_COLUMNS, Columns, Placed
from degla.data.formats.json import beginning
from degla.data.places import check_unpacked, is_folder, is_pattern
from degla.data.prepared import fetched
from degla.errors import InputError
from degla.parse import PARQUET_ENDINGS, check_regular, read_json, shorten
from degla.records import CaptionRecord, NegativeRecord
from degla.remote import address_of, display_path, list_files
from degla.shelf import Shelf

VERSION = 3
"""Changes when the same file gives other records, which invalidates cached rows."""

FORMATS = Shelf("degla.data.formats", "file format")

_PICKLED = (".npy", ".npz", ".pt", ".pth", ".pkl", ".pickle")
_RECENT = 65_536  # names held in a set before they are merged into the sorted array


def read_captions(path: Path, *, format: str = "auto", columns: Columns = DEFAULT_COLUMNS) -> Iterator[CaptionRecord]:
    """Read and validate the captions of a file, in the file's order.

    Args:
        path: a file, a folder, or a pattern of tars or Parquet files.
        format: a member of the shelf `formats`, or "auto" to detect it from the path and the first bytes.
        columns: which field holds what, for formats with named fields.

    Raises:
        InputError: immediately if the file is missing or of unknown format; while reading if a record is invalid, an
            id occurs twice, or the file has no captions.
    """
    member, source = _choose(path, format=format, ability="captions")
    return _unique(lambda: member.captions(source, columns), path=path)


def read_negatives(path: Path) -> Iterator[NegativeRecord]:
    """Read and validate the negatives of a file, in the file's order, including rejected ones.

    Raises:
        InputError: immediately if the file is missing or of unknown format; while reading if a record is invalid
            or the file has no negatives.
    """
    member, source = _choose(path, format="auto", ability="negatives")
    return _some(member.negatives(source), path=path)


def _choose(path: Path, *, format: str, ability: str) -> tuple[ModuleType, Path]:
    """Return the format of a path and what to read: the path itself, or a cached copy of a remote file."""
    remote = address_of(path) is not None
    if remote and path.parts[0] in ("http:", "https:") and "?" in str(path):
        raise InputError(
            f"{display_path(path)}: has a query (?...). Give the address without it, or download the file first."
        )
    in_place = (".tar", *PARQUET_ENDINGS) if ability == "captions" and format in ("auto", "parquet") else (".tar",)
    if remote and not (is_folder(path) or is_pattern(path) or path.suffix.lower() in in_place):
        # Image paths in the file are relative to the address.
        copy = fetched(path)
        member, _ = _choose(copy, format=format, ability=ability)
        return member, path if hasattr(member, "PATTERNS") and ability == "captions" else copy
    try:
        there = remote or path.exists() or (ability == "captions" and is_pattern(path))
    except (OSError, ValueError) as error:  # a name that no file system allows
        raise InputError(f"{shorten(path)}: cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not there:
        raise InputError(f"{display_path(path)}: no such file or folder. {ability.capitalize()} are read from it.")
    if path.exists() and not path.is_dir():
        check_regular(path, remedy=f"Write the {ability} to a file first.")
        check_unpacked(path)
    if path.suffix.lower() in _PICKLED:
        raise InputError(
            f"{display_path(path)}: can hold a pickle, which runs code when it is opened, so it is not read. Convert "
            "it, where you trust it, to JSON, which is read as captions and as negatives: "
            '[{"image_path": "1.jpg", "true_caption": "A dog.", "false_caption": ["A cat."]}, ...]'
        )
    if format == "auto":
        members = [FORMATS.load(name) for name in FORMATS.names()]
        able = [member for member in members if hasattr(member, ability)]
        for member in able:
            if _takes(member, path):
                return _of_several(member, path), path
        if (address := address_of(path)) is not None and not list_files(address):
            raise InputError(f"{address}: no such file or folder, or nothing in it. Check its name.")
        if path.is_file() and path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty.")
        if path.is_file() and path.suffix.lower() == ".json" and not beginning(path).startswith((b"[", b"{")):
            read_json(path, remedy="Download or generate it again.")  # Not JSON: that is why.
        names = ", ".join(member.__name__.rpartition(".")[2] for member in able)
        remedy = f"Set the format (--format, in training --data.format) to one of: {names}"
        if ability == "negatives":  # No flag sets their format.
            remedy = (
                "Rename it to end in .jsonl, .parquet, .csv or .tsv; files of DeGLA, Structure-CLIP, CS-CLIP in .json"
            )
        raise InputError(f"{display_path(path)}: cannot detect the format of its {ability}. {remedy}.")
    member = FORMATS.load(format)
    if not hasattr(member, ability):
        names = ", ".join(name for name in FORMATS.names() if hasattr(FORMATS.load(name), ability))
        raise InputError(f"{path}: format {format!r} does not hold {ability}. Formats that do: {names}.")
    if is_folder(path) and not _takes(member, path):
        raise InputError(f"{path}: is a folder, but format {format!r} is read from a file.")
    return _of_several(member, path), path


def _takes(member: ModuleType, path: Path) -> bool:
    """Whether a format matches a path, by its suffix or by its content."""
    ends = path.suffix.lower() in member.ENDINGS
    return bool(member.claims(path)) if hasattr(member, "claims") and (ends or is_folder(path)) else ends


def _of_several(member: ModuleType, path: Path) -> ModuleType:
    """Return the format, which must support patterns if the path is one."""
    if is_pattern(path) and not hasattr(member, "PATTERNS"):
        raise InputError(
            f"{path}: no such file, and format {member.__name__.rpartition('.')[2]!r} does not support patterns. "
            "Combine the files into one, or give tar archives or Parquet files."
        )
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
                    f"{where}: caption id {record.id!r} was already used at {earlier}. Negatives are joined by id, "
                    "so give every caption its own."
                )
        yield record
    if empty:
        raise InputError(f"{path}: the file has no captions.")


class _Seen:
    """Names seen so far, as hashes: 8 bytes each, so that millions of captions can be streamed."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def add(self, name: str) -> bool:
        """Add a name and return whether it was already seen, judged by its hash."""
        number = hash(name)
        is_known = number in self._recent
        if not is_known and len(self._older):
            place = int(self._older.searchsorted(number))
            is_known = place < len(self._older) and int(self._older[place]) == number
        self._recent.add(number)
        if len(self._recent) == _RECENT:
            recent = np.sort(np.fromiter(self._recent, dtype=np.int64, count=_RECENT))
            # Sorting all of them anew would take ten times as long.
            self._older, self._recent = np.insert(self._older, self._older.searchsorted(recent), recent), set()
        return is_known


def _some(negatives: Iterator[NegativeRecord], *, path: Path) -> Iterator[NegativeRecord]:
    empty = True
    for record in negatives:
        empty = False
        yield record
    if empty:
        raise InputError(f"{path}: the file has no negatives.")
