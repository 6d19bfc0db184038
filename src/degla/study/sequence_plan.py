"""The plan of a sequence of tasks: the tasks in order, the arms that learn them, and what is measured after each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from degla.records import Record
from degla.study.plan_file import ArmsPlan, FieldTable, member, members, placed_tables, read_plan_file
from degla.world.domains import DOMAINS
from degla.world.recognition import STYLES

_Domains = Annotated[tuple[str, ...], AfterValidator(members("domain", lambda: tuple(DOMAINS)))]


class WorldTasks(Record):
    """Images drawn from the embedded world.

    Attributes:
        images_per_class: training images per class of a task.
        test_images_per_class: test images per class, of the tasks and of the world's benchmark.
        split: split of the test images.
        items_per_part: items per compositional part of the world's benchmark, which is measured along with the tasks.
        replay_domains: domains whose classes are the prompts of the replayed pairs, in the plain style;
            by default all.
        replay_images_per_class: images per class to replay, different ones for each task.
    """

    images_per_class: int = Field(default=40, ge=1)
    test_images_per_class: int = Field(default=20, ge=1)
    split: Literal["validation", "test"] = "test"
    items_per_part: int = Field(default=100, ge=1)
    replay_domains: _Domains = tuple(DOMAINS)
    replay_images_per_class: int = Field(default=8, ge=1)


class Task(FieldTable):
    """One task to learn.

    Attributes:
        name: name in tables, and of its folder.
        score: score that measures the task: a part, a named average or a headline column of the benchmarks; by default
            the task's name, as for a data set of the benchmark `zeroshot`.
        domain, style: domain and style of its images, if they are drawn from the world.
        fields: training-configuration fields by dotted name: its data, and anything else specific to the task. They
            take precedence over the arm's; those of replayed pairs apply to arms that replay.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.+-]+$")
    score: str = ""
    domain: Annotated[str, AfterValidator(member("domain", lambda: tuple(DOMAINS)))] | None = None
    style: Annotated[str, AfterValidator(member("style", lambda: tuple(STYLES)))] = "plain"

    @property
    def measure(self) -> str:
        """Name of the score that measures the task."""
        return self.score or self.name


class SequencePlan(ArmsPlan):
    """Arms that learn the same tasks in the same order, each starting from its model after the previous task.

    Attributes:
        world: images to draw from the embedded world; without it give `benchmarks`, and each task's data.
        tasks: tasks in learning order, two or more; their fields take precedence over an arm's.
        also: additional scores to show after each task, of abilities that no task teaches.
    """

    title: str = "Tasks in sequence"
    world: WorldTasks | None = None
    tasks: tuple[Task, ...] = Field(min_length=2)
    also: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> SequencePlan:
        if (self.world is None) == (self.benchmarks is None):
            raise ValueError("give either 'world' or 'benchmarks'")
        for task in self.tasks:
            if (task.domain is None) != (self.world is None):
                raise ValueError(
                    f"task {task.name!r}: set 'domain' if and only if the plan has 'world'; otherwise give "
                    "data.captions, data.images and whatever else the recipes read"
                )
        for kind, names in (("tasks", [task.name for task in self.tasks]), ("arms", [arm.name for arm in self.arms])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"two {kind} are named {twice[0]!r}; rename one of them")
        for where, values in {"set": self.set, **{name: table.fields for name, table in self.tables().items()}}.items():
            grid = [name for name, value in values.items() if isinstance(value, list)]
            if grid:
                raise ValueError(f"{where}: {grid[0]} cannot span a grid here; add an arm for each setting")
        for arm in self.arms:
            if arm.rules or arm.average:
                raise ValueError(f"arm {arm.name!r}: 'rules' and 'average' are not supported here; remove them")
        return self

    def tables(self) -> dict[str, FieldTable]:
        """Return the tables of arms and tasks."""
        return super().tables() | {f"task {task.name!r}": task for task in self.tasks}

    def placed(self, folder: Path) -> dict[str, Any]:
        """Return the fields that have paths, including those of the tasks."""
        return super().placed(folder) | {"tasks": placed_tables(self.tasks, folder)}


def read_sequence_plan(path: Path, *, overrides: Sequence[str] = ()) -> SequencePlan:
    """Read a plan; see `read_plan_file`."""
    return read_plan_file(SequencePlan, path, overrides=overrides, lists=("arms", "tasks"))
