"""Run tasks in sequence end to end: from a plan to results, the matrices of every arm, a plot and pages.

A plan becomes one chain of jobs per arm and seed, with a training run and a measurement for each task.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from degla.config.fields import change
from degla.config.run import TrainConfig
from degla.errors import DeglaError
from degla.evaluation.caveats import of_training
from degla.evaluation.results import load_result
from degla.evaluation.terminal import named_scores
from degla.files import write_json, write_text
from degla.pages.plot import standalone_picture
from degla.pages.words import counted
from degla.ray import Engine
from degla.statistics.seeds import QuestionVariance
from degla.study.conduct import check_end, log_unread_fields, open_study, prepare_results, run_chains
from degla.study.gather import named_items
from degla.study.grid import file_name, refuse_shared, starting_config
from degla.study.jobs import Chain, ChainResult, Job, Measure, StudyQuestions
from degla.study.materials import (
    CurrentQuestions,
    digest_of,
    digest_of_base,
    digest_questions,
    digests_of_files,
    questions_of,
    short_digest,
    streams_of,
)
from degla.study.plan_file import Arm
from degla.study.retention import Retention, Sequences, as_data, draw_sequence, page_of, retention_questions
from degla.study.sequence_plan import SequencePlan, Task, WorldTasks
from degla.study.standings import BASE
from degla.study.workers import Ended
from degla.world.draw import MARKER, draw_benchmark
from degla.world.recognition import CLASS_TEMPLATE, draw_recognition

log = logging.getLogger("degla.study")


def conduct_sequences(
    plan: SequencePlan,
    *,
    out: Path,
    where: str,
    command: str = "",
    processes: int | None = None,
    engine: Engine = "local",
) -> Sequences:
    """Run the remaining sequences of a plan, and write its pages.

    Writes under `out`: ``continual.html``, ``continual.md``, ``continual.json``, ``continual.svg``; ``results/`` with
    a file per task, arm and seed; ``runs/`` with the models; ``data/`` with the drawn data; ``study.log``.

    Args:
        plan: plan of the tasks.
        out: output folder; finished work of earlier calls is kept.
        where: name of the plan file for messages.
        command: command that reproduces the study, for the page.
        processes: largest number of parallel sequences, with one thread each; None: one per processor.
        engine: where they are executed.

    Raises:
        InputError: the plan does not fit its data or names a score that the benchmarks do not have, another process
            has locked the folder, or it is that of a training run, a demo or a study.
        DeglaError: the base could not be measured, or no sequence finished.
        StoppedError: a signal stopped everything.
    """
    with open_study(out, tasks=True) as (folder_lock, handler):
        chains = sequence_chains(plan, out=out, where=where)
        what = f"{counted(len(chains) - 1, 'sequence')} of {counted(len(plan.tasks), 'task')}"
        log.info("%s: %s, results in %s", where, what, out)
        for arm in plan.arms:
            configs = [job.config for chain in chains if chain.label == arm.name for job in chain.jobs if job.config]
            log_unread_fields(arm, configs)
        requirements = [(f"task {task.name!r}", task.measure) for task in plan.tasks]
        requirements += [("field 'also'", name) for name in plan.also]
        CurrentQuestions().require_scores(chains[0].jobs[0].questions, requirements, where=where)
        prepare_results([job for chain in chains for job in chain.jobs], out=out)
        check = partial(check_end, chains=chains, bases=1, requirements=requirements, where=where, handler=handler)
        ends = run_chains(chains, when_ended=check, processes=processes, folder_lock=folder_lock, engine=engine)
        sequences = _sequences(plan, chains, ends)
        _write(sequences, out, command=command)
        return sequences


def _sequences(plan: SequencePlan, chains: Sequence[Chain], ends: Sequence[Ended[ChainResult] | None]) -> Sequences:
    start = chains[0].jobs[0].measures[0].path
    runs: dict[str, dict[int, tuple[list[Path], float]]] = {arm.name: {} for arm in plan.arms}
    failures = []
    for chain, end in zip(chains[1:], ends[1:], strict=True):
        assert chain.seed is not None
        results = end.value if end is not None and end.value is not None else ()
        if len(results) < len(chain.jobs) or not results[-1].paths:
            failures.append((chain.title, end.error.rstrip(".") if end is not None and end.error else "not finished"))
            continue
        seconds = sum(result.cost.seconds for result in results if result.cost is not None)
        runs[chain.label][chain.seed] = [start, *(job.measures[0].path for job in chain.jobs)], seconds
    arms = []
    for arm, by_seed in runs.items():
        if not by_seed:
            continue
        scores = [[named_scores(load_result(path)) for path in files] for files, _ in by_seed.values()]
        matrices = tuple(tuple(tuple(row[task.measure] for task in plan.tasks) for row in rows) for rows in scores)
        also = {name: tuple(tuple(row[name] for row in rows) for rows in scores) for name in plan.also}
        stages = [[start], *list(zip(*(files for files, _ in by_seed.values()), strict=True))[1:]]
        seconds = fmean(spent for _, spent in by_seed.values())
        questions = _questions(plan, stages, label=arm)
        arms.append(Retention(arm, tuple(by_seed), matrices, also, seconds=seconds, questions=questions))
    if not arms:
        errors = "; ".join(f"{title}: {error}" for title, error in failures[:3])
        raise DeglaError(f"no sequence finished: {errors}.")
    ends_of = [(BASE, start), *((arm.arm, files[-1]) for arm in arms for files, _ in runs[arm.arm].values())]
    caveats = dict.fromkeys(sentence for label, path in ends_of for sentence in _leaks(label, path))
    return Sequences(plan, tuple(arms), tuple(failures), tuple(caveats))


def _leaks(label: str, path: Path) -> Iterator[str]:
    result = load_result(path)
    return of_training(label, result.leakage, {entry.name: entry.title for entry in result.benchmarks})


def _questions(plan: SequencePlan, stages: Sequence[Sequence[Path]], *, label: str) -> dict[str, QuestionVariance]:
    """Variance over questions; `stages`: results over seeds before the first task and after each."""
    tasks = [task.measure for task in plan.tasks]
    scores = [
        named_items([load_result(path, items=True) for path in paths], [*tasks, *plan.also], where=label)[0]
        for paths in stages
    ]
    return retention_questions(scores, tasks, plan.also)


def _write(sequences: Sequences, out: Path, *, command: str) -> None:
    write_json(out / "continual.json", as_data(sequences, command=command), indent=1)
    page_of(sequences, command=command).write(out / "continual.html")
    write_text(out / "continual.svg", standalone_picture(draw_sequence(sequences)) + "\n")


def sequence_chains(plan: SequencePlan, *, out: Path, where: str) -> list[Chain]:
    """Return the base's measurement, then every arm of the first seed, of the second, and so on; draw the world if set.

    Args:
        plan: plan of the tasks.
        out: output folder.
        where: name of the plan file for messages.

    Raises:
        InputError: a value has the wrong type, two arms would share a file, or a file of the plan cannot be read.
    """
    refuse_shared([(file_name(arm.name, None), arm.name) for arm in plan.arms], where=where)
    data = [_task_fields(task, number, plan.world, out / "data") for number, task in enumerate(plan.tasks)]
    questions = _task_questions(plan, out / "data")
    digests: dict[Path, str] = {}
    current = CurrentQuestions()
    base = Job(
        label=BASE, base=plan.base, config=None, inputs=digest_of_base(plan.base, digests),
        measures=(Measure(BASE, 1.0, out / "results" / f"{BASE}.json"),), questions=questions,
        items=current.digests(questions), leakage=current.leakage((), base=plan.base, questions=questions),
    )  # fmt: skip
    chains = [Chain(BASE, None, (base,))]
    for seed in plan.seeds:
        for arm in plan.arms:
            jobs: list[Job] = []
            configs: list[TrainConfig] = []
            for number, task in enumerate(plan.tasks):
                name = f"{file_name(arm.name, seed)}/{number + 1}-{task.name}"
                config = _config(plan, arm, data[number], seed=seed, where=f"{where}: arm {arm.name!r}, {task.name!r}")
                inputs = base.inputs | _inputs(config, digests)
                config = replace(config, out=out / "runs" / name)
                label = f"{arm.name} after {task.name}"
                measure = Measure(label, 1.0, out / "results" / f"{name}.json")
                configs.append(config)
                leakage = current.leakage(configs, base=plan.base, questions=questions)
                jobs.append(
                    replace(base, label=label, config=config, inputs=inputs, measures=(measure,), leakage=leakage)
                )
            chains.append(Chain(arm.name, seed, tuple(jobs)))
    return chains


def _config(plan: SequencePlan, arm: Arm, task: Mapping[str, Any], *, seed: int, where: str) -> TrainConfig:
    config = change(starting_config(arm, base=plan.base), plan.set, where=where)
    config = change(config, arm.fields, where=where)
    own = {name: value for name, value in task.items() if config.replay.active or not name.startswith("replay.")}
    config = change(config, own, where=where)
    return replace(config, train=replace(config.train, seed=seed))


def _inputs(config: TrainConfig, digests: dict[Path, str]) -> dict[str, str]:
    """Digests of the training data; images, of which there may be many, by the name of their folder."""
    inputs = digests_of_files(config, digests)
    for prefix, data in streams_of(config).items():
        if data.images is not None:
            marker = data.images / MARKER
            inputs[prefix + "images"] = digest_of(marker, digests) if marker.is_file() else str(data.images)
    return inputs


def _task_fields(task: Task, number: int, world: WorldTasks | None, folder: Path) -> dict[str, Any]:
    """Training-configuration fields of a task; draws its images and those to replay."""
    if world is None or task.domain is None:
        return task.fields
    paths = draw_recognition(
        folder / f"{task.name}-{task.domain}-{task.style}-{world.images_per_class}",
        domains=(task.domain,),
        style=task.style,
        images_per_class=world.images_per_class,
    )
    count = world.replay_images_per_class
    again = draw_recognition(
        folder / f"replay-{number + 1}-{'-'.join(world.replay_domains)}-{count}",
        domains=world.replay_domains,
        images_per_class=count,
        seed=number + 1,
    )
    own = {
        "data.captions": paths.captions, "data.images": paths.images, "data.classes": paths.classes,
        "data.class_template": CLASS_TEMPLATE,
        "replay.data.captions": again.captions, "replay.data.images": again.images,
    }  # fmt: skip
    return own | task.fields


def _task_questions(plan: SequencePlan, folder: Path) -> StudyQuestions:
    if plan.world is None:
        return questions_of(plan, folder)
    world = plan.world
    sizes = f"{world.split}-{world.items_per_part}-{world.test_images_per_class}"
    # All data sets of the folder are asked about, so that it is of these tasks only.
    drawn = sorted(f"{task.name} {task.domain} {task.style}" for task in plan.tasks)
    root = draw_benchmark(
        folder / f"benchmark-{sizes}-{short_digest(*drawn)}",
        split=world.split,
        items_per_part=world.items_per_part,
        images_per_class=world.test_images_per_class,
        retrieval_images=world.items_per_part,
    )
    for task in plan.tasks:
        assert task.domain is not None
        draw_recognition(
            root / "zeroshot" / task.name,
            domains=(task.domain,), style=task.style, split=world.split, images_per_class=world.test_images_per_class,
        )  # fmt: skip
    # If two benchmarks have a score of the same name, the first counts: "recognition" is the world's.
    names = ("world", "zeroshot")
    return StudyQuestions(names, root, digest_questions(names, root))
