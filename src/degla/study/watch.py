"""Progress of the jobs: a bar for each that runs and one for all on a terminal, a line a job elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from degla.errors import InputError
from degla.pages.words import duration
from degla.parse import parse_json, read_bytes
from degla.study.jobs import Chain, ChainResult, Job
from degla.study.workers import Ended

_ALL_SHOWN = 12
"""So few runs keep their bars when they are done."""


class Watch:
    """Shows the state of jobs, read from their metrics.

    Args:
        jobs: as given to `run_jobs`.
        log: where the lines go.
        when_ended: called with the number of a job and how it ended, once a job.
    """

    def __init__(
        self,
        jobs: Sequence[Chain],
        *,
        log: logging.Logger,
        when_ended: Callable[[int, Ended[ChainResult]], None],
    ) -> None:
        self._jobs, self._log, self._when_ended = jobs, log, when_ended
        self._console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
        )  # fmt: skip
        self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._total = self._bars.add_task("all runs", total=len(jobs), note="")
        shown = len(jobs) <= _ALL_SHOWN
        self._tasks: list[TaskID] = [
            self._bars.add_task(job.title, total=_steps(job), note="", start=False, visible=shown) for job in jobs
        ]
        self._started: set[int] = set()
        # Of several runs one after another, those that were measured.
        self._measured = {stage.title for job in jobs for stage in job.jobs if stage.measures[0].path.is_file()}
        self._done = 0
        self._worked = 0
        self._since = time.monotonic()

    def __enter__(self) -> Watch:
        # Lines would tear the bars; what has handlers of its own, such as a file, still gets them.
        self._log.propagate = not self._console.is_terminal
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        self._log.propagate = True

    def look(self, running: Sequence[int]) -> None:
        """Show how far the jobs that run are."""
        for number in running:
            task, job = self._tasks[number], self._jobs[number]
            if number not in self._started:
                self._started.add(number)
                self._bars.start_task(task)
                self._bars.update(task, visible=True)
            rows = [row for stage in job.jobs if (row := _last_metrics(stage)) is not None]
            done = sum(row["step"] for row in rows)
            if not rows:
                self._bars.update(task, note="starting" if _steps(job) else "evaluating")
            elif rows[-1]["step"] == _steps_of(job.jobs[len(rows) - 1]):
                self._bars.update(task, completed=done, note="evaluating")
            else:
                note = f"loss {_loss(rows[-1])}  {rows[-1].get('pairs_per_second', 0):.0f} pairs/s"
                self._bars.update(task, completed=done, note=note)
            self._tell_stages(job)

    def _tell_stages(self, job: Chain) -> None:
        for place, stage in enumerate(job.jobs, start=1):
            if len(job.jobs) > 1 and stage.title not in self._measured and stage.measures[0].path.is_file():
                self._measured.add(stage.title)
                self._log.info("%s: %s (%d of %d)", job.title, stage.label, place, len(job.jobs))

    def ended(self, number: int, end: Ended[ChainResult]) -> None:
        """Note the end of a job; a line in the log says what came of it."""
        job, task = self._jobs[number], self._tasks[number]
        self._tell_stages(job)
        self._done += 1
        fresh = end.value is None or any(each.trained or each.measured for each in end.value)
        self._worked += fresh
        told = end.error and f"failed: {end.error}"
        told = told or (f"done in {end.seconds:.0f} s" if fresh else "kept from before")
        notes = "; ".join(note for each in end.value or () for note in each.notes)
        left = ""
        if self._worked and self._done < len(self._jobs):
            each = (time.monotonic() - self._since) / self._worked
            left = f"; about {duration(each * (len(self._jobs) - self._done))} left"
        self._bars.update(
            task, note="failed" if end.error else "done", completed=_steps(job) or 1, total=_steps(job) or 1
        )
        self._bars.stop_task(task)
        if len(self._jobs) > _ALL_SHOWN:
            self._bars.update(task, visible=False)
        self._bars.update(self._total, completed=self._done, note=left.removeprefix("; "))
        line = f"{self._done} of {len(self._jobs)}: {job.title}: {told}" + (f" ({notes})" if notes else "")
        self._log.log(logging.ERROR if end.error else logging.INFO, "%s%s", line, left)
        self._when_ended(number, end)


def _steps(job: Chain) -> int | None:
    return sum(_steps_of(stage) for stage in job.jobs) or None


def _steps_of(run: Job) -> int:
    return (run.config and run.config.train.steps) or 0


def _loss(row: dict[str, Any]) -> str:
    return f"{row['loss']:.3f}" if "loss" in row else "?"


def _last_metrics(job: Job) -> dict[str, Any] | None:
    if job.config is None:
        return None
    path = Path(job.config.out or ".") / "metrics.jsonl"
    try:
        lines = read_bytes(path).splitlines()
        return dict(parse_json(lines[-1], where=str(path), constants=True)) if lines else None
    except (InputError, TypeError, ValueError):
        return None  # Not there yet, or a line is being written.
