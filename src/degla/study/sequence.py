"""Tasks in sequence from end to end: plan in; results, the matrices of every arm, a plot and pages out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from degla.errors import DeglaError
from degla.evaluation.results import load_result
from degla.evaluation.terminal import named_scores
from degla.files import write_json, write_text
from degla.locks import lock
from degla.pages.plot import standing_alone
from degla.statistics.seeds import QuestionVariance
from degla.study.conduct import check_base, open_log
from degla.study.items import named_items
from degla.study.retention import Retention, retention_questions
from degla.study.sequence_jobs import Learnt, SequenceJob, learn, sequence_jobs
from degla.study.sequence_page import as_data, draw_sequence, page_of
from degla.study.sequence_plan import SequencePlan
from degla.study.workers import Ended, default_processes, run_jobs

log = logging.getLogger("degla.study")


@dataclass(frozen=True)
class Sequences:
    """What came of a plan of tasks."""

    plan: SequencePlan
    arms: tuple[Retention, ...]
    failures: tuple[tuple[str, str], ...]
    """Title of each arm and seed that came to nothing, and why."""


def conduct_sequences(
    plan: SequencePlan, *, out: Path, where: str, command: str = "", processes: int | None = None
) -> Sequences:
    """Do what is left of a plan, and write its pages.

    Writes under `out`: ``continual.html``, ``continual.md``, ``continual.json``, ``continual.svg``; ``results/`` with
    a file a task, arm and seed; ``runs/`` with the models; ``data/`` with what was drawn; ``study.log``.

    Args:
        plan: what is learnt.
        out: folder; what an earlier call made there of the same is kept.
        where: names the plan's file in messages.
        command: how to make it again, for the page.
        processes: at most so many sequences at a time, with one thread each; None: one a processor.

    Raises:
        InputError: the plan does not fit its data, or names a score that the benchmarks do not have; or another process
            holds the folder.
        DeglaError: the base could not be measured, no sequence came to an end, or a signal stopped everything.
    """
    with lock(out) as held, open_log(out):
        jobs = sequence_jobs(plan, out=out, where=where)
        log.info("%s: %d sequences of %d tasks, results in %s", where, len(jobs) - 1, len(plan.tasks), out)
        watch = _Watch(jobs, plan, where=where)
        ends, signal = run_jobs(learn, jobs, processes=processes or default_processes(), watcher=watch, held=held)
        if signal:
            raise DeglaError(f"stopped by {signal}; the same command goes on where it stopped.")
        found = _found(plan, jobs, ends)
        _write(found, out, command=command)
        return found


class _Watch:
    """Tells of each task that was learnt, and stops at once where the base has not the scores that the plan names."""

    def __init__(self, jobs: Sequence[SequenceJob], plan: SequencePlan, *, where: str) -> None:
        self._jobs, self._plan, self._where = jobs, plan, where
        self._told = {job.measures[0].path for each in jobs for job in each.jobs if job.measures[0].path.is_file()}
        self._done = 0

    def look(self, running: Sequence[int]) -> None:
        for number in running:
            job = self._jobs[number]
            for place, each in enumerate(job.jobs, start=1):
                path = each.measures[0].path
                if each.config is not None and path not in self._told and path.is_file():
                    self._told.add(path)
                    task = self._plan.tasks[place - 1].name
                    log.info("%s: learnt %s (%d of %d)", job.title, task, place, len(job.jobs))

    def ended(self, number: int, end: Ended[Any]) -> None:
        self.look([number])
        self._done += 1
        job = self._jobs[number]
        if number == 0:
            tasks = [(f"task {task.name!r}", task.measure) for task in self._plan.tasks]
            wanted = [*tasks, *(("field 'also'", name) for name in self._plan.also)]
            check_base(end, job.jobs[0], wanted, where=self._where)
        value: Learnt | None = end.value
        told = f"failed: {end.error}" if end.error else f"done in {end.seconds:.0f} s"
        if value is not None and not any(each.trained or each.measured for each in value.tasks):
            told = "kept from before"
        notes = "; ".join(note for each in value.tasks for note in each.notes) if value is not None else ""
        line = f"{self._done} of {len(self._jobs)}: {job.title}: {told}" + (f" ({notes})" if notes else "")
        log.log(logging.ERROR if end.error else logging.INFO, "%s", line)
        if end.details:
            log.debug("%s", end.details)


def _found(plan: SequencePlan, jobs: Sequence[SequenceJob], ends: Sequence[Ended[Learnt] | None]) -> Sequences:
    base = named_scores(load_result(jobs[0].jobs[0].measures[0].path))
    rows: dict[str, dict[int, list[dict[str, float]]]] = {arm.name: {} for arm in plan.arms}
    files: dict[str, list[list[Path]]] = {arm.name: [] for arm in plan.arms}
    start = jobs[0].jobs[0].measures[0].path
    seconds: dict[str, list[float]] = {arm.name: [] for arm in plan.arms}
    failures = []
    for job, end in zip(jobs[1:], ends[1:], strict=True):
        assert job.seed is not None
        if end is None or end.value is None or not end.value.finished:
            failures.append((job.title, end.error if end is not None and end.error else "not finished"))
            continue
        results = [named_scores(load_result(each.measures[0].path)) for each in job.jobs]
        rows[job.arm][job.seed] = [base, *results]
        files[job.arm].append([each.measures[0].path for each in job.jobs])
        seconds[job.arm].append(sum(done.cost.seconds for done in end.value.tasks if done.cost is not None))
    arms = []
    for arm, by_seed in rows.items():
        if not by_seed:
            continue
        matrices = tuple(
            tuple(tuple(scores[task.measure] for task in plan.tasks) for scores in each) for each in by_seed.values()
        )
        also = {name: tuple(tuple(scores[name] for scores in each) for each in by_seed.values()) for name in plan.also}
        cost = sum(seconds[arm]) / len(seconds[arm])
        questions = _questions(plan, [[start], *map(list, zip(*files[arm], strict=True))], label=arm)
        arms.append(Retention(arm, tuple(by_seed), matrices, also, seconds=cost, questions=questions))
    if not arms:
        told = "; ".join(f"{title}: {error}" for title, error in failures[:3])
        raise DeglaError(f"no sequence came to an end: {told}.")
    return Sequences(plan, tuple(arms), tuple(failures))


def _questions(plan: SequencePlan, stages: Sequence[Sequence[Path]], *, label: str) -> dict[str, QuestionVariance]:
    """What other questions would do; `stages`: results over seeds before the first task and after each."""
    tasks = [task.measure for task in plan.tasks]
    scores = [
        named_items([load_result(path, items=True) for path in paths], [*tasks, *plan.also], where=label)[0]
        for paths in stages
    ]
    return retention_questions(scores, tasks, plan.also)


def _write(found: Sequences, out: Path, *, command: str) -> None:
    data = as_data(found.plan, found.arms, found.failures, command=command)
    write_json(out / "continual.json", data, indent=1)
    page = page_of(found.plan, found.arms, found.failures, command=command)
    write_text(out / "continual.html", page.html())
    write_text(out / "continual.md", page.markdown())
    write_text(out / "continual.svg", standing_alone(draw_sequence(found.plan, found.arms)) + "\n")
