"""The processes that decode images end with the training that started them, also when it is killed."""

from __future__ import annotations

import os
import select
import threading
from multiprocessing import get_context
from multiprocessing.connection import Connection

from degla.data.loader import _start_worker
from tests.launch import FORKS


def decode(connection: Connection) -> None:
    """What a loader's process does first; then it works for ever."""
    _start_worker(0)
    connection.send(os.getpid())
    threading.Event().wait()


def train(connection: Connection) -> None:
    """Starts a loader's process, as torch does on Linux, and waits to be killed."""
    get_context("fork").Process(target=decode, args=(connection,)).start()
    threading.Event().wait()


def test_a_killed_training_leaves_no_process_behind() -> None:
    here, there = FORKS.Pipe()
    parent = FORKS.Process(target=train, args=(there,))
    parent.start()
    worker = os.pidfd_open(here.recv())
    assert not select.select([worker], [], [], 0)[0]
    parent.kill()
    parent.join()
    assert select.select([worker], [], [], 30)[0], "the worker still runs"
    os.close(worker)
