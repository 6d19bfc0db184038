"""The plan of a study: a small YAML or TOML file, validated, with overrides from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from degla.config.file import place, read_values
from degla.errors import InputError
from degla.records import Record, validate
from degla.shelf import BENCHMARKS, PUBLISHED_RULES, RECIPES, RULES, did_you_mean
from degla.study.plan_file import check_field, fields_apart, override, seeds_of

Value = bool | int | float | str | None


class WorldData(Record):
    """Pairs and benchmark that are drawn from the embedded world.

    Attributes:
        scenes: training scenes.
        captions_per_image: differently worded captions of a scene.
        partners: a second picture and text a scene, for recipes that read `partner_image` and `partner_text`.
        split: of the benchmark: choose settings on "validation", report "test".
        items_per_part: benchmark items of each compositional part.
        images_per_class: images of each class of the recognition domains.
        retrieval_images: images of each retrieval part.
        questions_seed: of the benchmark's pictures: another one gives other scenes of the same split, for a comparison
            that no earlier look has touched.
        scenes_seed: of the training scenes.
    """

    scenes: int = Field(default=8000, ge=1)
    captions_per_image: int = Field(default=1, ge=1)
    partners: bool = False
    split: Literal["validation", "test"] = "test"
    items_per_part: int = Field(default=1000, ge=1)
    images_per_class: int = Field(default=20, ge=1)
    retrieval_images: int = Field(default=500, ge=1)
    questions_seed: int = Field(default=0, ge=0)
    scenes_seed: int = Field(default=0, ge=0)


class BenchmarkData(Record):
    """Benchmarks of the shelf, and the folder with their files."""

    names: tuple[str, ...] = Field(min_length=1)
    root: Path

    @field_validator("names")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _members(names, BENCHMARKS.names(), "benchmark")


class Arm(Record):
    """One line of the study: a recipe with changed fields; a list of values spans a grid.

    Attributes:
        recipe: a member of the shelf `recipes`.
        label: its name in tables; the recipe's by default.
        rules: rules that its negatives are made by; the plan's by default.
        average: shares of the tuned weights in averages with the base that are measured; the plan's by default.
        fields: dotted name of a field of the training configuration to its value, or to the list of its values.
    """

    recipe: str
    label: str = ""
    rules: tuple[str, ...] | None = None
    average: tuple[float, ...] | None = None
    fields: dict[str, Value | list[Value]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, row: Any) -> Any:
        """Fields of the training configuration stand beside the arm's own in the file."""
        return fields_apart(row, cls.model_fields)

    @field_validator("recipe")
    @classmethod
    def _on_the_shelf(cls, name: str) -> str:
        return _members((name,), RECIPES.names(), "recipe")[0]

    @field_validator("rules")
    @classmethod
    def _known_rules(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return names and _members(names, RULES.names(), "rule")

    @field_validator("average")
    @classmethod
    def _shares(cls, shares: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return shares and _checked_shares(shares)

    @property
    def name(self) -> str:
        """The label, or else the recipe."""
        return self.label or self.recipe


class Replicate(Record):
    """The study once more with something else drawn: what its numbers owe to that draw.

    Attributes:
        name: in tables and file names; by default what it changes.
        negatives_seed, scenes_seed, questions_seed, base: in place of the plan's; None: the plan's.
        seeds: training seeds, some of the plan's; None: all of them.
        arms: labels of the arms that it runs, some of the plan's; None: all of them.
    """

    name: str = ""
    negatives_seed: int | None = Field(default=None, ge=0)
    scenes_seed: int | None = Field(default=None, ge=0)
    questions_seed: int | None = Field(default=None, ge=0)
    base: str | None = None
    seeds: tuple[int, ...] | None = None
    arms: tuple[str, ...] | None = None

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, seeds: Any) -> Any:
        return seeds_of(seeds)

    @property
    def title(self) -> str:
        """The name, or else what is changed: "scenes 1, questions 1, base other"."""
        seeds = {"negatives": self.negatives_seed, "scenes": self.scenes_seed, "questions": self.questions_seed}
        told = [f"{noun} {seed}" for noun, seed in seeds.items() if seed is not None]
        return self.name or ", ".join([*told, *([f"base {Path(self.base).name}"] if self.base is not None else [])])


class Plan(Record):
    """Recipes x settings x seeds, on given data or on the embedded world.

    Attributes:
        title: of the page.
        about: what the study asks, in a few sentences.
        base: model that is fine-tuned and that gains and losses are counted from, in any form that `degla` takes.
        world: what is drawn from the embedded world; or else
        benchmarks: what is measured, where pairs are given as `data.captions` and `data.images` under `set`.
        rules: rules that negatives are made by where `data.negatives` is not given.
        set: fields of the training configuration of all arms, by dotted name, each to its value or to the list of its
            values, which spans a grid; an arm's own go before.
        arms: what is compared.
        average: shares of the tuned weights in averages with the base that are measured; 1 is the tuned model itself.
        seeds: training seeds, or their number.
        negatives_seed: of the negatives that the rules make.
        replicates: each runs the arms and seeds, or some of them, once more with other negatives, scenes, questions or
            another base, and is measured against its own base: what the results owe to each of these.
        price: points of composition that a point of recognition lost costs in the joint score.
        gain: score that is to rise: a headline column, a named average or a part.
        kept: score that is to be kept.
        against: label of the arm that every other is tested against; every pair by default.
    """

    title: str = "Study"
    about: str = ""
    base: str = "world"
    world: WorldData | None = None
    benchmarks: BenchmarkData | None = None
    rules: tuple[str, ...] = PUBLISHED_RULES
    set: dict[str, Value | list[Value]] = Field(default_factory=dict)
    arms: tuple[Arm, ...] = Field(min_length=1)
    average: tuple[float, ...] = (1.0,)
    seeds: tuple[int, ...] = (0,)
    negatives_seed: int = Field(default=0, ge=0)
    replicates: tuple[Replicate, ...] = ()
    price: float = Field(default=1.0, ge=0)
    gain: str = "composition"
    kept: str = "recognition"
    against: str | None = None

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, seeds: Any) -> Any:
        return seeds_of(seeds)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError("give one seed or more, each once, 0 or above; or their number, 1 or more")
        return seeds

    @field_validator("rules")
    @classmethod
    def _known_rules(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _members(names, RULES.names(), "rule")

    @field_validator("average")
    @classmethod
    def _shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        return _checked_shares(shares)

    @model_validator(mode="after")
    def _fits(self) -> Plan:
        if (self.world is None) == (self.benchmarks is None):
            raise ValueError("give either 'world', or 'benchmarks' with data.captions and data.images under 'set'")
        if self.world is None and not {"data.captions", "data.images"} <= self.set.keys():
            raise ValueError("without 'world', give data.captions and data.images under 'set'")
        if self.world is not None and {"data.captions", "data.images"} & self.set.keys():
            raise ValueError("'world' draws the pairs; leave data.captions and data.images out")
        names = [arm.name for arm in self.arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two arms are called {twice[0]!r}; give one of them a 'label'")
        if "base" in names:
            raise ValueError("'base' is the untouched model's name; give the arm another 'label'")
        if self.against is not None and self.against not in names:
            raise ValueError(f"'against' is {self.against!r}, which is no arm.{did_you_mean(self.against, names)}")
        self._check_replicates()
        return self

    def _check_replicates(self) -> None:
        titles = [replicate.title for replicate in self.replicates]
        for replicate in self.replicates:
            where = f"replicate {replicate.title!r}"
            if not self.sources_of(replicate):
                raise ValueError(f"{where} changes nothing: give negatives_seed, scenes_seed, questions_seed or base")
            if titles.count(replicate.title) > 1:
                raise ValueError(f"two replicates are called {replicate.title!r}; give one of them a 'name'")
            if self.world is None and (replicate.scenes_seed, replicate.questions_seed) != (None, None):
                raise ValueError(f"{where}: scenes_seed and questions_seed need 'world'")
            if replicate.seeds is not None and (not replicate.seeds or not set(replicate.seeds) <= set(self.seeds)):
                raise ValueError(f"{where}: its seeds must be among the plan's, {list(self.seeds)}")
            if replicate.arms is not None:
                labels = [arm.name for arm in self.arms]
                unknown = [label for label in replicate.arms if label not in labels]
                if unknown:
                    hint = did_you_mean(unknown[0], labels)
                    raise ValueError(f"{where}: {unknown[0]!r} is no arm of the plan.{hint} Known: {', '.join(labels)}")
                if not replicate.arms:
                    raise ValueError(f"{where}: name one arm or more, or leave 'arms' out for all of them")

    def sources_of(self, replicate: Replicate) -> tuple[str, ...]:
        """What a replicate changes: "negatives", "scenes", "questions", "base"."""
        scenes, questions = (self.world.scenes_seed, self.world.questions_seed) if self.world else (None, None)
        own = {"negatives": self.negatives_seed, "scenes": scenes, "questions": questions, "base": self.base}
        new = {"negatives": replicate.negatives_seed, "scenes": replicate.scenes_seed,
               "questions": replicate.questions_seed, "base": replicate.base}  # fmt: skip
        return tuple(name for name, value in new.items() if value is not None and value != own[name])

    def varied(self, replicate: Replicate | None) -> Plan:
        """The plan of one replicate; None: the plan itself, without its replicates."""
        if replicate is None:
            return self.model_copy(update={"replicates": ()})
        own = replicate.model_dump(exclude={"name", "arms"}, exclude_none=True)
        arms = tuple(arm for arm in self.arms if replicate.arms is None or arm.name in replicate.arms)
        seeds: dict[str, Any] = {name: own.pop(name) for name in ("scenes_seed", "questions_seed") if name in own}
        world = self.world.model_copy(update=seeds) if self.world is not None else None
        return self.model_copy(update={**own, "world": world, "arms": arms, "replicates": ()})


def read_plan(path: Path, *, overrides: Sequence[str] = ()) -> Plan:
    """Read a plan.

    Args:
        path: ends in .yaml, .yml, .toml or .json. Paths in it are relative to its folder.
        overrides: "NAME=VALUE": a field of the plan ("seeds=2", "world.scenes=500"), or a field of the training
            configuration of every arm, over what the arms say ("train.steps=20").

    Raises:
        InputError: the file cannot be read, is no plan, or an override names nothing.
    """
    values = read_values(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: a plan is a table of fields: title, world, set, arms, seeds, ...")
    for text in overrides:
        override(values, text, known=Plan.model_fields, lists=("arms",))
    plan = validate(Plan, values, where=str(path))
    for name in plan.set:
        check_field(name, where=f"{path}: set")
    for arm in plan.arms:
        for name in arm.fields:
            check_field(name, where=f"{path}: arm {arm.name!r}")
    return _placed(plan, path.parent)


def _placed(plan: Plan, folder: Path) -> Plan:
    """Paths as they are seen from here, not from the plan's folder."""
    benchmarks = plan.benchmarks and plan.benchmarks.model_copy(update={"root": folder / plan.benchmarks.root})
    arms = tuple(arm.model_copy(update={"fields": place(arm.fields, folder)}) for arm in plan.arms)
    return plan.model_copy(update={"set": place(plan.set, folder), "arms": arms, "benchmarks": benchmarks})


def _members(names: tuple[str, ...], known: Sequence[str], noun: str) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {noun} {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"name one {noun} or more, each once")
    return names


def _checked_shares(shares: tuple[float, ...]) -> tuple[float, ...]:
    if not shares or len(set(shares)) != len(shares) or not all(0 < share <= 1 for share in shares):
        raise ValueError("shares of the tuned weights are above 0 and at most 1, each once; 1 is the tuned model")
    return tuple(sorted(shares, reverse=True))
