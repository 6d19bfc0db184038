"""Embeddings on disk: one SQLite file a model, shared by all benchmarks, runs and processes.

SQLite's transactions make torn writes and two processes at once its own concern; what it does not notice, a changed
byte inside a row, a checksum a row does. A cache only ever saves time: whatever is wrong with it is told once, and the
evaluation goes on as if it were not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from types import TracebackType

import numpy as np

from degla.errors import InputError
from degla.evaluation.scoring import EmbeddingRows

logger = logging.getLogger(__name__)

FORMAT = 1
"""Number of the files' form; files of another one are left alone."""
_ROWS_A_WRITE = 512
_SECONDS_A_WRITE = 5.0
_SECONDS_TO_WAIT = 60.0
_NUMBERS = np.dtype("<f4")


def default_cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where embeddings are kept: DEGLA_CACHE, else `degla/embeddings` in XDG_CACHE_HOME or `~/.cache`."""
    if environment.get("DEGLA_CACHE"):
        return Path(environment["DEGLA_CACHE"]).expanduser()
    home = environment.get("XDG_CACHE_HOME", "")
    # The XDG rules say to pass over a relative path.
    return (Path(home) if Path(home).is_absolute() else Path("~/.cache").expanduser()) / "degla" / "embeddings"


def open_cache(folder: Path) -> DiskCache:
    """Open a cache that the user asked for by name.

    Raises:
        InputError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: the cache's folder cannot be made: {error.strerror}.") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: the cache's folder cannot be written. Name another one, or give --no-cache.")
    return DiskCache(folder)


class DiskCache(MutableMapping[str, EmbeddingRows]):
    """Float32 rows `[D]` by key; what stands before a key's first colon names its file.

    Rows that are set are written together, at the latest after five seconds of further ones, on `flush` and on leaving
    the `with` block. Rows that are not finite are kept for the run but not written. One thread uses it at a time;
    any number of processes may share a folder.

    Args:
        folder: made when the first row is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read = 0
        """Rows that were found on the disk."""
        self.written = 0
        """Rows that were put there."""
        self._files: dict[str, _File] = {}

    def __getitem__(self, key: str) -> EmbeddingRows:
        row = self._file(key).get(key)
        if row is None:
            raise KeyError(key)
        self.read += 1
        return row

    def __setitem__(self, key: str, value: EmbeddingRows) -> None:
        file = self._file(key)
        file.waiting[key] = np.array(value, dtype=np.float32)
        if len(file.waiting) >= _ROWS_A_WRITE or time.monotonic() - file.last_write > _SECONDS_A_WRITE:
            self.written += file.write()

    def __delitem__(self, key: str) -> None:
        if not self._file(key).delete(key):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._file(key).get(key) is not None

    def __iter__(self) -> Iterator[str]:
        for file in self._all_files():
            yield from file.keys()

    def __len__(self) -> int:
        return sum(len(file.keys()) for file in self._all_files())

    def __enter__(self) -> DiskCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def flush(self) -> None:
        """Write all rows that wait."""
        for file in self._files.values():
            self.written += file.write()

    def close(self) -> None:
        """Write all rows that wait and let go of the files; a later use opens them again."""
        self.flush()
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, key: str) -> _File:
        name, _, content = key.partition(":")
        if not content or not name.isalnum():
            raise ValueError(f"{key!r}: keys are IDENTITY:KIND:CONTENT, the identity of letters and digits")
        if name not in self._files:
            self._files[name] = _File(self.folder / f"{name}.sqlite")
        return self._files[name]

    def _all_files(self) -> list[_File]:
        for path in sorted(self.folder.glob("*.sqlite")) if self.folder.is_dir() else ():
            self._file(f"{path.stem}:all")
        return list(self._files.values())


class _File:
    """One model's rows. After the first thing that goes wrong it is not used again, and rows stay in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: dict[str, EmbeddingRows] = {}
        self.last_write = time.monotonic()
        self._connection: sqlite3.Connection | None = None
        self._given_up = False
        self._told_of_rows = False

    def get(self, key: str) -> EmbeddingRows | None:
        if key in self.waiting:
            return self.waiting[key]
        with self._safely(), self._open(create=False) as connection:
            if connection is not None:
                found = connection.execute("SELECT row, checksum FROM rows WHERE key = ?", (key,)).fetchone()
                return None if found is None else self._checked(key, *found)
        return None

    def keys(self) -> list[str]:
        stored: list[str] = []
        with self._safely(), self._open(create=False) as connection:
            if connection is not None:
                stored = [key for (key,) in connection.execute("SELECT key FROM rows")]
        return list(dict.fromkeys([*stored, *self.waiting]))

    def write(self) -> int:
        """Put the waiting rows on the disk in one transaction; returns how many."""
        self.last_write = time.monotonic()
        rows = [
            (key, data, _checksum(key, data))
            for key, row in self.waiting.items()
            if np.isfinite(row).all()
            for data in (row.astype(_NUMBERS).tobytes(),)
        ]
        if not rows or self._given_up:
            return 0
        written = 0
        with self._safely(), self._open(create=True) as connection:
            assert connection is not None
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")
            self.waiting = {key: row for key, row in self.waiting.items() if not np.isfinite(row).all()}
            written = len(rows)
        return written

    def delete(self, key: str) -> bool:
        there = self.waiting.pop(key, None) is not None
        with self._safely(), self._open(create=False) as connection:
            if connection is not None:
                there = connection.execute("DELETE FROM rows WHERE key = ?", (key,)).rowcount > 0 or there
        return there

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _open(self, *, create: bool) -> Iterator[sqlite3.Connection | None]:
        if self._given_up or (self._connection is None and not create and not self.path.exists()):
            yield None
            return
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=_SECONDS_TO_WAIT, isolation_level=None)
            self._connection = connection
            if _version(connection) != FORMAT:
                # A row of 512 numbers takes over half of SQLite's usual page, which would waste the other half.
                connection.execute("PRAGMA page_size = 16384")
                # Another process may be making the same file: who comes second finds it made.
                connection.execute("BEGIN IMMEDIATE")
                _make_table(connection)
                connection.execute("COMMIT")
        yield self._connection

    @contextlib.contextmanager
    def _safely(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self._given_up = True
            self.close()
            logger.warning(
                "%s: the cache of embeddings cannot be used: %s. Everything is embedded anew; delete the file if this "
                "comes again.",
                self.path,
                error,
            )

    def _checked(self, key: str, data: object, checksum: object) -> EmbeddingRows | None:
        if isinstance(data, bytes) and checksum == _checksum(key, data) and len(data) % _NUMBERS.itemsize == 0:
            return np.frombuffer(data, dtype=_NUMBERS).astype(np.float32)
        if not self._told_of_rows:
            self._told_of_rows = True
            logger.warning(
                "%s: rows of the cache of embeddings are damaged; they are embedded and written anew.", self.path
            )
        return None


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _make_table(connection: sqlite3.Connection) -> None:
    version = _version(connection)
    if version == FORMAT:
        return
    if version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise sqlite3.DatabaseError(f"written in form {version}, this version of degla reads {FORMAT}")
    connection.execute("CREATE TABLE rows (key TEXT PRIMARY KEY, row BLOB NOT NULL, checksum BLOB NOT NULL)")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _checksum(key: str, data: bytes) -> bytes:
    return hashlib.blake2b(key.encode() + b"\0" + data, digest_size=16).digest()
