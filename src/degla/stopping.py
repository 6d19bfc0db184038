"""How processes end: a request to stop is honoured where nothing is lost, and a child ends with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, Self

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


class Interruption:
    """Inside the ``with`` block SIGTERM and SIGINT only leave a note; a second SIGINT ends at once.

    Nothing is raised by the first, at whatever line it comes: so nothing is lost that was just being handed over.

    Args:
        told: called with each signal, so that what waits for something else waits no longer.

    Attributes:
        name: the signal that came, or None.
    """

    def __init__(self, told: Callable[[], None] = lambda: None) -> None:
        self.name: str | None = None
        self._told = told
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only it may handle signals
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        self._told()


def end_with_parent() -> None:
    """Let this process, which `multiprocessing` started, be killed as soon as its parent ends.

    Linux does so itself. Everywhere else, and where a process stands between the two, a thread waits for the end of
    the pipe that the parent holds open.
    """
    parent = parent_process()
    if parent is None:
        raise RuntimeError("only a process that multiprocessing started has a parent to end with")
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # If the parent ended before this line, the thread sees that at once.
    threading.Thread(target=_end_after, args=(parent.sentinel,), name="end with parent", daemon=True).start()


def leave_signals() -> None:
    """Begin a process that works for another: it ends with that one, which alone decides what Ctrl-C means.

    Ctrl-C goes to all processes of a terminal.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
