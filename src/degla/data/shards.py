"""Training from shard to shard: the shard of each row, and copies of the remote shards that are being read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

import numpy as np
import pyarrow as arrow

from degla.data.containers import containers_of, copy_images, find_cell, parsed_cell, parsed_place
from degla.data.decoding import Subject, is_file, read_file, refused
from degla.data.images import ReadBytes, read_bytes
from degla.data.plan import SHARDS_AT_A_TIME
from degla.data.table import PairTable, RowIndex, numbered
from degla.errors import DeglaError, InputError
from degla.files import PARTIAL, cache_folder, cannot_write, whole_file
from degla.locks import in_turn
from degla.parse import in_one_line
from degla.remote import RemoteFile, address_of, pieces, state_of, unchanged

KEPT: Final = 3 * SHARDS_AT_A_TIME
"""Most copies: those of the group being read, of the next and of the one before."""
_COPY: Final = ".copy"
_REMEDY: Final = "Set the environment variable DEGLA_CACHE to another folder."
_SECONDS_TO_GIVE_UP: Final = 3600
"""A copy that has not grown for this long was left by a process that was killed."""
_SECONDS_TO_END: Final = 5.0
"""Longest wait for a request that is under way when nothing more is needed."""
_NEVER: Final = threading.Event()

log = logging.getLogger(__name__)


def shards_of(rows: PairTable, *, flag: str) -> RowIndex:
    """Return a number for each row, equal if and only if the images of two rows are in the same tar or Parquet file.

    Args:
        rows: the training rows.
        flag: the flag that asks for it, with its value, for messages.

    Raises:
        InputError: an image is a file of its own.
    """
    shards = arrow.chunked_array([containers_of(chunk) for chunk in rows.chunks("image")])
    if shards.null_count:
        row = int(np.flatnonzero(shards.is_null().to_numpy())[0])
        raise InputError(
            f"{flag}: the image of caption {rows.at('id', row)!r} ({rows.at('image', row)}) is not in a tar or Parquet "
            "file. Omit the flag, or write the images as shards with degla pack."
        )
    return numbered(shards.chunks)


def reader_of(order: Literal["rows", "shards"], *, few: bool = False) -> ReadBytes:
    """Return how the bytes of images are read in this order of the rows; if `few`, tars are not copied for them."""
    if order == "rows":
        return read_bytes
    return _read_few if few else read_from_copy


def _read_few(place: str, subject: Subject) -> bytes:
    return (read_bytes if parsed_cell(place) is None else read_from_copy)(place, subject)


def read_from_copy(place: str, subject: Subject) -> bytes:
    """As `images.read_bytes`, but an image in a remote tar or Parquet file is read from a copy on this machine.

    The copy is that of the whole tar, or of the column of images.

    The first process that needs a shard copies it, while the others wait. When a shard is copied, the copies that were
    not used for the longest time are deleted, so that `KEPT` remain; one that is needed again is copied again.

    Raises:
        ImageError: as `images.read_bytes`.
        RemoteError, AccessError: as `decoding.read_file`.
        InputError: the shard no longer exists, or the cache folder cannot be written.
        DeglaError: the disk is full.
    """
    shard = _Shard.of(place)
    if shard is None:
        return read_bytes(place, subject)
    with refused(subject):
        copy = shard.place_of_copy()
    while True:
        _copy(shard, copy)
        try:
            if (cell := parsed_cell(place)) is None:
                return read_file(copy, subject, **parsed_place(place)[1])
            with refused(subject):
                return bytes(find_cell(*cell, copy=copy).as_py())
        except DeglaError:
            if is_file(copy):  # Otherwise another process has just deleted it.
                raise


@contextmanager
def copied_ahead(
    uses: Iterable[tuple[int, int]], places: Sequence[str], *, most: int
) -> Iterator[tuple[Callable[[], None], Callable[[int], None]]]:
    """Copy shards in a thread before they are needed, as long as the block lasts.

    A shard that cannot be copied is left to `read_from_copy`, which raises the error if it is really needed.

    Args:
        uses: (number of the batch, shard) in the order in which shards are needed.
        places: reference of an image in each shard; shards on this machine are not copied.
        most: number of shards that may be copied before the batch that needs the first of them is reached.

    Yields:
        A function that starts copying, called when no more workers will be forked, since they would wait for ever for
        the locks that the thread holds; and one that is called with the number of each batch when it is reached.
    """
    reached, change, ended = -1, threading.Condition(), threading.Event()

    def advance(number: int) -> None:
        nonlocal reached
        with change:
            reached = number
            change.notify()

    def start() -> None:
        if thread.ident is None:
            thread.start()

    def work() -> None:
        begun: deque[int] = deque(maxlen=most)
        copies: deque[Path] = deque(maxlen=most)
        for number, shard in uses:
            with change:
                change.wait_for(lambda: ended.is_set() or len(begun) < most or reached >= begun[0])
            if ended.is_set():
                return
            begun.append(number)
            try:
                if (remote := _Shard.of(places[shard])) is not None:
                    for copy in copies:  # They are not to be deleted before they are used for the first time.
                        _note_use(copy)
                    copies.append(remote.place_of_copy())
                    _copy(remote, copies[-1], ended)
            except _EndedError:
                return
            except DeglaError as error:
                log.debug("not copied in advance: %s", in_one_line(error))

    if not any(address_of(place) for place in places):
        yield lambda: None, lambda number: None
        return
    thread = threading.Thread(target=work, name="degla-shards", daemon=True)
    try:
        yield start, advance
    finally:
        ended.set()
        if thread.ident is not None:
            advance(reached)
            thread.join(_SECONDS_TO_END)


class _EndedError(Exception):
    """A copy is no longer needed."""


@dataclass(frozen=True)
class _Shard:
    """A remote tar, or a column of images in a remote Parquet file."""

    address: str
    column: str = ""

    @staticmethod
    def of(place: str) -> _Shard | None:
        """Return the shard of an image; None if it is not in one, or not in a remote one."""
        if (cell := parsed_cell(place)) is not None:
            address = address_of(cell[0])
            return None if address is None else _Shard(address, cell[1])
        path, part = parsed_place(place)
        address = address_of(path)
        return None if address is None or not part else _Shard(address)

    def place_of_copy(self) -> Path:
        key = json.dumps([self.address, self.column, state_of(self.address)])
        return cache_folder("shards") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}{_COPY}"

    def write(self, out: IO[bytes], ended: threading.Event) -> None:
        def go_on() -> None:
            if ended.is_set():
                raise _EndedError

        if self.column:
            with unchanged(self.address):
                source = RemoteFile(self.address)
                copy_images(Path(self.address), self.column, out, source=source, before_each=go_on)
            return
        for piece in pieces(self.address):
            go_on()
            out.write(piece)


def _copy(shard: _Shard, copy: Path, ended: threading.Event = _NEVER) -> None:
    """Copy a shard if it is not there, and note that it is in use.

    Raises:
        _EndedError: `ended` was set.
    """
    if not is_file(copy):
        _fetch(shard, copy, ended)
    _note_use(copy)


def _note_use(copy: Path) -> None:
    with suppress(OSError):  # Another process deletes it.
        os.utime(copy)


def _fetch(shard: _Shard, copy: Path, ended: threading.Event) -> None:
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        # At most 256 locks, which stay. Two shards that share one are only copied one after the other.
        # Threads and workers of one command often wait for each other here.
        with in_turn(copy.with_name(copy.name[:2]), announced=False):
            if not copy.exists():
                _delete_oldest(copy.parent, left=KEPT - 1)
                with whole_file(copy, binary=True, remedy=_REMEDY) as stream:
                    shard.write(stream, ended)
                _delete_oldest(copy.parent, left=KEPT)  # Several may have been copied at once.
    except OSError as error:
        raise cannot_write(copy, error, remedy=_REMEDY) from None


def _delete_oldest(folder: Path, *, left: int) -> None:
    """Delete all copies but the `left` used last, and what killed processes left."""
    used: dict[Path, float] = {}
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # Another process deletes it, too.
            used[file] = file.stat().st_mtime
    copies = sorted((file for file in used if file.suffix == _COPY), key=used.__getitem__, reverse=True)
    given_up = time.time() - _SECONDS_TO_GIVE_UP
    unfinished = [file for file, when in used.items() if file.suffix == PARTIAL and when < given_up]
    for file in (*copies[left:], *unfinished):
        with suppress(OSError):  # On Windows, a file that is being read cannot be deleted.
            file.unlink()
