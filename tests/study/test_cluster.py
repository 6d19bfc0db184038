"""Jobs as tasks of a Ray cluster: the same ends as in processes. Needs the extra `ray`; starting one takes seconds."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from degla.study.cluster import ClusterWorkers, open_cluster
from degla.study.workers import run_jobs
from degla.training.loop import StopRequest
from tests.study.test_workers import Watcher


def work(job: tuple[str, Path]) -> tuple[str, str]:
    what, folder = job
    if what == "break":
        raise ZeroDivisionError("by nothing")
    if what == "die once" and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "wait":
        with StopRequest() as stop:
            (folder / "waiting").touch()
            while stop.name is None:
                time.sleep(0.01)
        (folder / "saved").touch()
    return what, str(Path.cwd())


class Stopping(Watcher):
    """Asks the command to stop once a job waits."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def look(self, running: Sequence[int]) -> None:
        if (self.folder / "waiting").exists():
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.xdist_group("ray")
def test_tasks_end_as_processes_do_and_a_lost_one_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    ray_cluster.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
    with open_cluster(work, folder=Path(), processes=2) as workers:
        jobs = [("die once", tmp_path), ("break", tmp_path), ("fine", tmp_path)]
        watcher = Watcher()
        (lost, broken, fine), stopped = run_jobs(
            work, jobs, processes=workers.size, watcher=watcher, workers=workers
        )  # fmt: skip
        assert stopped == "" and sorted(watcher.seen) == [0, 1, 2] and workers.size == 2
        assert lost is not None and lost.value == ("die once", str(tmp_path)) and (tmp_path / "died").exists()
        assert broken is not None and "ZeroDivisionError" in broken.error and "Traceback" in broken.details
        assert fine is not None and fine.value == ("fine", str(tmp_path))
        far = ClusterWorkers(ray_cluster, work, folder=tmp_path / "not shared", size=1, gpus=0)
        (unseen,), _ = run_jobs(work, [("fine", tmp_path)], processes=1, watcher=Watcher(), workers=far)
        assert unseen is not None and unseen.error.endswith("needs a disk that all machines share under one name.")
        ends, stopped = run_jobs(
            work, [("wait", tmp_path)], processes=1, watcher=Stopping(tmp_path), workers=workers
        )  # fmt: skip
        assert stopped == "SIGTERM" and ends == [None] and (tmp_path / "saved").exists()
