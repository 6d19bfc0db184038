"""Jobs spread over workers. A job that fails, or whose process dies, does not stop the others.

The workers are processes of this machine with one thread each, which end with this one, also when it is killed; or
tasks on a Ray cluster, each with one GPU, where the cluster has some, or one processor. The machines of a cluster share
the study's folder and its data (a network disk) under the same names: jobs read and write files there, as the processes
of one machine do. A task whose machine or process is lost is started again by Ray, and its training resumes from the
last checkpoint.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from degla.errors import DeglaError
from degla.locks import Lock
from degla.ray import RETRIES, open_ray
from degla.stopping import Interruption, leave_signals

Given = TypeVar("Given")
Made = TypeVar("Made")
_PATIENCE: Final = 120.0
"""Seconds that a process has to write its checkpoint after it was asked to stop."""
_PASSED_ON: Final = "DEGLA_"
"""How variables begin that tasks of a cluster get too, such as the one of `--allow-download`."""


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


class JobWorker(Protocol):
    """Does one job after another.

    Attributes:
        number: of the job that it has; None where it has none.
        alive: False where it takes no further job.
    """

    number: int | None
    alive: bool

    def give(self, number: int, job: Any) -> None:
        """Start a job."""

    def look(self) -> Ended[Any] | None:
        """How the job ended, or None while it runs."""


AnyWorker = TypeVar("AnyWorker", bound=JobWorker)


class Workers(Protocol[AnyWorker]):
    """Where jobs are done."""

    def start(self) -> AnyWorker:
        """One more worker."""

    def wait(self, workers: Sequence[AnyWorker]) -> None:
        """Until one of them may have ended its job, or half a second."""

    def end(self, workers: Sequence[AnyWorker], *, patience: float) -> None:
        """End all, whatever they do; `patience`: seconds that a job has to save what it did."""


def default_processes() -> int:
    """One a processor that this process may run on; one alone where a GPU does the work."""
    import torch

    from degla.allowance import usable_cores

    return 1 if torch.cuda.is_available() else usable_cores()


def run_jobs(
    work: Callable[[Given], Made],
    jobs: Sequence[Given],
    *,
    processes: int,
    watcher: Watcher,
    held: Lock | None = None,
    workers: Workers[Any] | None = None,
) -> tuple[list[Ended[Made] | None], str]:
    """Run all jobs.

    Args:
        work: a function of a module; what it takes and gives is pickled.
        jobs: in the order of their starts.
        processes: workers at most, hence jobs at a time.
        watcher: told of progress; what it raises stops everything.
        held: of the folder that the jobs write to; the processes hold it too, so that it is free only when all ended.
        workers: those that do `work` elsewhere; None: processes of this machine.

    Returns:
        How each job ended (None: not at all, because of a signal), and the signal's name or "".
    """
    ends: list[Ended[Made] | None] = [None] * len(jobs)
    pending = deque(range(len(jobs)))
    place: Workers[Any] = LocalWorkers(work, held) if workers is None else workers
    all_of_them: list[JobWorker] = []
    with Interruption() as stop:
        try:
            while (pending or any(worker.number is not None for worker in all_of_them)) and stop.name is None:
                idle = [worker for worker in all_of_them if worker.number is None]
                while pending and (idle or len(all_of_them) < processes):
                    worker = idle.pop() if idle else place.start()
                    if worker not in all_of_them:
                        all_of_them.append(worker)
                    worker.give(number := pending.popleft(), jobs[number])
                place.wait(all_of_them)
                for worker in list(all_of_them):
                    if worker.number is None or (end := worker.look()) is None:
                        continue
                    ends[worker.number] = end
                    number, worker.number = worker.number, None
                    if not worker.alive:
                        all_of_them.remove(worker)
                    watcher.ended(number, end)
                watcher.look([worker.number for worker in all_of_them if worker.number is not None])
        finally:
            # After a signal a training run writes its checkpoint first.
            place.end(all_of_them, patience=_PATIENCE if stop.name else 0.0)
    return ends, stop.name or ""


class LocalWorkers:
    """Processes of this machine, of one thread each."""

    def __init__(self, work: Callable[[Any], Any], held: Lock | None) -> None:
        self._work, self._held = work, held

    def start(self) -> LocalWorker:
        """See `Workers`."""
        return LocalWorker(self._work, self._held)

    def wait(self, workers: Sequence[LocalWorker]) -> None:
        """See `Workers`."""
        wait([worker.connection for worker in workers], timeout=0.5)

    def end(self, workers: Sequence[LocalWorker], *, patience: float) -> None:
        """See `Workers`."""
        for worker in workers:
            worker.process.terminate()
            worker.connection.close()
        last = time.monotonic() + patience + 5
        for worker in workers:
            worker.process.join(max(0.0, last - time.monotonic()) if patience else 5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


class LocalWorker:
    """One process; see `JobWorker`."""

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
        """See `JobWorker`."""
        self.number, self.started = number, time.monotonic()
        with suppress(OSError):  # It has died: `look` says how.
            self.connection.send(job)

    def look(self) -> Ended[Any] | None:
        """See `JobWorker`."""
        seconds = time.monotonic() - self.started
        try:
            if not self.connection.poll():
                return None
            end: Ended[Any] = self.connection.recv()
            return replace(end, seconds=seconds)
        except (EOFError, OSError):
            self.alive = False
            self.process.join()
            code = self.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            more = "; often the memory was full: try fewer --processes" if how == "SIGKILL" else ""
            return Ended(error=f"its process ended with {how}{more}", seconds=seconds)


def try_job(work: Callable[[Given], Made], job: Given) -> Ended[Made]:
    """Do a job in this process, with one thread; how long it takes is not measured here."""
    import torch

    torch.set_num_threads(1)
    logging.getLogger("degla").setLevel(logging.ERROR)
    try:
        return Ended(work(job))
    except DeglaError as error:
        return Ended(error=str(error))
    except Exception as error:
        return Ended(error=f"{type(error).__name__}: {error}", details=traceback.format_exc())


def _serve(work: Callable[[Any], Any], connection: Connection, held: Lock | None) -> None:
    leave_signals()
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            connection.send(try_job(work, job))
        except BrokenPipeError:
            return


class ClusterWorkers:
    """See `Workers`.

    Args:
        ray: the module, started.
        work: as `run_jobs` takes it; importable on all machines.
        folder: of the study; all machines must see it.
        size: tasks at a time, at most.
        gpus: of each task.
    """

    def __init__(self, ray: Any, work: Callable[[Any], Any], *, folder: Path, size: int, gpus: int) -> None:
        self._ray, self.size = ray, size
        variables = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        self._task = ray.remote(_do_task).options(
            num_cpus=1, num_gpus=gpus, max_retries=RETRIES, runtime_env={"env_vars": variables}
        )
        self._fixed = (work, Path.cwd(), folder.absolute(), socket.gethostname())

    def start(self) -> ClusterWorker:
        """See `Workers`."""
        return ClusterWorker(self._ray, lambda job: self._task.remote(job, *self._fixed))

    def wait(self, workers: Sequence[ClusterWorker]) -> None:
        """See `Workers`."""
        busy = [worker.task for worker in workers if worker.number is not None]
        if busy:
            self._ray.wait(busy, timeout=0.5)

    def end(self, workers: Sequence[ClusterWorker], *, patience: float) -> None:
        """See `Workers`."""
        busy = [worker.task for worker in workers if worker.number is not None]
        for task in busy:
            # Ctrl-C in the worker, on which a training saves a checkpoint; without patience its end.
            self._ray.cancel(task, force=not patience)
        if busy and patience:
            _, still = self._ray.wait(busy, num_returns=len(busy), timeout=patience)
            for task in still:
                self._ray.cancel(task, force=True)


class ClusterWorker:
    """The place of one task at a time; see `JobWorker`."""

    def __init__(self, ray: Any, submit: Callable[[Any], Any]) -> None:
        self._ray, self._submit = ray, submit
        self.task: Any = None
        self.number: int | None = None
        self.started = 0.0
        self.alive = True

    def give(self, number: int, job: Any) -> None:
        """See `JobWorker`."""
        self.number, self.started, self.task = number, time.monotonic(), self._submit(job)

    def look(self) -> Ended[Any] | None:
        """See `JobWorker`."""
        if not self._ray.wait([self.task], timeout=0)[0]:
            return None
        seconds = time.monotonic() - self.started
        try:
            end: Ended[Any] = self._ray.get(self.task)
            return replace(end, seconds=seconds)
        except self._ray.exceptions.RayError as lost:
            reason = str(lost).strip().splitlines()[0]
            return Ended(error=f"Ray lost its process {1 + RETRIES} times: {reason}", seconds=seconds)


@contextmanager
def open_cluster(work: Callable[[Any], Any], *, folder: Path, processes: int | None) -> Iterator[ClusterWorkers]:
    """Workers of the cluster that `RAY_ADDRESS` names, or of a local one that ends with the block.

    Args:
        work: as `run_jobs` takes it.
        folder: of the study.
        processes: tasks at a time at most; None: one a GPU of the cluster, or one a processor where it has no GPU.

    Raises:
        InputError: Ray is not installed.
    """
    with open_ray(processes) as ray:
        has = ray.cluster_resources()
        gpus = int(has.get("GPU", 0))
        size = processes or gpus or max(1, int(has.get("CPU", 1)))
        yield ClusterWorkers(ray, work, folder=folder, size=size, gpus=min(1, gpus))


def _do_task(job: Any, work: Callable[[Any], Any], start: Path, folder: Path, command: str) -> Ended[Any]:
    """One job, in a process of the cluster, in the folder that the command was started in."""
    for needed in (start, folder):
        if not needed.is_dir():
            return Ended(
                error=f"{socket.gethostname()} has no folder {needed}, which {command} has: --engine ray needs a disk "
                "that all machines share under one name."
            )
    os.chdir(start)
    return try_job(work, job)
