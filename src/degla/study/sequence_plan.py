"""The plan of a sequence of tasks: what is learnt one after another, in which ways, and what is asked after each."""

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
    """Pictures that are drawn from the embedded world.

    Attributes:
        images_per_class: training pictures of each class of a task.
        test_images_per_class: test pictures of each class of a task, and of each class of the world's benchmark.
        split: of the tests.
        items_per_part: items of each compositional part of the world's benchmark, which is asked beside the tasks.
        replay_domains: domains whose classes are the prompts of the replayed pairs, in the plain style;
            all by default.
        replay_images_per_class: pictures of each of those classes, others for each task.
    """

    images_per_class: int = Field(default=40, ge=1)
    test_images_per_class: int = Field(default=20, ge=1)
    split: Literal["validation", "test"] = "test"
    items_per_part: int = Field(default=100, ge=1)
    replay_domains: _Domains = tuple(DOMAINS)
    replay_images_per_class: int = Field(default=8, ge=1)


class Task(FieldTable):
    """One thing to learn.

    Attributes:
        name: in tables; also the name of its folder.
        score: what tells how well it is known: a part, a named average or a headline column of the benchmarks; its
            name by default, as a data set of the benchmark `zeroshot` has it.
        domain, style: of its pictures, where they are drawn from the world.
        fields: of the training configuration, by dotted name: where its data lie, and what else it needs of its own.
            They go before those of the arm; those of replayed pairs count for arms that replay.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.+-]+$")
    score: str = ""
    domain: Annotated[str, AfterValidator(member("domain", lambda: tuple(DOMAINS)))] | None = None
    style: Annotated[str, AfterValidator(member("style", lambda: tuple(STYLES)))] = "plain"

    @property
    def measure(self) -> str:
        """Name of the score."""
        return self.score or self.name


class SequencePlan(ArmsPlan):
    """Arms that learn the same tasks in the same order, each from where it stood after the task before.

    Attributes:
        world: what is drawn from the embedded world; without it give `benchmarks`, and tasks say where their data lie.
        tasks: in the order of learning, two or more; their fields go before those of an arm.
        also: further scores that are shown after each task, of what no task teaches.
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
                    f"task {task.name!r}: a 'domain' goes together with 'world'; without it give data.captions, "
                    "data.images and whatever else the recipes read"
                )
        for kind, names in (("tasks", [task.name for task in self.tasks]), ("arms", [arm.name for arm in self.arms])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"two {kind} are called {twice[0]!r}; give one of them another name")
        for where, values in {"set": self.set, **{name: table.fields for name, table in self.tables().items()}}.items():
            grid = [name for name, value in values.items() if isinstance(value, list)]
            if grid:
                raise ValueError(f"{where}: {grid[0]} cannot span a grid here; write an arm for each setting")
        for arm in self.arms:
            if arm.rules or arm.average:
                raise ValueError(f"arm {arm.name!r}: rules and averages have no place here")
        return self

    def tables(self) -> dict[str, FieldTable]:
        """Of arms and tasks."""
        return super().tables() | {f"task {task.name!r}": task for task in self.tasks}

    def placed(self, folder: Path) -> dict[str, Any]:
        """Those of the tasks too."""
        return super().placed(folder) | {"tasks": placed_tables(self.tasks, folder)}


def read_sequence_plan(path: Path, *, overrides: Sequence[str] = ()) -> SequencePlan:
    """Read a plan; see `read_plan_file`."""
    return read_plan_file(SequencePlan, path, overrides=overrides, lists=("arms", "tasks"))
