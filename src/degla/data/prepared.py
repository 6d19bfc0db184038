"""Cache of data made once from large files, keyed by the files' content; entries are complete or absent.

If several processes need the same entry, the first makes it while the others wait and then find it.
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
from degla.files import (
    UNUSED_DAYS,
    cache_folder,
    cannot_write,
    is_unused,
    mark_used,
    remove_folder,
    whole_folder,
    write_json,
)
from degla.locks import in_turn
from degla.parse import PARQUET_ENDINGS, check_regular, in_one_line, open_file, read_json_object
from degla.progress import TaskProgress
from degla.records import Record
from degla.remote import address_of, fetch, file_state, show_as, size_of, state_of
from degla.version import installed_version

_LAYOUT: Final = 2
"""Version of the cache layout; entries of other versions are not found."""
_ABOUT, _SOURCES = "about.json", "sources.json"
_REMEDY = "Set the environment variable DEGLA_CACHE to another folder."
_SECONDS_TO_SETTLE = 2
"""A file changed less than this before it was read may change again within one tick of its timestamps."""
_PIECE = 1 << 22

log = logging.getLogger(__name__)


class SourceState(Record):
    """A file as it was read: its state, which reveals later changes, and its content.

    Attributes:
        state: size, times in nanoseconds and inode.
        sha256: of its content; for a folder, a pattern or an archive, of its files' names and states.
        lines: number of lines of a text file.
    """

    state: tuple[int, ...]
    sha256: str
    lines: int = 0


def read_source(path: Path) -> SourceState:
    """Return the state and digest of a file (see `content_of`), or of the states of a folder's or pattern's files.

    Raises:
        InputError: it cannot be read.
    """
    if is_folder(path) or is_pattern(path) or path.suffix.lower() == ".tar" or address_of(path):
        path = path if address_of(path) else path.absolute()
        files = (
            files_of(path, ".tar")
            or files_of(path, *PARQUET_ENDINGS)
            or sorted(each for each in path.rglob("*") if each.is_file())
        )
        states = [file_state(each) if address_of(each) else _state(check_regular(each)) for each in files]
        content = json.dumps([place_of(path), *zip(map(str, files), states, strict=True)])
        return SourceState(state=(), sha256=hashlib.sha256(content.encode()).hexdigest())
    return content_of(path)


def content_of(path: Path) -> SourceState:
    """Return the state and digest of a file on this machine; it is only read if it has changed since the last time.

    Raises:
        InputError: it cannot be read.
    """
    place, folder = place_of(path), cache_folder("prepared")
    try:
        sources = TypeAdapter(dict[str, SourceState]).validate_python(read_json_object(folder / _SOURCES))
    except (InputError, ValueError):
        sources = {}  # The file does not exist yet or has another layout.
    digest, lines, began = hashlib.sha256(), 0, time.time_ns()
    with open_file(path) as stream:
        state = _state(os.fstat(stream.fileno()))
        if place in sources and sources[place].state == state:
            return sources[place]
        try:
            while piece := stream.read(_PIECE):
                digest.update(piece)
                lines += piece.count(b"\n")
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    current = SourceState(state=state, sha256=digest.hexdigest(), lines=lines)
    if began - max(state[1:3]) > _SECONDS_TO_SETTLE * 10**9:
        # Two processes that write at once lose one entry; that file is simply read again.
        entries = {name: source.model_dump() for name, source in (sources | {place: current}).items()}
        with suppress(DeglaError):  # This only saves time; a read-only folder is fine.
            write_json(folder / _SOURCES, entries)
    return current


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def prepare(
    key: Mapping[str, object], make: Callable[[Path], Mapping[str, Any]], *, anew: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Return the cached folder for a key and the values that `make` returned, making it if it does not exist.

    Args:
        key: everything that the entry depends on, as plain values.
        make: writes into a new folder and returns plain values. If it fails or is killed, no entry is left.
        anew: make the entry again.

    Raises:
        InputError: the folder cannot be written; also whatever `make` raises.
        DeglaError: the disk is full.
    """
    content = json.dumps([_LAYOUT, installed_version("degla"), key], sort_keys=True, default=str)
    folder = cache_folder("prepared") / hashlib.sha256(content.encode()).hexdigest()[:32]
    about = folder / _ABOUT
    try:
        if anew or not about.is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with in_turn(folder):
                if anew or not about.is_file():
                    _delete_unused(folder.parent)
                    with whole_folder(folder) as partial:
                        (partial / _ABOUT).write_text(json.dumps(make(partial)), encoding="utf-8")
    except OSError as error:
        raise cannot_write(folder, error, remedy=_REMEDY) from None
    mark_used(about)
    return folder, read_json_object(about, remedy="Delete its folder; it will be made again.")


def open_batches(source: Path | bytes) -> tuple[Any, list[Any]]:
    """Open an Arrow file of the cache, memory-mapped, or its bytes; return its schema and record batches.

    Raises:
        DeglaError: it is damaged.
    """
    import pyarrow as arrow

    try:
        file = arrow.ipc.open_file(arrow.memory_map(str(source)) if isinstance(source, Path) else source)
        return file.schema, [file.get_batch(number) for number in range(file.num_record_batches)]
    except (arrow.ArrowException, OSError) as error:
        raise DeglaError(
            f"{source!s}: is damaged: {in_one_line(error)}. Delete its folder; it will be made again."
        ) from None


def fetched(path: Path) -> Path:
    """Return a local file: the path itself, or a cached copy of a remote file, fetched again if that has changed.

    Raises:
        InputError: the file does not exist or access is denied.
        DeglaError: it cannot be read, or the disk is full.
    """
    address = address_of(path)
    if address is None:
        return path

    def copy(folder: Path) -> dict[str, Any]:
        with TaskProgress(True).task(path.name, size_of(address)) as advance:
            fetch(address, folder / path.name, advance)
        return {}

    folder = prepare({"address": address, "state": state_of(address)}, copy)[0]
    show_as(folder, address.rpartition("/")[0])
    return folder / path.name


def _delete_unused(folder: Path) -> None:
    for entry in filter(Path.is_dir, folder.iterdir()):
        with suppress(FileNotFoundError):  # Another process deletes it, too.
            about = entry / _ABOUT  # Missing if the process that made the entry was killed.
            if is_unused(about if about.is_file() else entry):
                remove_folder(entry)
                log.info("%s was not used for %d days and was deleted.", entry, UNUSED_DAYS)
