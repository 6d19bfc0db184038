"""Cache embeddings of earlier runs, keyed by model and content, in one SQLite file per model.

Embeddings are identified by everything that affects the model's output and by the content of the image or text, never
by a name.

SQLite's transactions handle interrupted writes and concurrent processes; a checksum per row detects changed bytes. A
cache only saves time: any problem is reported once, and the evaluation continues without the cache.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from degla.data import decoding
from degla.errors import InputError
from degla.evaluation.scoring import EmbeddingRows
from degla.files import UNUSED_DAYS, cache_folder, is_unused, mark_used
from degla.records import ImageReading
from degla.version import installed_version

if TYPE_CHECKING:
    from degla.evaluation.models import EmbeddingModel


Value = TypeVar("Value")
log = logging.getLogger(__name__)
FORMAT = 1
"""Version of the file format; files of other versions are left alone."""
_ROWS_A_WRITE = 512
_SECONDS_A_WRITE = 5.0
_SECONDS_TO_WAIT = 60.0
_NUMBERS = np.dtype("<f4")
_LIBRARIES = ("torch", "torchvision", "pillow", "open_clip_torch", "transformers", "onnxruntime")


def identity_of(
    encoder: EmbeddingModel,
    fingerprint: str | None = None,
    *,
    image_reading: ImageReading = "upright",
    texts: bool = True,
) -> str:
    """Return the sha256 of everything that an embedding depends on besides its input.

    That is the weights, the configuration, the precision, the kind of device, the image reading, the preprocessing,
    and the versions of the libraries that decode, transform and multiply: another version may round differently, and
    scores must not depend on the age of a cache.

    Args:
        encoder: the model.
        fingerprint: the encoder's own, if already known (computing it reads all weights).
        image_reading: see `data.decoding.decode`.
        texts: False leaves out the text tower's configuration.
    """
    from degla.model.linear_kernel import NAME, is_faster

    device = getattr(encoder.device, "type", None) or str(encoder.device).partition(":")[0]
    parts = {
        "fingerprint": encoder.fingerprint if fingerprint is None else fingerprint,
        "activation": encoder.activation,
        "network": _network_of(encoder, texts=texts),
        "precision": encoder.precision,
        "device": device,
        "reading": f"{image_reading} {decoding.VERSION}",
        "preprocessing": preprocessing_digest(encoder.transform),
        "libraries": {name: installed_version(name) for name in _LIBRARIES},
        "linear": NAME if device == "cpu" and is_faster() else "",
    }
    if device == "cuda":  # Those of earlier versions were computed in TF32.
        parts["convolutions"] = "float32"
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def image_identity_of(encoder: EmbeddingModel, *, image_reading: ImageReading = "upright") -> str:
    """Return the same for image embeddings only: models that differ only in the text tower share them."""
    own = getattr(encoder, "image_fingerprint", None)
    return identity_of(encoder, own, image_reading=image_reading, texts=own is None)


def _network_of(encoder: EmbeddingModel, *, texts: bool) -> dict[str, Any]:
    """The network part of a model's configuration: heads, norms and text pooling do not show in the weights.

    Tokenizers are left out, since texts are identified by their tokens.
    """
    config = dict(getattr(getattr(encoder, "description", None), "model_config", {}))
    text = config.pop("text_cfg", {})
    return config | {"text_cfg": {name: text[name] for name in text if texts and "tokenizer" not in name}}


def preprocessing_digest(transform: Any) -> str:
    """Return the sha256 of a transform's output for one fixed image.

    Output identifies a transform better than its name: sizes, crops, filters, means and deviations all show in the
    pixels, whether or not the transform can describe itself. A random transform never gives the same digest.
    """
    import torch
    from PIL import Image

    pixels = np.asarray(torch.as_tensor(transform(Image.fromarray(_probe()))).detach().cpu())
    return hashlib.sha256(f"{pixels.dtype}{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


@cache
def _probe() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An image `[467, 613, 3]`, with odd, unequal sides and slow and fast changes in each colour."""
    height, width = 467, 613
    y, x = np.mgrid[:height, :width]
    slow = (x * 251 // width + y * 241 // height) // 2
    fast = (x * x * 7 + y * y * 13 + x * y * 3) % 256
    return np.stack([slow, fast, (slow + fast) % 256], axis=-1).astype(np.uint8)


class Cache(Protocol):
    """Rows `[D]` by key, IDENTITY:KIND:CONTENT. A dict keeps them in memory, `DiskCache` on disk."""

    def get(self, key: str, /) -> EmbeddingRows | None:
        """Return the row of a key, or None."""

    def __setitem__(self, key: str, row: EmbeddingRows, /) -> None: ...


def open_cache(folder: Path) -> DiskCache:
    """Open a cache in a folder that the user named.

    Raises:
        InputError: the folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot create the cache folder: {error.strerror}.") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: the cache folder is not writable. Choose another one.")
    return DiskCache(folder)


def is_cached(file: Path) -> bool:
    """Whether a file of embeddings exists; it is marked as used then, else unused ones beside it are deleted."""
    if file.exists():
        mark_used(file)
        return True
    _delete_unused(file.parent)
    return False


def _delete_unused(folder: Path) -> None:
    """Delete the embeddings in a folder that were not used for 90 days; in one that the user named, none."""
    try:
        if folder != cache_folder("embeddings"):
            return
    except InputError:  # There is no home folder, so the user named this one.
        return
    # Journals of killed processes and unfinished files have these names with an ending.
    for file in (*folder.glob("*.sqlite*"), *folder.glob("*.patches.npy*")):
        with contextlib.suppress(OSError):  # Another process deletes it, too; on Windows, it is being read.
            if is_unused(file):
                file.unlink()
                log.info("%s was not used for %d days and was deleted.", file, UNUSED_DAYS)


class DiskCache:
    """Float32 rows `[D]` by key; the part of a key before the first colon names its file.

    New rows are written in batches: after 512 rows or five seconds, on `flush`, and on leaving the `with` block.
    Use it from one thread at a time; any number of processes may share a folder.

    Args:
        folder: created when the first row is written.
        images_only: keep rows of texts only for the run, without writing them.
    """

    def __init__(self, folder: Path, *, images_only: bool = False) -> None:
        self.folder = folder
        self._images_only = images_only
        self.read = 0
        """Number of rows found in the cache."""
        self.written = 0
        """Number of rows written to disk."""
        self._files: dict[str, _File] = {}

    def get(self, key: str, /) -> EmbeddingRows | None:
        """Return the row of a key, or None."""
        row = self._file(key).get(key)
        self.read += row is not None
        return row

    def __setitem__(self, key: str, row: EmbeddingRows, /) -> None:
        file, values = self._file(key), np.array(row, dtype=np.float32)
        is_image = key.partition(":")[2].startswith("image:")
        (file.waiting if is_image or not self._images_only else file.never_written)[key] = values
        if len(file.waiting) >= _ROWS_A_WRITE or time.monotonic() - file.last_write > _SECONDS_A_WRITE:
            self.written += file.write()

    def __enter__(self) -> DiskCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        for file in self._files.values():
            file.close()
        self._files.clear()

    def flush(self) -> None:
        """Write all pending rows."""
        self.written += sum(file.write() for file in self._files.values())

    def _file(self, key: str) -> _File:
        name, _, content = key.partition(":")
        if not content or not name.isalnum():
            raise ValueError(f"{key!r}: keys are IDENTITY:KIND:CONTENT, with an identity of letters and digits")
        if name not in self._files:
            self._files[name] = _File(self.folder / f"{name}.sqlite")
        return self._files[name]


class _File:
    """One model's rows. After the first error the file is not used again, and rows stay in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: dict[str, EmbeddingRows] = {}
        self.never_written: dict[str, EmbeddingRows] = {}
        self.last_write = time.monotonic()
        self._connection: sqlite3.Connection | None = None
        self._unusable = False
        self._warned = False

    def get(self, key: str) -> EmbeddingRows | None:
        there = self._connection is not None or self.path.exists()
        in_memory = self.waiting.get(key, self.never_written.get(key))
        if in_memory is not None or self._unusable or not there:
            return in_memory
        row = self._tried(lambda rows: rows.execute("SELECT row, checksum FROM rows WHERE key = ?", (key,)).fetchone())
        return None if row is None else self._checked(key, *row)

    def write(self) -> int:
        """Write the pending rows in one transaction and return their number."""
        self.last_write = time.monotonic()
        if not self.waiting or self._unusable:
            return 0

        def put(connection: sqlite3.Connection) -> int:
            data_of = {key: row.astype(_NUMBERS).tobytes() for key, row in self.waiting.items()}
            connection.execute("BEGIN IMMEDIATE")
            rows = [(key, data, _checksum(key, data)) for key, data in data_of.items()]
            connection.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")
            self.waiting = {}
            return len(rows)

        return self._tried(put) or 0

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            is_cached(self.path)
            self._connection = sqlite3.connect(self.path, timeout=_SECONDS_TO_WAIT, isolation_level=None)
            if _version(self._connection) != FORMAT:
                # A row of 512 numbers takes over half of SQLite's default page; the other half would be wasted.
                self._connection.execute("PRAGMA page_size = 16384")
                # Another process may be creating the same file; the second one finds the table.
                self._connection.execute("BEGIN IMMEDIATE")
                _make_table(self._connection)
                self._connection.execute("COMMIT")
        return self._connection

    def _tried(self, work: Callable[[sqlite3.Connection], Value]) -> Value | None:
        try:
            return work(self._open())
        except (sqlite3.Error, OSError) as error:
            self._unusable = True
            self.close()
            log.warning(
                "%s: the embedding cache cannot be used: %s. Continuing without it; %s if this happens again.",
                self.path, error, _remedy(error),
            )  # fmt: skip
            return None

    def _checked(self, key: str, data: object, checksum: object) -> EmbeddingRows | None:
        if isinstance(data, bytes) and checksum == _checksum(key, data) and len(data) % _NUMBERS.itemsize == 0:
            return np.frombuffer(data, dtype=_NUMBERS).astype(np.float32)
        if not self._warned:
            self._warned = True
            log.warning(
                "%s: some rows of the embedding cache are damaged; they are embedded and written again.", self.path
            )
        return None


def _remedy(error: sqlite3.Error | OSError) -> str:
    """Return what to do; only a file whose content is wrong is worth deleting."""
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "free some space on its disk"
    # Locked, read-only, a disk that fails; the general code is of a file without the table or with other columns.
    if isinstance(error, sqlite3.OperationalError | OSError) and code != sqlite3.SQLITE_ERROR:
        return "choose another cache folder (--cache or DEGLA_CACHE)"
    return "delete the file"


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _make_table(connection: sqlite3.Connection) -> None:
    version = _version(connection)
    if version == FORMAT:
        return
    if version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise sqlite3.DatabaseError(f"written in format {version}, but this version of degla reads {FORMAT}")
    connection.execute("CREATE TABLE rows (key TEXT PRIMARY KEY, row BLOB NOT NULL, checksum BLOB NOT NULL)")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _checksum(key: str, data: bytes) -> bytes:
    return hashlib.blake2b(key.encode() + b"\0" + data, digest_size=16).digest()
