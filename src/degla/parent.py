"""Processes that end with the one that started them, even when that one is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


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


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
