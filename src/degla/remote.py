"""Remote files such as `s3://bucket/captions.jsonl`, through fsspec: listing, partial reads, download and upload; and
the state of local and remote files, so that what was read of them can be cached.

Interrupted transfers are retried from where they stopped. An address can be used wherever a path can; as a `Path` it is
`s3:/bucket/captions.jsonl`, which `address_of` converts back. Callers decide which paths may be addresses; those inside
a captions file may not.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Final, TypeVar

from degla.errors import DeglaError, InputError
from degla.parse import check_regular, in_one_line
from degla.passwords import without_passwords

PIECE: Final = 8 << 20
"""Bytes per request, and so the most that an interrupted transfer loses."""
TRIES: Final = 10
_SECONDS: Final = 60.0
"""Seconds after which a request is no longer retried."""
_TICK: Final = 10**8
"""Nanoseconds, longer than the clock resolution of any file system."""
_KIND: Final = "(?P<kind>abfss?|adl|az|ftp|gcs|gs|hdfs|hf|https?|memory|oci|oss|s3a?|sftp|webdav|webhdfs):/+"
_ADDRESS: Final = re.compile(f"{_KIND}(?P<rest>.+)", re.DOTALL)
_NAMELESS: Final = re.compile(_KIND)
_HOME: Final = re.compile(r"(~[A-Za-z_][\w.-]*)/\S*")
_OTHER: Final = re.compile(r"[A-Za-z][\w+.-]+://\S+")
_AS_A_PATH: Final = re.compile(rf"(?<![\w./-]){_KIND}(?=\w)")
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
_LASTING: Final = ("ParamValidationError", "ProfileNotFound", "ConfigParseError")
"""Errors of botocore about names and settings."""
_INSTALL: Final = "Install it: pip install 'degla[remote]' for s3 and http; gs needs gcsfs, az needs adlfs."

log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
_Reader = TypeVar("_Reader", bound=Callable[..., object])


class RemoteError(DeglaError):
    """A remote file cannot be read or written, although it may exist."""


class AccessError(InputError):
    """An address is not accessible to this process; the file may exist."""


def address_of(path: Path | str) -> str | None:
    """Return the address that a path stands for; None for a local path."""
    match = _ADDRESS.fullmatch(str(path))
    return None if match is None else f"{match['kind']}://{match['rest']}"


def at_home(text: str) -> str:
    """Return a path with "~" or "~USER" at its start replaced by that home folder, if there is one."""
    return os.path.expanduser(text)  # noqa: PTH111 no error without a home


def check_address(text: str) -> None:
    """Raise InputError for what would become a local path: an address without a name, "s3://", or of another kind; a
    home folder that does not exist."""
    if match := _HOME.fullmatch(text):  # "~half/full glass" is a caption.
        raise InputError(f"{text}: there is no home folder {match[1]}. For a folder of that name, write ./{text}.")
    if match := _NAMELESS.fullmatch(text):
        raise InputError(f"{text}: names no file. Write {match['kind']}://BUCKET/NAME.")
    if _OTHER.fullmatch(text) and address_of(text) is None:
        kind = text.partition("://")[0]
        remedy = f"Write {kind.lower()}://." if _ADDRESS.fullmatch(text.lower()) else "Give a local file by its path."
        raise InputError(f"{text}: {kind}:// is no kind of address that is read here. {remedy}")


def display_path(path: Path | str) -> str:
    """Return a path as users write it: its address, or itself."""
    return address_of(path) or str(path)


_SHOWN: Final[dict[str, str]] = {}
"""Folders of the cache that a command reads or writes instead of an address."""


def show_as(folder: Path, address: str | None) -> None:
    """Let `in_addresses` name an address instead of a folder of the cache, or no longer if `address` is None."""
    _SHOWN.pop(str(folder), None)
    if address is not None:
        _SHOWN[str(folder)] = address


def in_addresses(text: str) -> str:
    """Return a message with the addresses, but no password in them, for folders of the cache and paths of addresses."""
    for folder, address in _SHOWN.items():
        text = text.replace(folder, address)
    return without_passwords(_AS_A_PATH.sub(r"\g<kind>://", text))


def refuse_address(path: Path) -> None:
    """Raise InputError if a path to write is an address, which would become a local folder of that name."""
    if address_of(path) is not None:
        raise InputError(f"{display_path(path)}: only a local path can be written here. Use one and copy the result.")


def read_range(address: str, start: int, stop: int) -> bytes:
    """Read bytes `start` to `stop` (exclusive) of a file, or to its end if that comes first.

    Raises:
        InputError: there is no such file, access is denied, or a package for such addresses is not installed.
        RemoteError: it cannot be read.
    """
    if stop <= start:
        return b""

    def read(files: Any, path: str) -> bytes:
        content = bytes(files.cat_file(path, start=start, end=stop))
        if len(content) > stop - start:  # A server without range requests sends the whole file.
            content = content[start:stop]
        if len(content) < min(stop, size_of(address)) - start:
            raise OSError(f"ends after {len(content)} of {stop - start} bytes")
        return content

    return _with_retries(address, read)


def size_of(address: str) -> int:
    """Return the size of a file in bytes; raises like `read_range`, and if the server does not report it."""
    size = _info_of(address).get("size")
    if not isinstance(size, int):
        raise InputError(f"{address}: the server does not report the file's size. Download it and give its local path.")
    return size


def state_of(address: str) -> str:
    """Return a text that changes with the file, as reported by its server, cached. Raises like `read_range`."""
    reported = _info_of(address)
    return json.dumps({name: reported[name] for name in _STATE_FIELDS if name in reported}, default=str, sort_keys=True)


def file_state(path: Path, *, remedy: str = "Fetch the file again.") -> tuple[int, int]:
    """Return two numbers that change with a file: its modification time, or a hash of `state_of`, and its size.

    Raises:
        InputError: it cannot be read.
    """
    if (address := address_of(path)) is not None:
        return int(hashlib.sha256(state_of(address).encode()).hexdigest()[:15], 16), size_of(address)
    state = check_regular(path, remedy=remedy)
    return state.st_mtime_ns, state.st_size


def remembered(count: int, *, remedy: str = "Fetch the file again.") -> Callable[[_Reader], _Reader]:
    """Decorate a function of a file and plain values to cache its last `count` results until the file changes."""

    def remember(read: Any) -> Any:
        cached = lru_cache(count)(lambda state, *arguments: read(*arguments))

        @wraps(read)
        def recall(file: Path, *rest: Any) -> Any:
            state = file_state(file, remedy=remedy)
            # Within one tick of the clock, a file can change twice.
            fresh = abs(time.time_ns() - state[0]) < _TICK
            return read(file, *rest) if fresh else cached(state, file, *rest)

        recall.cache_clear = cached.cache_clear  # type: ignore[attr-defined]
        return recall

    return remember


@lru_cache(maxsize=65_536)
def _info_of(address: str) -> dict[str, Any]:
    return _with_retries(address, lambda files, path: dict(files.info(path)))


def forget() -> None:
    """Forget what servers reported about their files, which one command or call asks for only once."""
    _info_of.cache_clear()


def list_files(address: str) -> list[str]:
    """List the addresses of all files below a folder or matching a glob pattern, sorted; empty if there are none.

    Raises:
        InputError: access is denied, or a package for such addresses is not installed.
        RemoteError: it cannot be listed.
    """

    def ask(files: Any, path: str) -> list[str]:
        with suppress(FileNotFoundError):
            if re.search(r"[*?\[]", path):
                entries = files.glob(path, detail=True)
                paths = [name for name, entry in entries.items() if entry["type"] != "directory"]
            else:
                paths = files.find(path)
            # They begin as the address: a library may leave out the host, or have another name for the kind.
            whole = path.rstrip("/")
            inner = re.split(r"[*?\[]", whole, maxsplit=1)[0]
            start = address.rstrip("/").removesuffix(whole.removeprefix(inner))
            names = (
                start + each.removeprefix(inner) if each.startswith(inner) else files.unstrip_protocol(each)
                for each in paths
            )
            return sorted(filter(None, map(address_of, names)))  # with the usual number of slashes
        return []

    return _with_retries(address, ask)


def fetch(address: str, file: Path, advance: Callable[[int], None] = lambda done: None) -> None:
    """Download a file in pieces; raises like `pieces`, and writes nothing if there is no such file."""
    size_of(address)
    with file.open("wb") as stream:
        for piece in pieces(address):
            stream.write(piece)
            advance(len(piece))


def pieces(address: str) -> Iterator[bytes]:
    """Yield the content of a file in pieces; raises like `read_range`, and at the end if the file has changed."""
    size = size_of(address)
    with unchanged(address):
        for start in range(0, size, PIECE):
            yield read_range(address, start, min(start + PIECE, size))


@contextmanager
def unchanged(address: str) -> Iterator[None]:
    """Raise `RemoteError` at the end of the block if the file has changed."""
    before = _info_of(address)
    yield
    after = _info_of.__wrapped__(address)  # bypass the cache
    if any(after.get(name) != before.get(name) for name in _STATE_FIELDS):
        forget()
        raise RemoteError(f"{address}: changed during the download. Start again when it is complete.")


def put(content: Path | bytes, address: str) -> None:
    """Upload a file, or bytes; atomically if the server supports it.

    Raises:
        InputError: access is denied, or a package for such addresses is not installed.
        RemoteError: it cannot be written.
    """

    def write(files: Any, path: str) -> None:
        if isinstance(content, bytes):
            files.pipe_file(path, content)
        else:
            files.put_file(str(content), path)

    _with_retries(address, write)
    forget()


def remove(address: str) -> None:
    """Delete a file, if it exists. Raises like `put`."""

    def delete(files: Any, path: str) -> None:
        with suppress(FileNotFoundError):
            files.rm_file(path)

    _with_retries(address, delete)


class RemoteFile(io.RawIOBase):
    """A remote file as a raw stream; see `open_remote`."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address, self.length, self.place = address, size_of(address), 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in bytes."""
        self.place = offset + (0, self.place, self.length)[whence]
        return self.place

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as possible."""
        content = read_range(self.address, self.place, min(self.place + len(buffer), self.length))
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)


def open_remote(address: str) -> io.BufferedReader:
    """Open a remote file for reading in pieces; raises like `read_range`."""
    return io.BufferedReader(RemoteFile(address), buffer_size=PIECE)


def _with_retries(address: str, action: Callable[[Any, str], _Result]) -> _Result:
    """Call an action with the file system of an address and the path in it; retry if the connection fails.

    A forked process gets its own file system.
    """
    try:
        import fsspec
    except ImportError:
        raise AccessError(f"{address}: remote files need fsspec, which is not installed. {_INSTALL}") from None
    began = time.monotonic()
    for number, wait in enumerate(_waits(), start=1):
        try:
            # A server's listing may change during a run.
            return action(*fsspec.url_to_fs(address, use_listings_cache=False))
        except (DeglaError, MemoryError):
            raise
        except ImportError as error:
            raise AccessError(f"{address}: {in_one_line(error)}. {_INSTALL}") from None
        except Exception as error:  # Each server's library has its own errors.
            _refuse_what_stays(address, error)
            # Some libraries have already retried for a long time.
            if wait is None or time.monotonic() - began > _SECONDS:
                # The errors of HTTP libraries only contain the address; the cause says more.
                reason = in_one_line(error.__cause__ or error) or type(error).__name__
                raise RemoteError(
                    f"{address}: {reason}, {number} times in a row. Check the network and the server's name."
                ) from None
            log.debug("%s: %s: retrying in %.1f s", address, in_one_line(error), wait)
        time.sleep(wait)
    raise AssertionError("not reached")


def _waits() -> Iterator[float | None]:
    yield from (min(0.05 * 2**number, 5.0) for number in range(TRIES - 1))
    yield None


def _refuse_what_stays(address: str, error: Exception) -> None:
    """Raise errors that a retry cannot resolve."""
    cause = error.__cause__ or error
    status = getattr(cause, "status", None)
    if "Credentials" in type(error).__name__ or "Credentials" in type(cause).__name__:
        raise AccessError(
            f"{address}: no credentials. For s3, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write "
            "~/.aws/credentials; for other providers, see their documentation."
        ) from None
    if isinstance(error, PermissionError) or status in (401, 403):
        raise AccessError(
            f"{address}: access denied. Check the credentials, the owner of the bucket and the file's name: if a key "
            "may not list a bucket, s3 also answers so for a missing file."
        ) from None
    # HTTP libraries also report a failed connection as a missing file, with the failure as the cause.
    if isinstance(error, FileNotFoundError) and (cause is error or status == 404 or hasattr(cause, "response")):
        raise InputError(f"{address}: no such file or bucket. Check its name.") from None
    if isinstance(error, ValueError | TypeError | NotImplementedError) or type(cause).__name__ in _LASTING:
        reason = in_one_line(cause).rstrip(".") or type(error).__name__
        raise InputError(f"{address}: {reason}.") from None
