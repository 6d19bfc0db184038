"""The plan of a sequence of tasks: what is learnt one after another, in which ways, and what is asked after each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from degla.config.file import place, read_values
from degla.errors import InputError
from degla.records import Record, validate
from degla.shelf import did_you_mean
from degla.study.plan import Arm, BenchmarkData, Value
from degla.study.plan_file import check_field, fields_apart, override, seeds_of
from degla.world.domains import DOMAINS
from degla.world.styles import STYLES


class WorldTasks(Record):
    """Pictures that are drawn from the embedded world.

    Attributes:
        images_per_class: training pictures of each class of a task.
        test_images_per_class: test pictures of each class of a task, and of each class of the world's benchmark.
        split: of the tests.
        items_per_part: items of each compositional part of the world's benchmark, which is asked beside the tasks.
        rehearsal_domains: domains whose classes are the prompts of the rehearsal, in the plain style; all by default.
        rehearsal_images_per_class: pictures of each of those classes, others for each task.
    """

    images_per_class: int = Field(default=40, ge=1)
    test_images_per_class: int = Field(default=20, ge=1)
    split: Literal["validation", "test"] = "test"
    items_per_part: int = Field(default=100, ge=1)
    rehearsal_domains: tuple[str, ...] = tuple(DOMAINS)
    rehearsal_images_per_class: int = Field(default=8, ge=1)

    @field_validator("rehearsal_domains")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in DOMAINS:
                raise ValueError(f"unknown domain {name!r}.{did_you_mean(name, DOMAINS)} Known: {', '.join(DOMAINS)}")
        if not names or len(set(names)) != len(names):
            raise ValueError("name one domain or more, each once")
        return names


class Task(Record):
    """One thing to learn.

    Attributes:
        name: in tables; also the name of its folder.
        score: what tells how well it is known: a part, a named average or a headline column of the benchmarks; its
            name by default, as a data set of the benchmark `zeroshot` has it.
        domain, style: of its pictures, where they are drawn from the world.
        fields: of the training configuration, by dotted name: where its data lie, and what else it needs of its own.
            They go before those of the arm; those of the rehearsal count for arms that rehearse.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.+-]+$")
    score: str = ""
    domain: str | None = None
    style: str = "plain"
    fields: dict[str, Value] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, row: Any) -> Any:
        """Fields of the training configuration stand beside the task's own in the file."""
        return fields_apart(row, cls.model_fields)

    @model_validator(mode="after")
    def _drawable(self) -> Task:
        for kind, name, known in (("domain", self.domain, DOMAINS), ("style", self.style, STYLES)):
            if name is not None and name not in known:
                raise ValueError(f"unknown {kind} {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}")
        return self

    @property
    def measure(self) -> str:
        """Name of the score."""
        return self.score or self.name


class SequencePlan(Record):
    """Arms that learn the same tasks in the same order, each from where it stood after the task before.

    Attributes:
        title: of the page.
        about: what is asked, in a few sentences.
        base: model that all start from, in any form that `degla` takes.
        world: what is drawn from the embedded world; or else
        benchmarks: what is asked, where tasks say where their data lie.
        tasks: in the order of learning, two or more.
        set: fields of the training configuration of all arms, by dotted name; those of an arm and of a task go before.
        arms: ways of learning: recipes with changed fields.
        seeds: training seeds, or their number.
        also: further scores that are shown after each task, of what no task teaches.
    """

    title: str = "Tasks in sequence"
    about: str = ""
    base: str = "world"
    world: WorldTasks | None = None
    benchmarks: BenchmarkData | None = None
    tasks: tuple[Task, ...] = Field(min_length=2)
    set: dict[str, Value] = Field(default_factory=dict)
    arms: tuple[Arm, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = (0,)
    also: tuple[str, ...] = ()

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, seeds: Any) -> Any:
        return seeds_of(seeds)

    @model_validator(mode="after")
    def _fits(self) -> SequencePlan:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("give one seed or more, each once, 0 or above; or their number, 1 or more")
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
        for arm in self.arms:
            grid = [name for name, value in arm.fields.items() if isinstance(value, list)]
            if grid or arm.rules or arm.average:
                told = f"{grid[0]} cannot span a grid" if grid else "rules and averages have no place"
                raise ValueError(f"arm {arm.name!r}: {told} here; write an arm for each setting")
        return self


def read_sequence_plan(path: Path, *, overrides: Sequence[str] = ()) -> SequencePlan:
    """Read a plan.

    Args:
        path: ends in .yaml, .yml, .toml or .json. Paths in it are relative to its folder.
        overrides: "NAME=VALUE", as in `degla.study.plan.read_plan`.

    Raises:
        InputError: the file cannot be read, is no such plan, or an override names nothing.
    """
    values = read_values(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: a plan is a table of fields: title, world, tasks, set, arms, seeds, ...")
    for text in overrides:
        override(values, text, known=SequencePlan.model_fields, lists=("arms", "tasks"))
    plan = validate(SequencePlan, values, where=str(path))
    tables: dict[str, Iterable[str]] = {"set": plan.set}
    tables |= {f"arm {arm.name!r}": arm.fields for arm in plan.arms}
    tables |= {f"task {task.name!r}": task.fields for task in plan.tasks}
    for where, names in tables.items():
        for name in names:
            check_field(name, where=f"{path}: {where}")
    folder = path.parent
    benchmarks = plan.benchmarks and plan.benchmarks.model_copy(update={"root": folder / plan.benchmarks.root})
    arms = tuple(arm.model_copy(update={"fields": place(arm.fields, folder)}) for arm in plan.arms)
    tasks = tuple(task.model_copy(update={"fields": place(task.fields, folder)}) for task in plan.tasks)
    return plan.model_copy(
        update={"set": place(plan.set, folder), "arms": arms, "tasks": tasks, "benchmarks": benchmarks}
    )
