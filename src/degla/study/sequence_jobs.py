"""A plan of tasks to its jobs: one for each arm and seed, a training run and a measurement for each task in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from degla.config.fields import change
from degla.config.run import TrainConfig
from degla.study.grid import file_name, starting_config
from degla.study.materials import digest_of, digest_questions, digests_of_files, streams_of
from degla.study.plan import Arm
from degla.study.sequence_plan import SequencePlan, Task, WorldTasks
from degla.study.standings import BASE
from degla.study.tuning import Job, JobResult, Measure, tune
from degla.world.draw import MARKER, draw_benchmark
from degla.world.recognition import CLASS_TEMPLATE, draw_recognition


@dataclass(frozen=True)
class SequenceJob:
    """The tasks of one arm with one seed, in order; or the measurement of the base alone."""

    arm: str
    seed: int | None
    """None for the base."""
    jobs: tuple[Job, ...]

    @property
    def title(self) -> str:
        """As told while it runs."""
        return self.arm if self.seed is None else f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class Learnt:
    """What a sequence's job did: one entry a task, as far as it came."""

    tasks: tuple[JobResult, ...]
    finished: bool


def learn(job: SequenceJob) -> Learnt:
    """Learn one task after another, each from the model that the task before gave. What is done stays done.

    A task whose start changed, because the one before was made again, is made again too.

    Raises:
        DeglaError: as `tune`.
    """
    done: list[JobResult] = []
    start: Path | None = None
    for each in job.jobs:
        if each.config is not None and start is not None:
            from degla.model.runs import WEIGHTS_NAME, chosen_checkpoint

            before = chosen_checkpoint(start)
            assert before is not None
            config = replace(each.config, model=str(before))
            each = replace(each, config=config, inputs=each.inputs | {"start": digest_of(before / WEIGHTS_NAME, {})})
        done.append(tune(each))
        if not done[-1].paths:
            return Learnt(tuple(done), finished=False)
        start = each.config.out if each.config is not None else None
    return Learnt(tuple(done), finished=True)


def sequence_jobs(plan: SequencePlan, *, out: Path, where: str) -> list[SequenceJob]:
    """The base's measurement, then every arm of the first seed, of the second, and so on; draws the world if asked.

    Args:
        plan: of the tasks.
        out: folder of everything.
        where: names the plan's file in messages.

    Raises:
        InputError: a value of the wrong type, or a file of the plan cannot be read.
    """
    data = [_task_fields(task, number, plan.world, out / "data") for number, task in enumerate(plan.tasks)]
    names, root = _benchmarks(plan, out / "data")
    base = Job(
        label=BASE, base=plan.base, config=None, inputs={},
        measures=(Measure(BASE, 1.0, out / "results" / f"{BASE}.json"),),
        benchmarks=names, root=root, questions=digest_questions(names, root),
    )  # fmt: skip
    found = [SequenceJob(BASE, None, (base,))]
    known: dict[Path, str] = {}
    for seed in plan.seeds:
        for arm in plan.arms:
            jobs = []
            for number, task in enumerate(plan.tasks):
                name = f"{file_name(arm.name, seed)}/{number + 1}-{task.name}"
                config = _config(plan, arm, data[number], seed=seed, where=f"{where}: arm {arm.name!r}, {task.name!r}")
                label = f"{arm.name} after {task.name}"
                measure = Measure(label, 1.0, out / "results" / f"{name}.json")
                jobs.append(
                    replace(
                        base,
                        label=label,
                        config=replace(config, out=out / "runs" / name),
                        inputs=_inputs(config, known),
                        measures=(measure,),
                    )
                )
            found.append(SequenceJob(arm.name, seed, tuple(jobs)))
    return found


def _config(plan: SequencePlan, arm: Arm, task: Mapping[str, Any], *, seed: int, where: str) -> TrainConfig:
    config = change(starting_config(arm, base=plan.base), plan.set, where=where)
    config = change(config, arm.fields, where=where)
    rehearses = config.rehearsal.active
    own = {name: value for name, value in task.items() if rehearses or not name.startswith("rehearsal.")}
    config = change(config, own, where=where)
    return replace(config, train=replace(config.train, seed=seed))


def _inputs(config: TrainConfig, known: dict[Path, str]) -> dict[str, str]:
    """What a run is trained on, by contents; images, which may be many, by the name of their folder."""
    found = digests_of_files(config, known)
    for prefix, data in streams_of(config).items():
        if data.images is not None:
            drawn = data.images / MARKER
            found[prefix + "images"] = digest_of(drawn, known) if drawn.is_file() else str(data.images)
    return found


def _task_fields(task: Task, number: int, world: WorldTasks | None, folder: Path) -> dict[str, Any]:
    """Fields of the training configuration of a task; draws its pictures, and those of its rehearsal."""
    if world is None or task.domain is None:
        return task.fields
    drawn = draw_recognition(
        folder / f"{task.name}-{task.domain}-{task.style}-{world.images_per_class}",
        domains=(task.domain,), style=task.style, images_per_class=world.images_per_class,
    )  # fmt: skip
    count = world.rehearsal_images_per_class
    again = draw_recognition(
        folder / f"rehearsal-{number + 1}-{'-'.join(world.rehearsal_domains)}-{count}",
        domains=world.rehearsal_domains, images_per_class=count, seed=number + 1,
    )  # fmt: skip
    own = {
        "data.captions": drawn.captions, "data.images": drawn.images, "data.classes": drawn.classes,
        "data.class_template": CLASS_TEMPLATE,
        "rehearsal.data.captions": again.captions, "rehearsal.data.images": again.images,
    }  # fmt: skip
    return own | task.fields


def _benchmarks(plan: SequencePlan, folder: Path) -> tuple[tuple[str, ...], Path]:
    if plan.world is None:
        assert plan.benchmarks is not None
        return plan.benchmarks.names, plan.benchmarks.root
    world = plan.world
    root = draw_benchmark(
        folder / f"benchmark-{world.split}-{world.items_per_part}-{world.test_images_per_class}",
        split=world.split, items_per_part=world.items_per_part, images_per_class=world.test_images_per_class,
        retrieval_images=world.items_per_part,
    )  # fmt: skip
    for task in plan.tasks:
        assert task.domain is not None
        draw_recognition(
            root / "zeroshot" / task.name,
            domains=(task.domain,), style=task.style, split=world.split, images_per_class=world.test_images_per_class,
        )  # fmt: skip
    # The first of two benchmarks with one name of a score has it: "recognition" is the world's.
    return ("world", "zeroshot"), root
