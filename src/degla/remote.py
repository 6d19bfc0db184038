"""Files at addresses, `s3://bucket/captions.jsonl`, through fsspec: sought, read in part, fetched and put there; and
what changes with a file, here or there, so that what was read of it can be kept.

A connection that is cut is tried again, from where it was cut. An address may stand wherever a path may; as a `Path` it
is `s3:/bucket/captions.jsonl`, which `address_of` reads back. Nothing here decides what an address is asked for: a file
of captions cannot name one.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Final, TypeVar

from degla.errors import DeglaError, InputError
from degla.parse import check_regular, in_one_line

PIECE: Final = 8 << 20
"""Bytes that are asked for at a time: what a cut connection loses."""
TRIES: Final = 10
_SECONDS: Final = 60.0
"""How long is tried, at least once."""
_TICK: Final = 10**8
"""Nanoseconds, more than any file system's clock stands still."""
_ADDRESS: Final = re.compile(
    "(?P<kind>abfss?|adl|az|ftp|gcs|gs|hdfs|hf|https?|memory|oci|oss|s3a?|sftp|webdav|webhdfs):/+(?P<rest>.+)",
    re.DOTALL,
)
_STATE_FIELDS: Final = (
    "size",
    "ETag",
    "etag",
    "LastModified",
    "mtime",
    "last_modified",
    "updated",
    "created",
    "blob_id",
)
_INSTALL: Final = "Install what it needs: pip install 'degla[remote]' for s3 and http; gs needs gcsfs, az needs adlfs."

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_Reader = TypeVar("_Reader", bound=Callable[..., object])


class RemoteError(DeglaError):
    """A file at an address cannot be read or written, though it may be there."""


class AccessError(InputError):
    """An address is not open to this process, which says nothing about the file that lies there."""


def address_of(path: Path | str) -> str | None:
    """The address that a path stands for; None for a path of this machine."""
    found = _ADDRESS.fullmatch(str(path))
    return None if found is None else f"{found['kind']}://{found['rest']}"


def told(path: Path | str) -> str:
    """A path as people write it: its address, or itself."""
    return address_of(path) or str(path)


def read_range(address: str, start: int, stop: int) -> bytes:
    """Bytes of a file from `start` up to, not with, `stop`, or to its end where that comes before.

    Raises:
        InputError: there is no such file, it may not be read, or what reads such addresses is not installed.
        RemoteError: it cannot be read.
    """
    if stop <= start:
        return b""

    def read(files: Any, path: str) -> bytes:
        content = bytes(files.cat_file(path, start=start, end=stop))
        if len(content) > stop - start:  # A server that knows no ranges sends all of the file.
            content = content[start:stop]
        if len(content) < min(stop, size_of(address)) - start:
            raise OSError(f"ends after {len(content)} of {stop - start} bytes")
        return content

    return _tried(address, read)


def size_of(address: str) -> int:
    """Bytes of a file; raises like `read_range`, and where the server does not say."""
    size = _known(address).get("size")
    if not isinstance(size, int):
        raise InputError(f"{address}: the server does not say how long the file is. Fetch it and give its path here.")
    return size


def state_of(address: str) -> str:
    """What changes with a file, as far as its server says; asked once a process. Raises like `read_range`."""
    known = _known(address)
    return json.dumps({name: known[name] for name in _STATE_FIELDS if name in known}, default=str, sort_keys=True)


def file_state(path: Path, *, remedy: str = "Fetch the file again.") -> tuple[int, int]:
    """Two numbers that change with a file: its time of change, or for an address of `state_of`, and its size.

    Raises:
        InputError: it cannot be read.
    """
    if (address := address_of(path)) is not None:
        return int(hashlib.sha256(state_of(address).encode()).hexdigest()[:15], 16), size_of(address)
    state = check_regular(path, remedy=remedy)
    return state.st_mtime_ns, state.st_size


def remembered(count: int, *, remedy: str = "Fetch the file again.") -> Callable[[_Reader], _Reader]:
    """A function of a file and plain values that keeps its last `count` answers, each until the file is changed."""

    def remember(read: Any) -> Any:
        known = lru_cache(count)(lambda state, *given: read(*given))

        @wraps(read)
        def recall(file: Path, *rest: Any) -> Any:
            state = file_state(file, remedy=remedy)
            # Within one tick of the system's clock a file can be changed twice.
            fresh = abs(time.time_ns() - state[0]) < _TICK
            return read(file, *rest) if fresh else known(state, file, *rest)

        recall.cache_clear = known.cache_clear  # type: ignore[attr-defined]
        return recall

    return remember


@lru_cache(maxsize=65_536)
def _known(address: str) -> dict[str, Any]:
    return _tried(address, lambda files, path: dict(files.info(path)))


def forget() -> None:
    """Ask servers again what is known of their files."""
    _known.cache_clear()


def list_files(address: str) -> list[str]:
    """Addresses of all files below a folder, or that a pattern with stars stands for, by name; none where none is.

    Raises:
        InputError: it may not be listed, or what reads such addresses is not installed.
        RemoteError: it cannot be listed.
    """

    def ask(files: Any, path: str) -> list[str]:
        with suppress(FileNotFoundError):
            found = files.glob(path) if re.search(r"[*?\[]", path) else files.find(path)
            # With as many slashes as addresses have here.
            return sorted(filter(None, (address_of(files.unstrip_protocol(each)) for each in found)))
        return []

    return _tried(address, ask)


def fetch(address: str, file: Path, advance: Callable[[int], None] = lambda done: None) -> None:
    """Copy a file from an address, a piece at a time; raises like `read_range`, and where the file is changed."""
    size, known = size_of(address), _known(address)
    with file.open("wb") as stream:
        for start in range(0, size, PIECE):
            piece = read_range(address, start, min(start + PIECE, size))
            stream.write(piece)
            advance(len(piece))
    now = _known.__wrapped__(address)  # asked again
    if any(now.get(name) != known.get(name) for name in _STATE_FIELDS):
        raise RemoteError(f"{address}: was changed while it was fetched. Start again when it is complete.")


def put(content: Path | bytes, address: str) -> None:
    """Copy a file, or bytes, to an address; it is there whole or not at all, as far as the server does so.

    Raises:
        InputError: it may not be written, or what writes such addresses is not installed.
        RemoteError: it cannot be written.
    """

    def write(files: Any, path: str) -> None:
        if isinstance(content, bytes):
            files.pipe_file(path, content)
        else:
            files.put_file(str(content), path)

    _tried(address, write)
    forget()


def remove(address: str) -> None:
    """Delete a file; one that is not there is no error. Raises like `put`."""

    def delete(files: Any, path: str) -> None:
        with suppress(FileNotFoundError):
            files.rm_file(path)

    _tried(address, delete)


class RemoteFile(io.RawIOBase):
    """A file at an address for those who read a file from its beginning; see `open_remote`."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address, self.length, self.place = address, size_of(address), 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in bytes."""
        self.place = offset + (0, self.place, self.length)[whence]
        return self.place

    def readinto(self, buffer: Any) -> int:
        """Read as much as fits."""
        content = read_range(self.address, self.place, min(self.place + len(buffer), self.length))
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)


def open_remote(address: str) -> io.BufferedReader:
    """A file at an address, read a piece at a time; raises like `read_range`."""
    return io.BufferedReader(RemoteFile(address), buffer_size=PIECE)


def _tried(address: str, action: Callable[[Any, str], _Result]) -> _Result:
    """What an action on the file system of an address and the path in it gives, tried again where its connection fails.

    A process that was forked gets a file system of its own.
    """
    try:
        import fsspec
    except ImportError:
        raise AccessError(f"{address}: fsspec, which reads addresses, is not installed. {_INSTALL}") from None
    began = time.monotonic()
    for number, wait in enumerate(_waits(), start=1):
        try:
            # What a server lists may change while a run lasts.
            return action(*fsspec.url_to_fs(address, use_listings_cache=False))
        except (DeglaError, MemoryError):
            raise
        except ImportError as error:
            raise AccessError(f"{address}: {in_one_line(error)}. {_INSTALL}") from None
        except Exception as error:  # Each server's library has errors of its own.
            _refuse_what_stays(address, error)
            # Some libraries have tried for a long time already.
            if wait is None or time.monotonic() - began > _SECONDS:
                # Libraries of http say no more than the address themselves.
                reason = in_one_line(error.__cause__ or error) or type(error).__name__
                raise RemoteError(
                    f"{address}: {reason}, {number} times in a row. Is there a network, and is the server's name right?"
                ) from None
            _log.debug("%s: %s: tried again in %.1f s", address, in_one_line(error), wait)
        time.sleep(wait)
    raise AssertionError("not reached")


def _waits() -> Iterator[float | None]:
    yield from (min(0.05 * 2**number, 5.0) for number in range(TRIES - 1))
    yield None


def _refuse_what_stays(address: str, error: Exception) -> None:
    """Raise for errors that another try cannot avoid."""
    cause = error.__cause__ or error
    status = getattr(cause, "status", None)
    if "Credentials" in type(error).__name__ or "Credentials" in type(cause).__name__:
        raise AccessError(
            f"{address}: there are no credentials for it. For s3 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "write ~/.aws/credentials; another provider's documentation names its own."
        ) from None
    if isinstance(error, PermissionError) or status in (401, 403):
        raise AccessError(
            f"{address}: access is refused. Check the credentials, whose bucket it is, and the name: where a key may "
            "not list a bucket, s3 answers so for a file that is missing, too."
        ) from None
    # Libraries of http call a connection that failed a missing file, too, and keep the failure as the cause.
    if isinstance(error, FileNotFoundError) and (cause is error or status == 404 or hasattr(cause, "response")):
        raise InputError(f"{address}: there is no such file. Check its name.") from None
    if isinstance(error, ValueError | TypeError | NotImplementedError):
        raise InputError(f"{address}: {in_one_line(error)}.") from None
