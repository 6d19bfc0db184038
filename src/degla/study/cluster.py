"""Jobs on a Ray cluster, each a task of its own with one GPU, where the cluster has some, or one processor.

The machines share the study's folder and its data (a network disk) under the same names: jobs read and write files
there, as the processes of one machine do. A task whose machine or process is lost is started again by Ray, and its
training resumes from the last checkpoint.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from degla.ray import RETRIES, open_ray
from degla.study.workers import Ended, try_job

_PASSED_ON: Final = "DEGLA_"
"""How variables begin that the tasks get too, such as the one of `--allow-download`."""


class ClusterWorkers:
    """See `workers.Workers`.

    Args:
        ray: the module, started.
        work: as `workers.run_jobs` takes it; importable on all machines.
        folder: of the study; all machines must see it.
        size: tasks at a time, at most.
        gpus: of each task.
    """

    def __init__(self, ray: Any, work: Callable[[Any], Any], *, folder: Path, size: int, gpus: int) -> None:
        self._ray, self.size = ray, size
        variables = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        self._task = ray.remote(_do).options(
            num_cpus=1, num_gpus=gpus, max_retries=RETRIES, runtime_env={"env_vars": variables}
        )
        self._fixed = (work, Path.cwd(), folder.absolute(), socket.gethostname())

    def start(self) -> ClusterWorker:
        """See `workers.Workers`."""
        return ClusterWorker(self._ray, lambda job: self._task.remote(job, *self._fixed))

    def wait(self, workers: Sequence[ClusterWorker]) -> None:
        """See `workers.Workers`."""
        busy = [worker.task for worker in workers if worker.number is not None]
        if busy:
            self._ray.wait(busy, timeout=0.5)

    def end(self, workers: Sequence[ClusterWorker], *, patience: float) -> None:
        """See `workers.Workers`."""
        busy = [worker.task for worker in workers if worker.number is not None]
        for task in busy:
            # Ctrl-C in the worker, on which a training saves a checkpoint; without patience its end.
            self._ray.cancel(task, force=not patience)
        if busy and patience:
            _, still = self._ray.wait(busy, num_returns=len(busy), timeout=patience)
            for task in still:
                self._ray.cancel(task, force=True)


class ClusterWorker:
    """The place of one task at a time; see `workers.JobWorker`."""

    def __init__(self, ray: Any, submit: Callable[[Any], Any]) -> None:
        self._ray, self._submit = ray, submit
        self.task: Any = None
        self.number: int | None = None
        self.started = 0.0
        self.alive = True

    def give(self, number: int, job: Any) -> None:
        """See `workers.JobWorker`."""
        self.number, self.started, self.task = number, time.monotonic(), self._submit(job)

    def look(self) -> Ended[Any] | None:
        """See `workers.JobWorker`."""
        if not self._ray.wait([self.task], timeout=0)[0]:
            return None
        seconds = time.monotonic() - self.started
        try:
            value, error, details = self._ray.get(self.task)
        except self._ray.exceptions.RayError as lost:
            reason = str(lost).strip().splitlines()[0]
            return Ended(error=f"Ray lost its process {1 + RETRIES} times: {reason}", seconds=seconds)
        return Ended(value, error, details, seconds)


@contextmanager
def open_cluster(work: Callable[[Any], Any], *, folder: Path, processes: int | None) -> Iterator[ClusterWorkers]:
    """Workers of the cluster that `RAY_ADDRESS` names, or of a local one that ends with the block.

    Args:
        work: as `workers.run_jobs` takes it.
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


def _do(job: Any, work: Callable[[Any], Any], start: Path, folder: Path, command: str) -> tuple[Any, str, str]:
    """One job, in a process of the cluster, in the folder that the command was started in."""
    for needed in (start, folder):
        if not needed.is_dir():
            error = (
                f"{socket.gethostname()} has no folder {needed}, which {command} has: --engine ray needs a disk that "
                "all machines share under one name."
            )
            return None, error, ""
    os.chdir(start)
    return try_job(work, job)
