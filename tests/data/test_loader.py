"""The decoding workers: their number, and that they end with the training that started them."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import threading
import weakref
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Lock
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader

from degla.data.loader import EpochSampler, _start_worker, choose_workers, make_loader
from degla.data.plan import BatchPlan
from degla.errors import DeglaError
from degla.stopping import WORKERS
from tests.launch import FORKS


def decode(connection: Connection) -> None:
    """Start like a loader's worker, then run forever."""
    _start_worker(0)
    connection.send(os.getpid())
    threading.Event().wait()


def train(connection: Connection) -> None:
    """Start a loader's worker, as torch does on Linux, and wait to be killed."""
    get_context("fork").Process(target=decode, args=(connection,)).start()
    threading.Event().wait()


def test_workers_leave_the_signals_of_the_terminal_to_the_training() -> None:
    """A forked worker has the training's handlers: each printed on Ctrl-C that it stops, and raised at the second."""
    here, there = FORKS.Pipe()
    worker = FORKS.Process(target=decode, args=(there,))
    worker.start()
    lines = Path(f"/proc/{here.recv()}/status").read_text().splitlines()
    worker.kill()
    worker.join()
    ignored = int(next(line.split()[1] for line in lines if line.startswith("SigIgn:")), 16)
    assert all(ignored >> number - 1 & 1 for number in (signal.SIGINT, signal.SIGHUP))
    assert not ignored >> signal.SIGTERM - 1 & 1


def test_workers_leave_the_first_sigterm_to_the_training() -> None:
    """`timeout` sends it to all processes: without its workers a training ended in an error and lost its steps."""
    here, there = FORKS.Pipe()
    worker = FORKS.Process(target=decode, args=(there,))
    worker.start()
    here.recv()
    worker.terminate()
    worker.join(0.5)
    assert worker.is_alive()
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == -signal.SIGTERM


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


@pytest.mark.parametrize(
    ("processors", "local", "on_gpu", "streams", "expected"),
    [(16, 1, True, 1, 8), (16, 4, True, 1, 3), (16, 4, True, 2, 1), (2, 4, True, 1, 1), (64, 8, True, 1, 7),
     (2, 1, False, 1, 0), (8, 2, False, 1, 1), (8, 4, False, 1, 0)],
)  # fmt: skip
def test_workers_are_chosen_from_the_processors_of_each_process(
    processors: int, local: int, on_gpu: bool, streams: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
    assert choose_workers("auto", on_gpu=on_gpu, streams=streams) == expected
    assert choose_workers(5, on_gpu=on_gpu, streams=streams) == 5


def test_a_batch_that_cannot_be_sent_ends_the_training() -> None:
    """multiprocessing drops it, as where /dev/shm is full, and the training waited for it forever."""
    sampler = EpochSampler(BatchPlan(range(4), batch_size=2, seed=0), 0)
    pairs: Any = dict.fromkeys((0, row) for row in range(4))
    unsendable: Any = lambda pairs: threading.Lock()  # noqa: E731
    loader = make_loader(pairs, sampler, collate=unsendable, workers=1)
    loader.timeout = 60
    with pytest.raises(RuntimeError, match=r"^DataLoader worker"):
        next(iter(loader))


def test_workers_without_shared_memory_are_refused_in_one_line() -> None:
    sampler = EpochSampler(BatchPlan(range(4), batch_size=2, seed=0), 0)
    loader = make_loader(range(4), sampler, workers=1)  # type: ignore[arg-type]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # A semaphore is a file in /dev/shm.
    try:
        with pytest.raises(DeglaError, match=r"cannot start: File too large .*--data\.workers 0"):
            next(iter(loader))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_locks_that_try_shared_memory_leave_it_to_those_of_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = EpochSampler(BatchPlan(range(4), batch_size=2, seed=0), 0)
    loader, locks = make_loader(range(4), sampler, workers=1), list[weakref.ref[Any]]()  # type: ignore[arg-type]

    def make() -> Any:
        lock = Lock(ctx=get_context())
        locks.append(weakref.ref(lock))
        return lock

    context = SimpleNamespace(Lock=make)
    monkeypatch.setattr(type(loader), "multiprocessing_context", context)
    monkeypatch.setattr(DataLoader, "__iter__", lambda _: iter([len(locks), sum(each() is not None for each in locks)]))
    assert list(loader) == [11, 0]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_are_not_forked_do_not_run_the_callers_script(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS spawns, Linux uses a server from Python 3.14 on; a training script without a guard waited forever."""
    monkeypatch.setattr("degla.data.loader.get_start_method", lambda: method)
    sampler = EpochSampler(BatchPlan(range(4), batch_size=2, seed=0), 0)
    assert make_loader(range(4), sampler, workers=1).multiprocessing_context is WORKERS  # type: ignore[arg-type]


def test_without_workers_the_caller_can_still_set_how_processes_start() -> None:
    code = """
import multiprocessing
from degla.data.loader import EpochSampler, make_loader
from degla.data.plan import BatchPlan
from degla.errors import DeglaError
make_loader(range(4), EpochSampler(BatchPlan(range(4), batch_size=2, seed=0), 0))
print(multiprocessing.get_start_method(allow_none=True))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "None\n"
