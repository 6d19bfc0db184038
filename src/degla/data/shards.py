"""Training from shard to shard: the shard of each row, and copies of the remote shards that are being read."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as arrow

from degla.data.containers import containers_of, parsed_place
from degla.data.decoding import ImageError, Subject, is_file, read_file, refused
from degla.data.images import read_bytes
from degla.data.plan import SHARDS_AT_A_TIME
from degla.data.table import PairTable, RowIndex, numbered
from degla.errors import InputError
from degla.files import PARTIAL, cache_folder, cannot_write, whole_file
from degla.remote import address_of, pieces, state_of

KEPT: Final = 3 * SHARDS_AT_A_TIME
"""Most copies: those of the group being read, of the next and of the one before."""
_COPY: Final = ".copy"
_REMEDY: Final = "Set the environment variable DEGLA_CACHE to another folder."
_SECONDS_TO_GIVE_UP: Final = 3600
"""A copy that has not grown for this long was left by a process that was killed."""


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


def read_from_copy(place: str, subject: Subject) -> bytes:
    """As `images.read_bytes`, but an image in a remote tar is read from a copy of the whole tar on this machine.

    The first process that needs a shard copies it, while the others wait. When a shard is copied, the copies that were
    not used for the longest time are deleted, so that `KEPT` remain; one that is needed again is copied again.

    Raises:
        ImageError: as `images.read_bytes`.
        RemoteError, AccessError: as `decoding.read_file`.
        InputError: the shard no longer exists, or the cache folder cannot be written.
        DeglaError: the disk is full.
    """
    path, part = parsed_place(place)
    address = address_of(path)
    if address is None or not part:
        return read_bytes(place, subject)
    with refused(subject):
        state = state_of(address)
    name = hashlib.sha256(f"{address}\n{state}".encode()).hexdigest()[:32]
    copy = cache_folder("shards") / f"{name}{_COPY}"
    while True:
        if not is_file(copy):
            _fetch(address, copy)
        with suppress(OSError):
            os.utime(copy)
        try:
            return read_file(copy, subject, **part)
        except ImageError:
            if is_file(copy):  # Otherwise another process has just deleted it.
                raise


def _fetch(address: str, copy: Path) -> None:
    from filelock import FileLock

    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        # At most 256 locks, which stay. Two shards that share one are only copied one after the other.
        with FileLock(copy.with_name(f"{copy.name[:2]}.lock")):
            if not copy.exists():
                _delete_oldest(copy.parent)
                with whole_file(copy, binary=True, remedy=_REMEDY) as stream:
                    for piece in pieces(address):
                        stream.write(piece)
    except OSError as error:
        raise cannot_write(copy, error, remedy=_REMEDY) from None


def _delete_oldest(folder: Path) -> None:
    """Delete all copies but those used last, so that there is room for one more, and what killed processes left."""
    used: dict[Path, float] = {}
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # Another process deletes it, too.
            used[file] = file.stat().st_mtime
    copies = sorted((file for file in used if file.suffix == _COPY), key=used.__getitem__, reverse=True)
    given_up = time.time() - _SECONDS_TO_GIVE_UP
    unfinished = [file for file, when in used.items() if file.suffix == PARTIAL and when < given_up]
    for file in (*copies[KEPT - 1 :], *unfinished):
        with suppress(OSError):  # On Windows, a file that is being read cannot be deleted.
            file.unlink()
