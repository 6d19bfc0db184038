"""Atomic writes of files and folders: written beside the target, synchronised, then renamed into place.

A process that is killed at any moment leaves either the old or the complete new file or folder. The unfinished one is
left beside it as ``NAME.partial`` and is overwritten by the next writer. Without file locks it is named
``NAME.HOST-PROCESS-NUMBER.partial``, and the next writer on that host removes it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from itertools import count
from pathlib import Path
from typing import IO, Any, Final, Self

from degla.errors import DeglaError, InputError
from degla.passwords import without_passwords

if sys.platform != "win32":
    import fcntl

PARTIAL, OLD, DELETED = ".partial", ".old", ".deleted"
"""Name endings of what is being written, and of folders being replaced and deleted."""
UNUSED_DAYS: Final = 90
"""Cached files that are unused for this many days are deleted when another is made."""
_WRITERS = count()


@contextmanager
def whole_file(
    path: Path, *, binary: bool = False, newline: str | None = None, remedy: str = "Choose another --out."
) -> Iterator[IO[Any]]:
    """Open a new file that replaces `path` when the block ends without an error.

    Creates the folder if needed. A symbolic link is kept; a device or pipe is written to directly. Two writers of one
    path take turns; without file locks, the last one to finish wins.

    Args:
        path: file to write.
        binary: write bytes instead of UTF-8 text.
        newline: as for `open`.
        remedy: end of the message if `path` cannot be written.

    Raises:
        InputError: `path` cannot be written.
        DeglaError: the disk is full. In both cases an existing file is unchanged.
    """
    mode, text = ("wb", {}) if binary else ("w", {"encoding": "utf-8", "newline": newline})
    try:
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            with target.open(mode, **text) as stream:  # type: ignore[call-overload]
                yield stream
            return
        partial, descriptor = _claim_partial(target)
        with os.fdopen(descriptor, mode, **text) as stream:  # type: ignore[call-overload]
            try:
                yield stream
                stream.flush()
                if target.exists():
                    shutil.copymode(target, partial)
                os.fsync(stream.fileno())
                if sys.platform == "win32":
                    stream.close()  # An open file cannot be renamed on Windows.
                partial.replace(target)  # Before the file is closed, which releases its lock.
            except BaseException:
                with suppress(OSError):
                    partial.unlink()
                with suppress(OSError):  # A full disk makes flushing the rest fail again.
                    stream.close()
                raise
    except OSError as error:
        raise cannot_write(path, error, remedy=remedy) from None


def _claim_partial(target: Path) -> tuple[Path, int]:
    """Open the unfinished file for one writer only, by a lock, or by a unique name where there are no locks."""
    partial = target.with_name(target.name + PARTIAL)
    descriptor = claim(partial, lambda file: bool(hold(file, wait=True)))
    if descriptor < 0:
        partial.unlink(missing_ok=True)
        own = f"{target.name}.{socket.gethostname()}-"
        for leftover in target.parent.glob(f"{escape(own)}*-*{PARTIAL}"):
            process = leftover.name.removeprefix(own).partition("-")[0]
            if process.isdecimal() and has_ended(int(process)):
                leftover.unlink(missing_ok=True)
        partial = target.with_name(f"{own}{os.getpid()}-{next(_WRITERS)}{PARTIAL}")
        descriptor = claim(partial, lambda file: True)
    return partial, descriptor


def write_text(path: Path, text: str, *, remedy: str = "Choose another --out.") -> None:
    """Write a text file atomically; see `whole_file`."""
    with whole_file(path, remedy=remedy) as stream:
        stream.write(text)


def write_json(path: Path, value: object, *, indent: int = 2) -> None:
    """Write a JSON file atomically; see `whole_file`.

    Only its owner can read it if an address in it has a password, which a run's configuration needs to be resumed.
    """
    text = json.dumps(value, indent=indent) + "\n"
    private = without_passwords(text) != text
    if private and path.is_file():  # The new file takes its permissions.
        with suppress(OSError):
            path.chmod(0o600)
    with whole_file(path) as stream:
        if private and sys.platform != "win32" and stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            with suppress(OSError):
                os.fchmod(stream.fileno(), 0o600)
        stream.write(text)


def whole_lines(stream: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Yield number (from 1), byte offset and bytes of every line of a file, except an incomplete last one."""
    place = 0
    stream.seek(0)
    for number, line in enumerate(stream, start=1):
        if not line.endswith(b"\n"):
            return
        yield number, place, line
        place += len(line)


class LineFile:
    """A file of lines that is only appended to and can be continued after a kill. Used in a ``with`` block.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.stream: IO[bytes] = path.open("ab+")
        except OSError as error:
            raise cannot_write(path, error, remedy="Choose another --out.") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # `append` has already reported failed writes.
            self.stream.close()

    def claim(self) -> bool:
        """Lock the file until it is closed; return False if another process is writing it. True without locks."""
        return hold(self.stream.fileno()) is not False

    def append(self, lines: Iterable[str]) -> None:
        """Append lines and hand them to the operating system, so that a kill loses none.

        Raises:
            DeglaError: the disk is full, or the file can no longer be written.
        """
        try:
            self.stream.seek(0, os.SEEK_END)
            self.stream.write("".join(lines).encode())
            self.stream.flush()
        except OSError as error:
            remedy = "Fix this and run the same command again to resume."
            raise DeglaError(str(cannot_write(self.path, error, remedy=remedy))) from None  # not an input error


def require_writable(path: Path, *, remedy: str = "Choose another --out.") -> None:
    """Check that a file can be written, before the work starts whose result it will hold. Creates nothing.

    Raises:
        InputError: the path is a folder, or its parent is not a folder or not writable.
    """
    folder = next(each for each in path.absolute().parents if each.exists())
    if path.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"{folder} is not a folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"no permission to write to {folder}"
    else:
        return
    raise InputError(f"{path}: cannot be written: {reason}. {remedy}")


def refuse_to_overwrite_inputs(out: Path, *inputs: Path | None) -> None:
    """Check that an output file is not one of the input files.

    Raises:
        InputError: `out` is one of the inputs, under this or another name.
    """
    for path in inputs:
        if path is not None and path.exists() and out.exists() and out.samefile(path):
            raise InputError(f"{out}: this command reads it and would overwrite it. Choose another --out.")


def sha256_of(path: Path, *, of_file: Callable[[Path], str] | None = None) -> str:
    """Return the hexadecimal sha256 of a file, or of all files of a folder (see `sha256_of_files`)."""
    if path.is_dir():
        return sha256_of_files(sorted(file for file in path.rglob("*") if file.is_file()), path, of_file=of_file)
    if of_file is not None:
        return of_file(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_files(files: Iterable[Path], root: Path, *, of_file: Callable[[Path], str] | None = None) -> str:
    """Return the sha256 of the names, relative to `root`, and contents of files, in the order given.

    `of_file` may know the sha256 of a file without reading it.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode() + bytes.fromhex(sha256_of(file, of_file=of_file)))
    return digest.hexdigest()


def cannot_write(path: Path, error: OSError, *, remedy: str) -> DeglaError:
    """Return the error for a file or folder that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):  # EDQUOT: the user's quota
        return DeglaError(f"{path}: cannot be written: the disk is full. Free space and run the command again.")
    return InputError(f"{path}: cannot be written: {error.strerror or error}. {remedy}")


def hold(descriptor: int, *, wait: bool = False) -> bool | None:
    """Lock an open file for this process until it is closed; return whether, or None without support for locks."""
    if sys.platform == "win32":
        return None
    else:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True


def has_ended(process: int) -> bool:
    """Whether a process of this host is known to have ended."""
    if sys.platform != "win32":  # On Windows, signal 0 is Ctrl-C.
        try:
            os.kill(process, 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
    return False


def claim(path: Path, take: Callable[[int], bool], content: bytes = b"") -> int:
    """Open a file for this process only and replace its content.

    Args:
        path: file; created if it does not exist or is a symbolic link.
        take: locks the open file; returns False if another process has it.
        content: new content.

    Returns:
        The file descriptor; below 0 if `take` returned False.
    """
    while True:
        if path.is_symlink():  # Not ours: it would lead to a file that is then overwritten.
            path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if not take(descriptor):
                os.close(descriptor)
                return -1
            # The previous holder may have renamed or removed the file that was opened here.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, content)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def cache_folder(name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the cache folder NAME in DEGLA_CACHE if set, else in `degla` in the user's cache folder.

    Raises:
        InputError: the user's home folder is not known.
    """
    home = environment.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    usual = Path(home if Path(home).is_absolute() else "~/.cache", "degla")
    try:
        return Path(environment.get("DEGLA_CACHE") or usual).expanduser() / name
    except RuntimeError:  # a container whose user has neither HOME nor an entry in /etc/passwd; "~nobody"
        raise InputError("no home folder for the cache. Set DEGLA_CACHE to a folder.") from None


def is_unused(file: Path) -> bool:
    """Whether a file of the cache was neither changed nor marked as used (`mark_used`) for 90 days.

    Raises:
        FileNotFoundError: it does not exist.
    """
    return time.time() - file.stat().st_mtime > UNUSED_DAYS * 24 * 3600


def mark_used(file: Path) -> None:
    """Set the time of a file of the cache to now, if the cache can be written."""
    with suppress(OSError):
        os.utime(file)


def open_temporary_database() -> sqlite3.Connection:
    """Open an unnamed SQLite database, which spills to a temporary file when its cache in memory is full."""
    database = sqlite3.connect("")
    for setting in ("cache_size = -32768", "journal_mode = OFF", "synchronous = OFF"):  # 32 MB in memory
        database.execute(f"PRAGMA {setting}")
    return database


def set_usual_mode(path: Path) -> None:
    """Give a file the permissions of any new file: safetensors makes its files readable only by their owner."""
    mask = os.umask(0o022)  # There is no way to read it without setting it.
    os.umask(mask)
    path.chmod(0o666 & ~mask)


@contextmanager
def _holding(folder: Path) -> Iterator[bool]:
    """Lock a folder for the block where folders can be locked; yield False if another writer holds it."""
    descriptor = None
    if sys.platform != "win32":
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor is None or hold(descriptor) is not False
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to write to, and replace `folder` with it when the block ends without an error.

    An existing folder is renamed, the new one is renamed into place, and only then is the old one deleted. Hold a lock
    on the folder's parent (`degla.locks`) if `folder` may exist. `recover_folder` cleans up after a killed process.

    Raises:
        OSError: the folder cannot be written, or another process is writing it; an existing folder is unchanged.
    """
    partial, old = (folder.with_name(folder.name + ending) for ending in (PARTIAL, OLD))
    with _holding(partial) as is_free:
        if not is_free:
            raise OSError(errno.EBUSY, "another process is writing it", str(folder))
    try:
        _remove(partial)
        partial.mkdir(parents=True)
        with _holding(partial):
            yield partial
            for path in sorted(partial.rglob("*")):
                if path.is_file():
                    if path.suffix != ".json":  # See `write_json`.
                        set_usual_mode(path)
                    _sync(path)
            for place in (*(path for path in partial.rglob("*") if path.is_dir()), partial):
                _sync(place)
        if folder.exists():
            _remove(old)
            folder.rename(old)
        partial.rename(folder)
        _sync(folder.parent)
    except BaseException:
        if not folder.exists() and old.exists():
            old.rename(folder)
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _remove(old)


def recover_folder(folder: Path, *, is_whole: Callable[[Path], bool]) -> Path | None:
    """Clean up after a process that was killed while replacing or removing `folder`; hold a lock on its parent.

    Args:
        folder: the folder, which may be missing.
        is_whole: whether a folder that was being written is complete.

    Returns:
        The folder that was renamed to `folder` because that was missing; None otherwise.
    """
    partial, old, deleted = (folder.with_name(folder.name + ending) for ending in (PARTIAL, OLD, DELETED))
    origin = None
    if not folder.exists():
        if partial.is_dir() and is_whole(partial):
            origin = partial
        elif old.is_dir():
            origin = old
        if origin is not None:
            origin.rename(folder)
            _sync(folder.parent)
    for leftover in (partial, old, deleted):
        _remove(leftover)
    return origin


def remove_folder(folder: Path) -> None:
    """Delete a folder; rename it first, so that a half-deleted folder is not mistaken for a complete one."""
    deleted = folder.with_name(folder.name + DELETED)
    _remove(deleted)
    folder.rename(deleted)
    shutil.rmtree(deleted, ignore_errors=True)


def _remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)


def _sync(path: Path) -> None:
    if sys.platform != "win32":  # Windows can neither open a folder nor synchronise a file opened for reading.
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
