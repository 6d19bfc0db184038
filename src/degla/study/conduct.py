"""Run a study end to end: from a plan to results, one table, a frontier and paired tests, with progress output."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from degla.config.fields import unread_fields
from degla.config.run import TrainConfig
from degla.errors import DeglaError, InputError
from degla.evaluation.choice import require_score
from degla.evaluation.results import load_result
from degla.evaluation.terminal import named_scores
from degla.files import cannot_write
from degla.locks import Lock, lock
from degla.model.runs import checkpoints
from degla.pages.words import counted, duration
from degla.parse import open_file, parse_json
from degla.progress import TaskProgress, shows_bars
from degla.ray import Engine
from degla.stopping import StoppedError
from degla.study.gather import Model, gather
from degla.study.grid import Run, expand, file_name, titled
from degla.study.jobs import Chain, ChainResult, Job, Measure, StudyQuestions
from degla.study.materials import CurrentQuestions, Materials, digest_of, prepare
from degla.study.page import PAGES, write_all
from degla.study.plan import Plan
from degla.study.plan_file import Arm
from degla.study.record import refuse_newer
from degla.study.rehearsal.plan import forget_rehearsal, is_rehearsal, rehearse
from degla.study.standings import BASE
from degla.study.study import Study, drop_chosen, write_chosen
from degla.study.tuning import forget_rehearsed, sort_results, tune_all
from degla.study.workers import Ended, default_processes, open_cluster, run_jobs

log = logging.getLogger("degla.study")
_LAST_BYTES: Final = 1 << 16
_LOG: Final = "study.log"


def conduct(
    plan: Plan,
    *,
    out: Path,
    where: str,
    command: str = "",
    processes: int | None = None,
    engine: Engine = "local",
    rehearsed: bool = False,
) -> Study:
    """Run the remaining runs of a study, and write its page.

    Writes under `out`: ``study.html``, ``.md``, ``.json``, ``.tex``, ``frontier.svg``; ``results/`` with a file per
    model and seed; ``runs/`` with the models; ``data/``; ``study.log``; ``chosen.yaml`` if an arm has several settings.

    Args:
        plan: plan of the study.
        out: output folder; finished work of earlier calls is kept.
        where: name of the plan file for messages and the page.
        command: command that reproduces the study, for the page.
        processes: largest number of parallel runs, with one thread each; None: one per processor.
        engine: where the runs are executed.
        rehearsed: run it on a small model and the available data; see `degla.study.rehearsal`.

    Returns:
        The study, with its table, tests and failures.

    Raises:
        InputError: the plan does not fit its data or names a score that the benchmarks do not have, another process
            has locked the folder, or it is that of a training run, a demo, tasks in sequence or a newer version.
        DeglaError: the base could not be measured, or no run finished.
        StoppedError: a signal stopped the study.
    """
    rehearsal = None
    runs = expand(plan, where=where)
    with open_study(out) as (folder_lock, handler):
        refuse_newer(out / "study.json")
        if rehearsed:
            plan, rehearsal = rehearse(plan, out=out, where=where)
            runs = expand(plan, where=where)
        log.info("%s: %s, results in %s", where, counted(len(runs), "run"), out)
        for arm in plan.arms:  # Not `set`, which is for all arms together.
            log_unread_fields(arm, [run.config for run in runs if run.arm == arm.name])
        materials = prepare(plan, runs, out=out)
        current, requirements = CurrentQuestions(), [("field 'gain'", plan.gain), ("field 'kept'", plan.kept)]
        bases, tunings = _jobs(runs, materials, current, out=out, rehearsed=rehearsed)
        for job in bases:
            current.require_scores(job.questions, requirements, where=where)
        prepare_results([*bases, *tunings], out=out)
        chains = [job.alone for job in (*bases, *tunings)]
        check = partial(
            check_end, chains=chains, bases=len(bases), requirements=requirements, where=where, handler=handler
        )
        if not rehearsed and is_rehearsal(out):
            for job in (*bases, *tunings):
                forget_rehearsed(job)  # None may pass for a measurement while the others are still to come.
            forget_rehearsal(out)
        ends = run_chains(chains, when_ended=check, processes=processes, folder_lock=folder_lock, engine=engine)
        models, failures = _models(runs, bases, tunings, ends[len(bases) :])
        if len(models) == 1:
            errors = "; ".join(f"{title}: {error}" for title, error in failures[:3])
            raise DeglaError(f"no run finished: {errors}. Details are in {out / _LOG}.")
        study = Study(gather(plan, models, where=where, command=command, failures=failures, rehearsal=rehearsal))
        write_all(study, out)
        chosen = out / "chosen.yaml"
        if study.choice:
            write_chosen(plan, study.table, chosen)
        elif os.path.realpath(chosen) != os.path.realpath(where):
            drop_chosen(chosen)  # Of an earlier plan.
        log.info("open %s", out / "study.html")
        return study


@contextmanager
def open_study(out: Path, *, tasks: bool = False) -> Iterator[tuple[Lock, logging.Handler]]:
    """Lock a study's folder and log to it within the block.

    Args:
        out: the folder.
        tasks: whether it is one of tasks in sequence.

    Raises:
        InputError: the folder is locked or not writable, or holds a training run, a demo or the other kind of study:
            each would replace files of the other; or the folder has pages of that name but no study; or ``results``
            is a link to or into the folder of another study, whose results would be moved away as those of no model of
            this plan.
    """
    others = {
        "a training run": bool(checkpoints(out)),
        "a demo": is_demo(out),
        "a study": tasks and any(out.glob("runs/*/record.json")),
        "tasks in sequence": not tasks and any(out.glob("runs/*/*/record.json")),
    }
    for other, there in others.items():
        if there:
            raise InputError(f"{out}: already holds {other}. Choose another --out.")
    foreign = [] if tasks or _has_work(out) else [name for name in PAGES if (out / name).exists()]
    if foreign:
        raise InputError(
            f"{out}: holds {' and '.join(foreign)} of no study, which this one would replace. Choose another --out."
        )
    results = out / "results"
    if results.is_symlink():
        target = Path(os.path.realpath(results))  # Of a loop, Python 3.11 and 3.12 give no `resolve`.
        folders = (folder for folder in (target, *target.parents) if folder != out.resolve())
        if (study := next(filter(_has_study, folders), None)) is not None:
            raise InputError(
                f"{results}: is a link into another study, {study}, whose files it would move. Remove the link."
            )
    with (
        lock(out) as folder_lock,
        lock(results) if results.is_symlink() else nullcontext(),  # Other studies' folders may have the same link.
        open_log(out) as handler,
    ):
        yield folder_lock, handler


def _has_study(folder: Path) -> bool:
    """Whether a study wrote more into a folder than its log, which one that is refused leaves."""
    return (folder / _LOG).is_file() and _has_work(folder)


def _has_work(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("results", "runs", "study.json"))


def prepare_results(jobs: Sequence[Job], *, out: Path) -> None:
    """Prepare the results of earlier calls: those of other models than the plan's are moved away.

    Raises:
        InputError: results are missing, and so is the folder of the benchmarks' data; or results cannot be moved.
        DeglaError: the disk is full.
    """
    try:
        sort_results(jobs, out=out)
    except OSError as error:
        raise cannot_write(Path(error.filename or out), error, remedy="Choose another --out.") from None
    for job in jobs:
        if not job.has_results:
            job.questions.require()


def run_chains(
    chains: Sequence[Chain],
    *,
    when_ended: Callable[[int, Ended[ChainResult]], None],
    processes: int | None,
    folder_lock: Lock,
    log: logging.Logger = log,
    engine: Engine = "local",
) -> list[Ended[ChainResult] | None]:
    """Run all chains with progress output, and return how each ended.

    Args:
        chains: chains in starting order.
        when_ended: called with a chain's number and how it ended; an exception from it stops all.
        processes: largest number of parallel chains, with one thread each; None: one per processor.
        folder_lock: lock of the folder.
        log: logger for progress lines.
        engine: where they are executed; all machines of a cluster must share the locked folder.

    Raises:
        InputError: a cluster is requested, but Ray is not installed.
        StoppedError: a signal stopped them.
    """
    folder = folder_lock.path.parent
    far = nullcontext() if engine == "local" else open_cluster(tune_all, folder=folder, processes=processes)
    with far as workers, Watch(chains, log=log, when_ended=when_ended) as watch:
        most = processes or default_processes() if workers is None else workers.size
        ends, signal = run_jobs(
            tune_all, chains, processes=most, ended=watch.ended, watch=watch.show, folder_lock=folder_lock,
            workers=workers,
        )  # fmt: skip
    if signal:
        resume = all(job.resume for chain in chains for job in chain.jobs)
        remedy = "run the same command again to resume" if resume else "the same command starts these runs from scratch"
        raise StoppedError(signal, f"; {remedy}.")
    return ends


LINK: Final = "pictures"
"""Link in a demo's folder to the folder of the user's photographs."""
DRAWN: Final = "world"
"""Folder of the images that a demo draws."""


def is_demo(out: Path) -> bool:
    """Whether a demo was run in a folder."""
    return any((out / DRAWN).glob("benchmark-*")) or ((out / LINK).is_symlink() and (out / "own").is_dir())


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # a name of logging
        """Lose the line if the disk is full: the terminal has it, and what matters ends with an error of its own."""


def log_unread_fields(arm: Arm, configs: Sequence[TrainConfig]) -> None:
    """Log which of an arm's own fields none of its runs reads."""
    names = [name for name, value in arm.fields.items() if value]
    for sentence in sorted(set.intersection(*(set(unread_fields(names, config)) for config in configs))):
        log.info("arm %r: %s", arm.name, sentence.removeprefix("--"))


@contextmanager
def open_log(out: Path) -> Iterator[logging.Handler]:
    """Within the block, also log to ``study.log`` in the study's folder.

    Raises:
        InputError: the folder is not writable.
    """
    try:
        handler = _LogFile(out / _LOG, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: cannot write to the study folder: {error.strerror}.") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield handler
    finally:
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()


def _jobs(
    runs: Sequence[Run], materials: Sequence[Materials], current: CurrentQuestions, *, out: Path,
    rehearsed: bool = False,
) -> tuple[list[Job], list[Job]]:  # fmt: skip
    """Jobs that measure the bases, the plan's base first, and jobs of the runs, in order."""
    results = out / "results"
    digests: dict[Path, str] = {}
    bases: dict[tuple[str, StudyQuestions], Job] = {}
    jobs = []
    for run, data in zip(runs, materials, strict=True):
        base, questions = run.config.model, data.questions
        if rehearsed:  # The files that are present determine what is asked, and on which images.
            questions = replace(questions, digest=f"{questions.digest} {digest_of(questions.root, digests)}")
        if (base, questions) not in bases:
            title = titled(BASE, run.replicate)
            file = results / f"{file_name(BASE, None, run.replicate)}.json"
            bases[base, questions] = Job(
                label=title, base=base, config=None,
                inputs={name: digest for name, digest in data.inputs.items() if name == "base"},
                measures=(Measure(title, 1.0, file),), questions=questions, items=current.digests(questions),
                leakage=current.leakage((), base=base, questions=questions), rehearsed=rehearsed,
            )  # fmt: skip
        measures = tuple(
            Measure(titled(label, run.replicate), share, results / f"{file_name(label, run.seed, run.replicate)}.json")
            for share in run.shares
            for label in (run.model_label(share),)
        )
        label = titled(run.label, run.replicate)
        leakage = current.leakage((data.config,), base=base, questions=questions)
        start = replace(bases[base, questions], label=label, leakage=leakage)
        jobs.append(replace(start, config=data.config, inputs=data.inputs, measures=measures))
    return list(bases.values()), jobs


def check_end(
    number: int,
    end: Ended[ChainResult],
    *,
    chains: Sequence[Chain],
    bases: int,
    requirements: Iterable[tuple[str, str]],
    where: str,
    handler: logging.Handler,
) -> None:
    """Stop immediately if a base cannot be measured or lacks a score that the plan names.

    Args:
        number: number of the chain.
        end: how it ended.
        chains: all chains; those that measure bases come first.
        bases: number of bases.
        requirements: pairs of the place in the plan that names a score, for messages, and the score's name.
        where: name of the plan file for messages.
        handler: receives the details of failures.

    Raises:
        DeglaError: a base was not measured.
        InputError: the benchmarks have no such score.
    """
    if end.details:
        handler.handle(log.makeRecord(log.name, logging.ERROR, "", 0, end.details, (), None))
    if number >= bases:
        return
    job = chains[number].jobs[0]
    if end.value is None:
        raise DeglaError(f"the base model {job.base!r} could not be measured: {end.error}")
    scores = named_scores(load_result(job.measures[0].path))
    for place, name in requirements:
        require_score(f"{where}: {place}", name, scores)


def _models(
    runs: Sequence[Run], bases: Sequence[Job], jobs: Sequence[Job], ends: Sequence[Ended[ChainResult] | None]
) -> tuple[list[Model], list[tuple[str, str]]]:
    """The base and the models with runs of the plan itself, in its order; and failures as titles and causes."""
    failures = []
    start = Model(BASE, BASE, (), 1.0, {(None, ""): bases[0].measures[0].path})
    files = {(job.base, job.questions.root): job.measures[0].path for job in bases}
    models: dict[str, Model] = {}
    for run, job, end in zip(runs, jobs, ends, strict=True):
        value = end.value[0] if end is not None and end.value else None
        if value is None or not value.paths:
            error = end.error if end is not None and end.error else "; ".join(value.notes) if value else "not run"
            failures.append((job.title, error.rstrip(".")))
            continue
        replicate = run.replicate.title if run.replicate is not None else ""
        start.files[None, replicate] = files[job.base, job.questions.root]
        for measure in job.measures:
            label = run.model_label(measure.share)
            model = models.setdefault(label, Model(label, run.arm, run.setting, measure.share))
            model.files[run.seed, replicate] = measure.path
            if value.cost is not None and not replicate:
                model.costs.append(value.cost)
    # In the order of the plan, not of completion; a model that only replicates have gets no row.
    labels = dict.fromkeys(run.model_label(share) for run in runs for share in run.shares)
    return [start, *(models[label] for label in labels if label in models and models[label].own)], failures


class Watch:
    """Show the progress of chains, read from their metrics.

    Args:
        chains: as given to `run_jobs`.
        log: logger for progress lines.
        when_ended: called once per chain with its number and how it ended.
    """

    def __init__(
        self, chains: Sequence[Chain], *, log: logging.Logger, when_ended: Callable[[int, Ended[ChainResult]], None]
    ) -> None:
        self._chains, self._log, self._when_ended = chains, log, when_ended
        self._stack = ExitStack()
        # What an earlier call did counts as done, not as the speed of this one.
        self._steps = [_steps_of(chain) if _is_done(chain) else _steps_taken(chain) for chain in chains]
        self._running: list[str] = []
        # Jobs of a chain that have already been measured.
        self._measured = {job.title for chain in chains for job in chain.jobs if job.measures[0].path.is_file()}
        self._left = set(range(len(chains)))
        self._began: dict[int, float] = {}
        """Times at which the running chains were first seen."""
        self._seconds: list[float] = []
        """Of each chain that trained in this call."""

    def __enter__(self) -> Watch:
        # Log lines would break the progress bar; handlers of this logger, such as a file, still get them.
        self._log.propagate = not shows_bars()
        total = sum(map(_steps_of, self._chains))
        task = TaskProgress(True).task(
            "training steps", total, done=sum(self._steps), note=lambda: "; ".join(self._running)
        )
        self._advance = self._stack.enter_context(task)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._log.propagate = True

    def show(self, running: Sequence[int]) -> None:
        """Show the progress of the running chains."""
        now = time.monotonic()
        self._began = {number: self._began.get(number, now) for number in running}
        rows = {number: _last_rows(self._chains[number].jobs) for number in running}
        self._running = [self._describe(number, of_chain) for number, of_chain in rows.items()]
        for number, of_chain in rows.items():
            self._count(number, _steps_in(of_chain))
            self._tell_jobs(self._chains[number])

    def _describe(self, number: int, rows: Sequence[dict[str, Any]]) -> str:
        chain = self._chains[number]
        steps, done = _steps_of(chain), _steps_in(rows)
        if done >= steps > 0 or not _trains(chain):
            return f"{chain.title}: being measured"  # For minutes, maybe.
        loss = f", loss {rows[-1]['loss']:.3f}" if rows and "loss" in rows[-1] else ""
        return f"{chain.title}: {done}{f' of {steps}' if steps else ''}{loss}"

    def _count(self, number: int, steps: int) -> None:
        self._advance(steps - self._steps[number])
        self._steps[number] = steps

    def _tell_jobs(self, chain: Chain) -> None:
        for place, job in enumerate(chain.jobs, start=1):
            if len(chain.jobs) > 1 and job.title not in self._measured and job.measures[0].path.is_file():
                self._measured.add(job.title)
                self._log.info("%s: %s (%d of %d)", chain.title, job.label, place, len(chain.jobs))

    def ended(self, number: int, end: Ended[ChainResult]) -> None:
        """Record the end of a chain and log its outcome."""
        chain = self._chains[number]
        stopped = any(not each.paths for each in end.value or ())  # A signal to its process alone.
        finished = end.value is not None and not stopped  # Perhaps in fewer steps, by a --stop limit.
        self._count(number, _steps_of(chain) if finished else _steps_in(_last_rows(chain.jobs)))
        self._tell_jobs(chain)
        self._left.discard(number)
        fresh = end.value is None or any(each.trained or each.measured for each in end.value)
        if fresh and end.value and _trains(chain):
            self._seconds.append(end.seconds)
        if end.error:
            how = f"failed: {end.error.rstrip('.')}"
        elif stopped:
            how = "not finished"
        else:
            how = f"done in {end.seconds:.0f} s" if fresh else "already done"
        notes = "; ".join(note for each in end.value or () for note in each.notes)
        line = f"{len(self._chains) - len(self._left)} of {len(self._chains)}: {chain.title}: {how}"
        line += (f" ({notes})" if notes else "") + self._time_left(number)
        self._log.log(logging.ERROR if end.error or stopped else logging.INFO, "%s", line)
        self._when_ended(number, end)

    def _time_left(self, number: int) -> str:
        """Estimate the time left when a chain has ended, from those that trained in this call."""
        left = [other for other in self._left if _trains(self._chains[other])]
        if not self._seconds or not left:
            return ""
        each, now = fmean(self._seconds), time.monotonic()
        work = sum(max(0.0, each - (now - self._began.get(other, now))) for other in left)
        # The worker of the ended chain takes the next one.
        return f"; about {duration(work / min(len({*self._began, number}), len(left)))} left"


def _trains(chain: Chain) -> bool:
    return any(job.config is not None for job in chain.jobs)


def _steps_of(chain: Chain) -> int:
    return sum((job.config and job.config.train.steps) or 0 for job in chain.jobs)


def _is_done(chain: Chain) -> bool:
    return all(job.resume and job.has_results for job in chain.jobs)


def _steps_taken(chain: Chain) -> int:
    """Steps of jobs that were stopped, and go on from there."""
    return _steps_in(_last_rows(job for job in chain.jobs if job.resume))


def _steps_in(rows: Iterable[dict[str, Any]]) -> int:
    return sum(row["step"] for row in rows)


def _last_rows(jobs: Iterable[Job]) -> list[dict[str, Any]]:
    """The last metrics of each job that has some."""
    return [row for job in jobs if (row := _last_metrics(job)) is not None]


def _last_metrics(job: Job) -> dict[str, Any] | None:
    if job.config is None:
        return None
    path = Path(job.config.out or ".") / "metrics.jsonl"
    try:
        with open_file(path) as stream:  # Twice a second: the end of a long run's file is enough.
            stream.seek(max(stream.seek(0, os.SEEK_END) - _LAST_BYTES, 0))
            lines = stream.read().splitlines()
        return dict(parse_json(lines[-1], where=str(path), constants=True)) if lines else None
    except (InputError, OSError, TypeError, ValueError):
        return None  # Not written yet, or a line is incomplete.
