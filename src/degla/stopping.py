"""Processes: stop requests are handled where nothing is lost; workers run no script again and end with their parent.

A command that a signal stopped ends with the status that shells give to a process that a signal ended, 128 plus the
signal's number, so that a shell or batch system can distinguish "stopped" from "done".
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.reduction import ForkingPickler
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, Final, Self

from degla.errors import DeglaError

if TYPE_CHECKING:
    from multiprocessing.synchronize import Lock

SIGNALS = tuple(each for each in signal.Signals if each.name in ("SIGTERM", "SIGINT", "SIGHUP"))
"""Signals that ask to stop; Windows has no SIGHUP, which closing the terminal sends."""
_OF_TERMINAL = tuple(each for each in SIGNALS if each.name != "SIGTERM")
_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def status_of_signal(name: str) -> int:
    """Return the exit status of a command that saved its work on a signal, such as 130 for SIGINT; 0 for "", no
    signal."""
    return 128 + signal.Signals[name] if name else 0


class StoppedError(DeglaError):
    """A signal stopped the work, and what was done is saved; the message says how to continue."""

    def __init__(self, name: str, rest: str) -> None:
        super().__init__(f"stopped by {name}{rest}")
        self.exit_status = status_of_signal(name)


class Interruption:
    """Inside the ``with`` block, `SIGNALS` are only recorded; a second SIGINT raises KeyboardInterrupt.

    The first signal raises nothing, at whatever line it arrives, so that no data in transit is lost. A SIGHUP that was
    ignored, as under `nohup`, stays so.

    Args:
        wake: called at each signal, to wake up whatever is waiting.
        notice: written to stderr at the first SIGINT, which the user may otherwise take for ignored.

    Attributes:
        name: name of the signal received, or None.
    """

    def __init__(self, wake: Callable[[], None] = lambda: None, *, notice: str = "") -> None:
        self.name: str | None = None
        self._wake, self._notice = wake, notice
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only the main thread can handle signals
            for number in SIGNALS:
                if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.name is None and number == signal.SIGINT and self._notice:
            with suppress(OSError):
                os.write(2, f"\n{self._notice}\n".encode())  # Not by sys.stderr, which may be in the middle of a line.
        self.name = signal.Signals(number).name
        if self.name == "SIGHUP":
            _leave_closed_terminal()
        self._wake()


def _leave_closed_terminal() -> None:
    """Discard further output to a terminal that was closed: each line would raise an error, the last one of a progress
    bar too."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


class _Worker(SpawnProcess):
    """A process that does not import the caller's script, which would run again there without `if __name__ ==
    "__main__"`, and which is no file if it was read from stdin. No worker needs anything of it.

    Its arguments are sent after it was started: `multiprocessing` waits forever where it writes more than a pipe holds
    to a process that ended before it has read it. Signals of the terminal wait until it has called `end_with_parent`.
    """

    def start(self) -> None:
        """Start the process; `multiprocessing` takes the script to import from the module `__main__`."""
        self._reader, writer = WORKERS.Pipe(duplex=False)
        with writer:
            with self._reader, _STARTING, _terminal_blocked():
                script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
                try:
                    super().start()
                finally:
                    sys.modules["__main__"] = script
            with suppress(BrokenPipeError):  # It ended: its exit status and sentinel tell.
                writer.send_bytes(self._pickled)
        del self._pickled

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(vars(self))
        reader = state.pop("_reader")
        self._pickled = ForkingPickler.dumps(state)
        return _receive, (reader,)


@contextmanager
def _terminal_blocked() -> Iterator[None]:
    """Block the signals of the terminal in this thread and in processes that it starts, which inherit that.

    The process in which `multiprocessing` tracks the names of locks, the first thing that pools and queues need, is one
    of them. It ignores SIGINT and SIGTERM only; ended by a closed terminal, it would leave a traceback for each lock.
    """
    if sys.platform == "win32":
        yield
    else:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINAL)
        try:
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINAL)  # Starting it unblocks SIGINT in Python 3.11.
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _receive(reader: Connection) -> _Worker:
    with reader:
        try:
            state = reader.recv_bytes()
        except (EOFError, OSError):  # The parent was interrupted or killed.
            raise SystemExit(1) from None
    process = _Worker.__new__(_Worker)
    vars(process).update(pickle.loads(state))
    return process


_STARTING: Final = threading.Lock()
"""Held while `__main__` is another module: two threads could restore each other's."""


class _Workers(SpawnContext):
    Process = _Worker

    def Lock(self) -> Lock:  # noqa: N802
        """Create a lock, and before it the process that tracks its name."""
        with _terminal_blocked():
            return super().Lock()


WORKERS: Final = _Workers()
"""Starts worker processes as new interpreters, on every system and from every script."""


def end_with_parent() -> None:
    """End this process, which `multiprocessing` started, as soon as its parent ends.

    Linux can do this itself. On other systems, or if there is a process between the two, a thread waits until the pipe
    that the parent holds open is closed.
    """
    parent = parent_process()
    if parent is None:
        raise RuntimeError("only a process started by multiprocessing can end with its parent")
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # If the parent ended before this line, the thread sees that at once.
    threading.Thread(target=_end_after, args=(parent.sentinel,), name="end with parent", daemon=True).start()
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it, without a traceback.
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_TERMINAL)


def leave_signals() -> None:
    """Set up a worker process: it ends with its parent, and leaves to it the signals of the terminal, Ctrl-C and a
    hangup, which all processes receive."""
    for number in _OF_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
