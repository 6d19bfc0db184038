"""What is made from large files once and kept: found again by the content of the files, whole or not there.

Several processes that need the same thing take turns: the first makes it, the others find it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from degla.data.places import files_of, is_folder, is_pattern, place_of
from degla.errors import DeglaError, InputError
from degla.files import cache_folder, cannot_write, remove_folder, whole_folder, write_json
from degla.parse import PARQUET_ENDINGS, check_regular, in_one_line, open_file, read_json_object
from degla.progress import TaskProgress
from degla.records import Record
from degla.remote import address_of, fetch, file_state, size_of, state_of
from degla.version import installed_version

_LAYOUT: Final = 1
"""Number of the form of what is kept; what has another one is not found."""
_ABOUT, _SOURCES = "about.json", "sources.json"
_REMEDY = "Name another folder in the environment variable DEGLA_CACHE."
_SECONDS_TO_SETTLE = 2
"""A file that was changed less than this before it was read may be changed again within one tick of its clock."""
_PIECE = 1 << 22
_DAYS = 90
"""Days after which what nobody has used is deleted when something new is made."""

_log = logging.getLogger(__name__)


class SourceState(Record):
    """A file as it was read: what tells whether it has changed since, and what is in it.

    Attributes:
        state: size, times in nanoseconds and inode.
        sha256: of its content; of a folder, a pattern or an archive of its files' names and states.
        lines: of a file of text.
    """

    state: tuple[int, ...]
    sha256: str
    lines: int = 0


def read_source(path: Path) -> SourceState:
    """What a file holds; one that has not changed since it was read last is not read again.

    Raises:
        InputError: it cannot be read.
    """
    place, folder = place_of(path), cache_folder("prepared")
    if is_folder(path) or is_pattern(path) or path.suffix.lower() == ".tar" or address_of(path):
        files = (
            files_of(path, ".tar")
            or files_of(path, *PARQUET_ENDINGS)
            or sorted(each for each in path.rglob("*") if each.is_file())
        )
        told = json.dumps([place, *((str(each), _status(each)) for each in files)])
        return SourceState(state=(), sha256=hashlib.sha256(told.encode()).hexdigest())
    known = _known(folder / _SOURCES)
    digest, lines, began = hashlib.sha256(), 0, time.time_ns()
    with open_file(path) as stream:
        state = _state(os.fstat(stream.fileno()))
        if place in known and known[place].state == state:
            return known[place]
        try:
            while piece := stream.read(_PIECE):
                digest.update(piece)
                lines += piece.count(b"\n")
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    found = SourceState(state=state, sha256=digest.hexdigest(), lines=lines)
    if began - max(state[1:3]) > _SECONDS_TO_SETTLE * 10**9:
        # Two processes that write at once lose one entry, which is read again then.
        entries = {name: source.model_dump() for name, source in (known | {place: found}).items()}
        with suppress(DeglaError):  # It only saves time; a folder that may only be read will do.
            write_json(folder / _SOURCES, entries)
    return found


def _status(path: Path) -> tuple[int, ...]:
    return file_state(path) if address_of(path) else _state(check_regular(path))


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _known(path: Path) -> dict[str, SourceState]:
    try:
        return TypeAdapter(dict[str, SourceState]).validate_python(read_json_object(path))
    except (InputError, ValueError):
        return {}  # There is none yet, or it is of another form.


def prepare(
    key: Mapping[str, object], make: Callable[[Path], Mapping[str, Any]], *, anew: bool = False
) -> tuple[Path, dict[str, Any]]:
    """The folder of what a key stands for and what `make` said of it, made where it is not there.

    Args:
        key: all that it depends on, as plain values.
        make: writes into a new folder and returns plain values. An error of it leaves nothing, a kill nothing that
            is found again.
        anew: make it again.

    Raises:
        InputError: the folder cannot be written; whatever `make` raises.
        DeglaError: the disk is full.
    """
    from filelock import FileLock

    told = json.dumps([_LAYOUT, installed_version("degla"), key], sort_keys=True, default=str)
    folder = cache_folder("prepared") / hashlib.sha256(told.encode()).hexdigest()[:32]
    about = folder / _ABOUT
    try:
        if anew or not about.is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(folder.name + ".lock")):
                if anew or not about.is_file():
                    _delete_unused(folder.parent)
                    with whole_folder(folder) as partial:
                        (partial / _ABOUT).write_text(json.dumps(make(partial)), encoding="utf-8")
    except OSError as error:
        raise cannot_write(folder, error, remedy=_REMEDY) from None
    with suppress(OSError):  # A folder that may only be read.
        os.utime(about)
    return folder, read_json_object(about, remedy="Delete its folder: it is made again.")


def open_batches(source: Path | bytes) -> tuple[Any, list[Any]]:
    """Schema and record batches of an Arrow file that was made here and is mapped, or of its bytes.

    Raises:
        DeglaError: it is damaged.
    """
    import pyarrow as arrow

    try:
        file = arrow.ipc.open_file(arrow.memory_map(str(source)) if isinstance(source, Path) else source)
        return file.schema, [file.get_batch(number) for number in range(file.num_record_batches)]
    except (arrow.ArrowException, OSError) as error:
        raise DeglaError(
            f"{source!s}: is damaged: {in_one_line(error)}. Delete its folder: it is made again."
        ) from None


def fetched(path: Path) -> Path:
    """A file here: itself, or a copy of what lies at its address, made where that has changed.

    Raises:
        InputError: there is no such file, or it may not be read.
        DeglaError: it cannot be read, or the disk is full.
    """
    address = address_of(path)
    if address is None:
        return path

    def copy(folder: Path) -> dict[str, Any]:
        with TaskProgress(True).task(path.name, size_of(address)) as advance:
            fetch(address, folder / path.name, advance)
        return {}

    return prepare({"address": address, "state": state_of(address)}, copy)[0] / path.name


def _delete_unused(folder: Path) -> None:
    for about in folder.glob(f"*/{_ABOUT}"):
        with suppress(FileNotFoundError):  # Another process deletes it, too.
            if time.time() - about.stat().st_mtime > _DAYS * 24 * 3600:
                remove_folder(about.parent)
                _log.info("%s was not used for %d days and is deleted.", about.parent, _DAYS)
