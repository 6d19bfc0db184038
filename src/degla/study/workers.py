"""Distribute jobs over workers. A job that fails, or whose process dies, does not stop the others.

Workers are processes on this machine with one thread each, which end with this process, even if it is killed; or tasks
on a Ray cluster, each with one GPU if the cluster has GPUs, otherwise one processor. The machines of a cluster must
share the study's folder and its data under the same paths (a network disk): jobs read and write files there, as
processes on one machine do. Ray restarts a task whose machine or process is lost, and its training resumes from the
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
from multiprocessing import current_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from degla.allowance import RUNS, usable_cores
from degla.errors import DeglaError, error_of_memory, error_of_system
from degla.locks import Lock
from degla.ray import RETRIES, open_ray
from degla.shelf import own_errors
from degla.stopping import WORKERS, Interruption, leave_signals

log = logging.getLogger("degla.study")
Given = TypeVar("Given")
Made = TypeVar("Made")
_STOPPING: Final = "stopping when what is running has saved its work. Ctrl-C again: stop at once."
_PATIENCE: Final = 120.0
"""Seconds that a process gets to write its checkpoint after the request to stop."""
_PASSED_ON: Final = "DEGLA_"
"""Prefix of environment variables passed to cluster tasks, such as the one of `--allow-download`."""


@dataclass(frozen=True)
class Ended(Generic[Made]):
    """How a job ended: with a value, or with an error."""

    value: Made | None = None
    error: str = ""
    """One sentence; "" if there is a value."""
    details: str = ""
    """The traceback of a bug, here or in the user's own code."""
    seconds: float = 0.0


class JobWorker(Protocol):
    """Runs one job at a time.

    Attributes:
        number: number of its current job; None if it is idle.
        alive: False if it accepts no more jobs.
    """

    number: int | None
    alive: bool

    def give(self, number: int, job: Any) -> None:
        """Start a job."""

    def poll(self) -> Ended[Any] | None:
        """Return how the job ended, or None while it is running."""


AnyWorker = TypeVar("AnyWorker", bound=JobWorker)


class Workers(Protocol[AnyWorker]):
    """A place where jobs run."""

    def start(self) -> AnyWorker:
        """Start another worker."""

    def wait(self, workers: Sequence[AnyWorker]) -> None:
        """Wait until a worker may have finished its job, at most half a second."""

    def end(self, workers: Sequence[AnyWorker], *, patience: float) -> None:
        """End all workers, busy or idle; `patience` is the number of seconds that a job gets to save its work."""


def default_processes() -> int:
    """Return the number of processors that this process may use, or 1 if there is a GPU."""
    import torch

    return 1 if torch.cuda.is_available() else usable_cores()


def run_jobs(
    work: Callable[[Given], Made],
    jobs: Sequence[Given],
    *,
    processes: int,
    ended: Callable[[int, Ended[Made]], None],
    watch: Callable[[Sequence[int]], None] = lambda running: None,
    folder_lock: Lock | None = None,
    workers: Workers[Any] | None = None,
) -> tuple[list[Ended[Made] | None], str]:
    """Run all jobs.

    Args:
        work: module-level function; its argument and result are pickled.
        jobs: jobs in starting order.
        processes: largest number of workers, that is of parallel jobs.
        ended: called once per job, when it ends, with its number; an exception from it or from `watch` stops all.
        watch: called about twice per second with the numbers of the running jobs.
        folder_lock: lock of the folder that the jobs write to; the processes hold it too, so it is free once all ended.
        workers: workers that run `work` elsewhere; None: processes on this machine.

    Returns:
        How each job ended (None: a signal came first), and the signal's name or "".
    """
    ends: list[Ended[Made] | None] = [None] * len(jobs)
    pending = deque(range(len(jobs)))
    together = min(processes, len(jobs))
    place: Workers[Any] = LocalWorkers(work, folder_lock, together) if workers is None else workers
    started: list[JobWorker] = []
    with Interruption(notice=_STOPPING) as stop:
        try:
            while (pending or any(worker.number is not None for worker in started)) and stop.name is None:
                idle = [worker for worker in started if worker.number is None]
                while pending and (idle or len(started) < processes):
                    worker = idle.pop() if idle else place.start()
                    if worker not in started:
                        started.append(worker)
                    worker.give(number := pending.popleft(), jobs[number])
                place.wait(started)
                for worker in list(started):
                    if worker.number is None or (end := worker.poll()) is None:
                        continue
                    ends[worker.number] = end
                    number, worker.number = worker.number, None
                    if not worker.alive:
                        started.remove(worker)
                    ended(number, end)
                watch([worker.number for worker in started if worker.number is not None])
        finally:
            # After a signal a training run writes its checkpoint first.
            place.end(started, patience=_PATIENCE if stop.name else 0.0)
    return ends, stop.name or ""


class LocalWorkers:
    """Processes on this machine, with one thread each; `together` of them share its cores."""

    def __init__(self, work: Callable[[Any], Any], folder_lock: Lock | None, together: int = 1) -> None:
        self._arguments = work, folder_lock, together

    def start(self) -> LocalWorker:
        """See `Workers`."""
        return LocalWorker(*self._arguments)

    def wait(self, workers: Sequence[LocalWorker]) -> None:
        """See `Workers`."""
        # The connection of an idle process that died would always be ready.
        wait([worker.connection for worker in workers if worker.number is not None], timeout=0.5)

    def end(self, workers: Sequence[LocalWorker], *, patience: float) -> None:
        """See `Workers`."""
        for worker in workers:
            worker.process.terminate()
            worker.connection.close()
        last = time.monotonic() + patience + 5
        try:
            for worker in workers:
                worker.process.join(max(0.0, last - time.monotonic()) if patience else 5)
        finally:  # After a second Ctrl-C at once: `multiprocessing` would wait for them at the end, however long.
            for worker in workers:
                if worker.process.is_alive():
                    worker.process.kill()
                    worker.process.join()


class LocalWorker:
    """One process; see `JobWorker`."""

    def __init__(self, work: Callable[[Any], Any], folder_lock: Lock | None, together: int) -> None:
        self.connection, other = WORKERS.Pipe()
        self.process = WORKERS.Process(target=_serve, args=(work, other, folder_lock, together), daemon=True)
        self.process.start()
        other.close()
        self.number: int | None = None
        self.started = 0.0
        self.alive = True

    def give(self, number: int, job: Any) -> None:
        """See `JobWorker`."""
        self.number, self.started = number, time.monotonic()
        with suppress(OSError):  # It died: `poll` reports how.
            self.connection.send(job)

    def poll(self) -> Ended[Any] | None:
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
            more = "; it probably ran out of memory: try fewer --processes" if how == "SIGKILL" else ""
            return Ended(error=f"its process ended with {how}{more}", seconds=seconds)


def try_job(work: Callable[[Given], Made], job: Given) -> Ended[Made]:
    """Run a job in this process with one thread; its time is not measured here."""
    import torch

    torch.set_num_threads(1)
    logging.getLogger("degla").setLevel(logging.ERROR)
    try:
        with own_errors():
            return Ended(work(job))
    except DeglaError as error:
        return Ended(error=str(error), details=traceback.format_exc() if error.__cause__ else "")
    except OSError as error:
        return Ended(error=str(error_of_system(error)), details=traceback.format_exc())
    except Exception as error:
        if isinstance(error, MemoryError | RuntimeError) and (converted := error_of_memory(error)) is not None:
            return Ended(error=f"{converted} Or try fewer --processes.", details=traceback.format_exc())
        return Ended(error=f"{type(error).__name__}: {error}", details=traceback.format_exc())


def _serve(work: Callable[[Any], Any], connection: Connection, folder_lock: Lock | None, together: int) -> None:
    leave_signals()
    os.environ[RUNS] = str(together)
    current_process().daemon = False  # Training may start processes that load images, which a daemon may not.
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
        ray: the initialised Ray module.
        work: see `run_jobs`; importable on all machines.
        folder: folder of the study; all machines must share it.
        size: largest number of parallel tasks.
        gpus: GPUs per task.
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
            # Ctrl-C in the worker, on which training saves a checkpoint; without patience, kill it.
            self._ray.cancel(task, force=not patience)
        if busy and patience:
            _, still = self._ray.wait(busy, num_returns=len(busy), timeout=patience)
            for task in still:
                self._ray.cancel(task, force=True)


class ClusterWorker:
    """A slot for one task at a time; see `JobWorker`."""

    def __init__(self, ray: Any, submit: Callable[[Any], Any]) -> None:
        self._ray, self._submit = ray, submit
        self.task: Any = None
        self.number: int | None = None
        self.started = 0.0
        self.alive = True

    def give(self, number: int, job: Any) -> None:
        """See `JobWorker`."""
        self.number, self.started, self.task = number, time.monotonic(), self._submit(job)

    def poll(self) -> Ended[Any] | None:
        """See `JobWorker`."""
        if not self._ray.wait([self.task], timeout=0)[0]:
            return None
        seconds = time.monotonic() - self.started
        try:
            end: Ended[Any] = self._ray.get(self.task)
            return replace(end, seconds=seconds)
        except self._ray.exceptions.RayTaskError as error:  # For example, its machine lacks a package.
            text = str(error).strip()
            return Ended(error=f"Ray could not run it: {text.splitlines()[-1]}", details=text, seconds=seconds)
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0]
            return Ended(error=f"Ray lost its process {1 + RETRIES} times: {reason}", seconds=seconds)


@contextmanager
def open_cluster(work: Callable[[Any], Any], *, folder: Path, processes: int | None) -> Iterator[ClusterWorkers]:
    """Open workers on the cluster that `RAY_ADDRESS` names, or on a local one that ends with the block.

    Args:
        work: see `run_jobs`.
        folder: folder of the study.
        processes: largest number of parallel tasks; None: one per GPU of the cluster, or per processor without GPUs.

    Raises:
        InputError: Ray is not installed.
    """
    with open_ray(processes) as ray:
        has = ray.cluster_resources()
        gpus = int(has.get("GPU", 0))
        # Ray says this on its own log only, and the runs would seem to be under way.
        if ray.available_resources().get("GPU" if gpus else "CPU", 0) < 1:
            log.warning("the cluster has no free %s now: the runs wait for one", "GPU" if gpus else "processor")
        size = processes or gpus or max(1, int(has.get("CPU", 1)))
        yield ClusterWorkers(ray, work, folder=folder, size=size, gpus=min(1, gpus))


def _do_task(job: Any, work: Callable[[Any], Any], start: Path, folder: Path, command: str) -> Ended[Any]:
    """Run one job in a cluster process, in the folder that the command was started in."""
    for place in (start, folder):
        if not place.is_dir():
            return Ended(
                error=f"{socket.gethostname()} has no folder {place}, which exists on {command}. --engine ray needs a "
                "disk that all machines share under the same path."
            )
    os.chdir(start)
    return try_job(work, job)
