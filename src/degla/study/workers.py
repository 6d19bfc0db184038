"""Jobs spread over processes of one thread each. A job that fails, or whose process dies, does not stop the others.

The processes end with this one, also when it is killed.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

from degla.errors import DeglaError
from degla.locks import Lock
from degla.stopping import leave_signals
from degla.training.loop import StopRequest

Given = TypeVar("Given")
Made = TypeVar("Made")
_PATIENCE = 120.0
"""Seconds that a process has to write its checkpoint after it was asked to stop."""


@dataclass(frozen=True)
class Ended(Generic[Made]):
    """How a job ended: with a value, or with an error."""

    value: Made | None = None
    error: str = ""
    """One sentence; "" where there is a value."""
    details: str = ""
    """The traceback, where the error was not one that a user causes."""
    seconds: float = 0.0


class Watcher(Protocol):
    """Is told what happens."""

    def look(self, running: Sequence[int]) -> None:
        """About twice a second, with the numbers of the jobs that run."""

    def ended(self, number: int, end: Ended[Any]) -> None:
        """Once a job."""


def default_processes() -> int:
    """One a processor; one alone where a GPU does the work."""
    import torch

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def run_jobs(
    work: Callable[[Given], Made],
    jobs: Sequence[Given],
    *,
    processes: int,
    watcher: Watcher,
    held: Lock | None = None,
) -> tuple[list[Ended[Made] | None], str]:
    """Run all jobs.

    Args:
        work: a function of a module; what it takes and gives is pickled.
        jobs: in the order of their starts.
        processes: at most so many at a time, each with one thread.
        watcher: told of progress; what it raises stops everything.
        held: of the folder that the jobs write to; the processes hold it too, so that it is free only when all ended.

    Returns:
        How each job ended (None: not at all, because of a signal), and the signal's name or "".
    """
    ends: list[Ended[Made] | None] = [None] * len(jobs)
    pending = deque(range(len(jobs)))
    workers: list[_Worker] = []
    with StopRequest() as stop:
        try:
            while (pending or any(worker.number is not None for worker in workers)) and stop.name is None:
                idle = [worker for worker in workers if worker.number is None]
                while pending and (idle or len(workers) < processes):
                    worker = idle.pop() if idle else _Worker(work, held)
                    if worker not in workers:
                        workers.append(worker)
                    worker.give(number := pending.popleft(), jobs[number])
                wait([worker.connection for worker in workers], timeout=0.5)
                for worker in list(workers):
                    if worker.number is None or (end := worker.look()) is None:
                        continue
                    ends[worker.number] = end
                    number, worker.number = worker.number, None
                    if not worker.alive:
                        workers.remove(worker)
                    watcher.ended(number, end)
                watcher.look([worker.number for worker in workers if worker.number is not None])
        finally:
            # After a signal a training run writes its checkpoint first.
            _end(workers, patience=_PATIENCE if stop.name else 0.0)
    return ends, stop.name or ""


class _Worker:
    """One process that does one job after another."""

    def __init__(self, work: Callable[[Any], Any], held: Lock | None) -> None:
        context = get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, other, held), daemon=True)
        self.process.start()
        other.close()
        self.number: int | None = None
        self.started = 0.0
        self.alive = True

    def give(self, number: int, job: Any) -> None:
        self.number, self.started = number, time.monotonic()
        with suppress(OSError):  # It has died: `look` says how.
            self.connection.send(job)

    def look(self) -> Ended[Any] | None:
        """How the job ended, or None while it runs."""
        seconds = time.monotonic() - self.started
        try:
            if not self.connection.poll():
                return None
            value, error, details = self.connection.recv()
        except (EOFError, OSError):
            self.alive = False
            self.process.join()
            code = self.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            more = "; often the memory was full: try fewer --processes" if code == -signal.SIGKILL else ""
            return Ended(error=f"its process ended with {how}{more}", seconds=seconds)
        return Ended(value, error, details, seconds)


def _serve(work: Callable[[Any], Any], connection: Connection, held: Lock | None) -> None:
    leave_signals()
    import torch

    torch.set_num_threads(1)
    logging.getLogger("degla").setLevel(logging.ERROR)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            made = (work(job), "", "")
        except DeglaError as error:
            made = (None, str(error), "")
        except Exception as error:
            made = (None, f"{type(error).__name__}: {error}", traceback.format_exc())
        try:
            connection.send(made)
        except BrokenPipeError:
            return


def _end(workers: Sequence[_Worker], *, patience: float) -> None:
    for worker in workers:
        worker.process.terminate()
        worker.connection.close()
    last = time.monotonic() + patience + 5
    for worker in workers:
        worker.process.join(max(0.0, last - time.monotonic()) if patience else 5)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
