"""Files and folders that are written whole or not at all: written beside, synchronised, then renamed into place.

A process that is killed at any instant leaves what was there before, or the new file or folder, complete. What it was
writing then lies beside as ``NAME.partial`` and is overwritten by the next writer. Without locks it lies there as
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
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from itertools import count
from pathlib import Path
from typing import IO, Any, Self

from degla.errors import DeglaError, InputError

if sys.platform != "win32":
    import fcntl

PARTIAL, OLD, DELETED = ".partial", ".old", ".deleted"
"""Endings of the names: being written; a folder that is being replaced; a folder that is being deleted."""
_WRITERS = count()


@contextmanager
def whole_file(
    path: Path, *, binary: bool = False, newline: str | None = None, remedy: str = "Choose another --out."
) -> Iterator[IO[Any]]:
    """Open a new file that takes the place of `path` when the block ends without an error.

    The folder is made. A symbolic link stays one; a device or a pipe is written to directly. Two writers of one path
    take turns; without locks the last to end stays.

    Args:
        path: what people read.
        binary: bytes; otherwise UTF-8 text.
        newline: as `open` takes it.
        remedy: end of the message if `path` cannot be written.

    Raises:
        InputError: `path` cannot be written.
        DeglaError: the disk is full. In both cases what was there before is unchanged.
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
                    stream.close()  # An open file cannot be renamed there.
                partial.replace(target)  # Before the file is closed, which lets the next writer have it.
            except BaseException:
                with suppress(OSError):
                    partial.unlink()
                with suppress(OSError):  # A full disk once more: what was left to write.
                    stream.close()
                raise
    except OSError as error:
        raise cannot_write(path, error, remedy=remedy) from None


def _claim_partial(target: Path) -> tuple[Path, int]:
    """What is to become a file, opened for one writer alone: by a lock; by a name of its own where there are none."""
    partial = target.with_name(target.name + PARTIAL)
    descriptor = claim(partial, lambda file: bool(hold(file, wait=True)))
    if descriptor < 0:
        partial.unlink(missing_ok=True)
        own = f"{target.name}.{socket.gethostname()}-"
        for left in target.parent.glob(f"{escape(own)}*-*{PARTIAL}"):
            process = left.name.removeprefix(own).partition("-")[0]
            if process.isdecimal() and has_ended(int(process)):
                left.unlink(missing_ok=True)
        partial = target.with_name(f"{own}{os.getpid()}-{next(_WRITERS)}{PARTIAL}")
        descriptor = claim(partial, lambda file: True)
    return partial, descriptor


def write_text(path: Path, text: str, *, remedy: str = "Choose another --out.") -> None:
    """Write a text file, whole or not at all; see `whole_file`."""
    with whole_file(path, remedy=remedy) as stream:
        stream.write(text)


def write_json(path: Path, value: object, *, indent: int = 2) -> None:
    """Write a JSON file, whole or not at all; see `whole_file`."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def whole_lines(stream: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """The number, from 1, the place in bytes and the bytes of every line of a file; not of a torn last one."""
    place = 0
    stream.seek(0)
    for number, line in enumerate(stream, start=1):
        if not line.endswith(b"\n"):
            return
        yield number, place, line
        place += len(line)


class LineFile:
    """A file of lines that is only appended to and goes on after a kill. Used in a ``with`` block.

    Raises:
        InputError: it cannot be written.
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
        with suppress(OSError):  # `append` has reported what could not be written.
            self.stream.close()

    def claim(self) -> bool:
        """Whether no other process is writing it; none can until this one closes it. True without locks."""
        return hold(self.stream.fileno()) is not False

    def append(self, lines: Iterable[str]) -> None:
        """Append lines and hand them to the operating system, so that a kill loses none.

        Raises:
            DeglaError: the disk is full, or the file cannot be written any more.
        """
        try:
            self.stream.seek(0, os.SEEK_END)
            self.stream.write("".join(lines).encode())
            self.stream.flush()
        except OSError as error:
            remedy = "Fix this and run the same command again: it resumes."
            raise DeglaError(str(cannot_write(self.path, error, remedy=remedy))) from None  # no fault of the input


def require_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work whose result it is to hold. Nothing is made.

    Raises:
        InputError: a folder is there, or the folder that it would lie in is none or may not be written to.
    """
    folder = next(each for each in path.absolute().parents if each.exists())
    if path.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"{folder} is no folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"{folder} may not be written to"
    else:
        return
    raise InputError(f"{path}: cannot be written: {reason}. Choose another --out.")


def spare_inputs(out: Path, *inputs: Path | None) -> None:
    """Refuse to write over a file that the same command reads.

    Raises:
        InputError: `out` is one of the inputs, under this or another name.
    """
    for path in inputs:
        if path is not None and path.exists() and out.exists() and out.samefile(path):
            raise InputError(f"{out}: this command reads it, and would write over it. Choose another --out.")


def sha256_of(path: Path) -> str:
    """sha256 of a file, hexadecimal; of a folder, of all its files as `sha256_of_files` says."""
    if path.is_dir():
        return sha256_of_files(sorted(file for file in path.rglob("*") if file.is_file()), path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_files(files: Iterable[Path], root: Path) -> str:
    """sha256 of the names, from a folder on, and contents of files, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode() + bytes.fromhex(sha256_of(file)))
    return digest.hexdigest()


def cannot_write(path: Path, error: OSError, *, remedy: str) -> DeglaError:
    """The error of a file or folder that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):  # EDQUOT: the share of this user
        return DeglaError(f"{path}: cannot be written: the disk is full. Free space and run the command again.")
    return InputError(f"{path}: cannot be written: {error.strerror or error}. {remedy}")


def hold(descriptor: int, *, wait: bool = False) -> bool | None:
    """Lock an open file for this process, until it is closed; None on a system or file system without locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def has_ended(process: int) -> bool:
    """Whether a process of this host is known to be gone."""
    if sys.platform == "win32":
        return False  # There signal 0 is Ctrl-C.
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def claim(path: Path, take: Callable[[int], bool], content: bytes = b"") -> int:
    """Open a file for this process alone and replace what is in it.

    Args:
        path: made where it is not there.
        take: locks the open file; False where another process has it.
        content: written to it.

    Returns:
        The open file; below 0 where `take` gave False.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not take(descriptor):
                os.close(descriptor)
                return -1
            # Who had it before may have renamed or removed the file that was opened here.
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
    """Where things that can be made again are kept: NAME in DEGLA_CACHE, else in `degla` in the user's cache folder.

    Raises:
        InputError: it is to be in a home folder that nobody knows.
    """
    home = environment.get("XDG_CACHE_HOME", "")
    # The XDG rules say to pass over a relative path.
    usual = Path(home if Path(home).is_absolute() else "~/.cache", "degla")
    try:
        return Path(environment.get("DEGLA_CACHE") or usual).expanduser() / name
    except RuntimeError:  # a container whose user has neither HOME nor an entry in /etc/passwd; "~nobody"
        raise InputError("no home folder for the cache is known. Name a folder in DEGLA_CACHE.") from None


def open_temporary_database() -> sqlite3.Connection:
    """An SQLite database without a name: its pages go to a temporary file when they are too many for the cache."""
    database = sqlite3.connect("")
    for setting in ("cache_size = -32768", "journal_mode = OFF", "synchronous = OFF"):  # 32 MB in memory
        database.execute(f"PRAGMA {setting}")
    return database


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder to write to, and put it in place of `folder` when the block ends without an error.

    What is there is renamed aside, the new folder is renamed in, and only then is the old one deleted. Hold a lock on
    the folder's parent (`degla.locks`). `recover_folder` puts right what a killed process leaves.

    Raises:
        OSError: the folder cannot be written; what was there before is unchanged.
    """
    partial, old = (folder.with_name(folder.name + ending) for ending in (PARTIAL, OLD))
    try:
        _remove(partial)
        partial.mkdir(parents=True)
        yield partial
        mask = os.umask(0o022)  # There is no way to read it without setting it.
        os.umask(mask)
        for path in sorted(partial.rglob("*")):
            if path.is_file():
                path.chmod(0o666 & ~mask)  # safetensors makes its files for their owner alone.
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
    """Put right what a killed process has left of replacing or removing `folder`; hold a lock on its parent.

    Args:
        folder: in place, or not.
        is_whole: whether a folder that was being written is complete.

    Returns:
        The folder that was renamed to `folder`, because it is complete and there was none; None otherwise.
    """
    partial, old, deleted = (folder.with_name(folder.name + ending) for ending in (PARTIAL, OLD, DELETED))
    taken = None
    if not folder.exists():
        if partial.is_dir() and is_whole(partial):
            taken = partial
        elif old.is_dir():
            taken = old
        if taken is not None:
            taken.rename(folder)
            _sync(folder.parent)
    for left in (partial, old, deleted):
        _remove(left)
    return taken


def remove_folder(folder: Path) -> None:
    """Delete a folder; one that a kill leaves half deleted has another name, so that nobody takes it for whole."""
    deleted = folder.with_name(folder.name + DELETED)
    _remove(deleted)
    folder.rename(deleted)
    shutil.rmtree(deleted, ignore_errors=True)


def _remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)


def _sync(path: Path) -> None:
    if sys.platform == "win32":
        return  # A folder cannot be opened there, nor can what was opened to read be synchronised.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
