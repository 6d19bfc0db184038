"""A lock on a folder that only one process at a time may write; it records its holder, and is freed when that dies.

The lock is `flock` on ``FOLDER/.lock``, which names the holder as JSON. The operating system frees it when the process
and those that it passed the lock to (a `Lock` can be pickled to a child process) are gone, however they ended. Without
`flock`, the lock is free if the process that the file names no longer runs. For another host that cannot be checked;
the message then says which file to delete.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from multiprocessing import reduction
from pathlib import Path
from typing import Any, Final

from degla.errors import InputError
from degla.files import cannot_write, claim, has_ended, hold
from degla.passwords import without_passwords

NAME = ".lock"
_PATIENCE = 10.0
"""Seconds to wait for a lock whose process was killed, because its child processes end a moment later."""
_ANNOUNCED: Final = 10.0
"""Seconds after which a process that waits for its turn says so."""
log = logging.getLogger(__name__)


class Lock:
    """A lock that this process holds until `release`, the end of the ``with`` block, or its own end.

    Args:
        path: the lock file.
        descriptor: of the open file.
        made: folders that were created for it, innermost first; `release` removes them if they are still empty.
    """

    def __init__(self, path: Path, descriptor: int, made: tuple[Path, ...] = ()) -> None:
        self.path, self._descriptor, self._made = path, descriptor, made

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock; a process that it was passed to must have ended before."""
        if self._descriptor >= 0:
            try:
                self.path.unlink()  # While the lock is held, so that the file cannot be another process's.
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, 0)  # Windows deletes no open file; an empty one names no holder.
            os.close(self._descriptor)
            self._descriptor = -1
            with suppress(OSError):  # Something was written.
                for folder in self._made:
                    folder.rmdir()

    def __reduce__(self) -> tuple[Any, ...]:
        if sys.platform == "win32":
            return Lock, (self.path, -1)
        else:
            # The child process gets the same open file; the lock is free when both have closed it.
            return _handed, (self.path, reduction.DupFd(self._descriptor))


def _handed(path: Path, descriptor: Any) -> Lock:
    return Lock(path, descriptor.detach())


def lock(
    folder: Path,
    *,
    remedy: str = "Wait for it or choose another --out.",
    if_unwritable: str = "Choose another --out.",
) -> Lock:
    """Lock a folder; create it if it does not exist.

    Args:
        folder: folder that this process is about to write.
        remedy: end of the error message if the lock is held.
        if_unwritable: end of the error message if the folder cannot be written.

    Raises:
        InputError: another process (or another part of this one) holds the lock; the message says which, and since
            when. Or the folder cannot be written.
        DeglaError: the disk is full.
    """
    path = folder / NAME
    last = time.monotonic() + _PATIENCE
    try:
        made = tuple(each for each in (folder, *folder.parents) if not each.exists())
        folder.mkdir(parents=True, exist_ok=True)
        while (own_lock := _try(path, made)) is None:
            holder = _read(path)
            if (holder and not _is_dead(holder)) or time.monotonic() > last:
                raise InputError(f"{folder}: in use by {_described(holder, path)}. {remedy}")
            time.sleep(0.05)
        return own_lock
    except OSError as error:
        raise cannot_write(folder, error, remedy=if_unwritable) from None


@contextmanager
def locked_if_free(folder: Path) -> Iterator[bool]:
    """Hold the lock for the block if it is free and the folder is writable; yield whether it is held."""
    try:
        own_lock = _try(folder / NAME)
    except OSError:
        own_lock = None
    try:
        yield own_lock is not None
    finally:
        if own_lock is not None:
            own_lock.release()


@contextmanager
def in_turn(entry: Path, *, announced: bool = True) -> Iterator[None]:
    """Hold the lock of an entry of the cache, ``ENTRY.lock``, for the block; wait while another process holds it.

    Args:
        entry: file or folder of the cache; need not exist.
        announced: log a long wait.

    Raises:
        OSError: the lock cannot be made.
    """
    from filelock import FileLock, Timeout

    turn = FileLock(f"{entry}.lock")
    try:
        held = turn.acquire(timeout=_ANNOUNCED if announced else None)
    except Timeout:
        log.info("waiting for another process, which holds the lock %s", turn.lock_file)
        held = turn.acquire()
    with held:
        yield


def _try(path: Path, made: tuple[Path, ...] = ()) -> Lock | None:
    content = (json.dumps(_this_process()) + "\n").encode()
    descriptor = claim(path, lambda file: _is_free(file, path), content)
    return None if descriptor < 0 else Lock(path, descriptor, made)


def _is_free(descriptor: int, path: Path) -> bool:
    """Whether the lock is free; if the file system supports locks, this process then holds it."""
    free = hold(descriptor)
    if free is not None:
        return free
    holder = _read(path)
    return not holder or _is_dead(holder)


def _this_process() -> dict[str, object]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": without_passwords(shlex.join([Path(sys.argv[0]).name, *map(_without_values, sys.argv[1:])]))[:500],
    }


def _without_values(word: str) -> str:
    """Return a word of a command without what is in braces: `--extra-body` may hold a key."""
    return re.sub(r"\{.+\}", "{...}", word, flags=re.DOTALL)


def _read(path: Path) -> dict[str, Any]:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # Just being taken or released.
    return holder if isinstance(holder, dict) else {}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the process is known to have ended; unknown (False) for another host."""
    process = holder.get("process")
    if not isinstance(process, int) or process <= 0 or holder.get("host") != socket.gethostname():
        return False
    return has_ended(process)


def _described(holder: dict[str, Any], path: Path) -> str:
    if not holder:
        return "another process"
    process = f"process {holder.get('process')} on {holder.get('host')} since {holder.get('since')}"
    command = f" ({holder['command']})" if holder.get("command") else ""
    if _is_dead(holder):
        return f"{process}{command}; it has ended, but its child processes are still running"
    cannot_tell = holder.get("host") != socket.gethostname() or sys.platform == "win32"
    return f"{process}{command}" + (f"; if it has ended, delete {path}" if cannot_tell else "")
