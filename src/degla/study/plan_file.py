"""Fields that both kinds of plans share, and the reader of plan files: YAML, TOML or JSON, with overrides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from degla.config import fields
from degla.config.fields import place, read_values
from degla.errors import InputError
from degla.parse import parse_yaml
from degla.records import Record, validate
from degla.remote import address_of, at_home
from degla.shelf import BENCHMARKS, RECIPES, RULES, did_you_mean

_MOST_SEEDS = 10_000
RESERVED = {
    "recipe": "use the arm's field 'recipe'",
    "model": "use the plan's field 'base', the model of all arms",
    "out": "runs are written under the study's --out",
    "train.seed": "use the plan's field 'seeds'",
}
"""Fields that the study sets itself, with the remedy for users who set them."""


def members(noun: str, names: Callable[[], Sequence[str]]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Return a check for one or more distinct names out of those that `names` returns."""

    def check(value: tuple[str, ...]) -> tuple[str, ...]:
        allowed = names()
        for name in value:
            if name not in allowed:
                raise ValueError(f"unknown {noun} {name!r}.{did_you_mean(name, allowed)} Known: {', '.join(allowed)}")
        if not value or len(set(value)) != len(value):
            raise ValueError(f"name at least one {noun}, each only once")
        return value

    return check


def member(noun: str, names: Callable[[], Sequence[str]]) -> Callable[[str], str]:
    """Return a check for a single one of those names."""
    check = members(noun, names)
    return lambda name: check((name,))[0]


_SEEDS: Final = "give a list of distinct seeds, 0 or above, or their number, 1 or more"


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ValueError(_SEEDS)
    return seeds


def _shares(shares: tuple[float, ...]) -> tuple[float, ...]:
    names = {f"{share:g}" for share in shares}  # As in model names.
    if not shares or len(names) != len(shares) or not all(0 < share <= 1 for share in shares):
        raise ValueError("shares of the tuned weights must be distinct, above 0 and at most 1; 1 is the tuned model")
    return tuple(sorted(shares, reverse=True))


def _local(root: Path) -> Path:
    if address_of(root) is not None:
        from degla.evaluation.questions import LOCAL_ONLY

        raise ValueError(LOCAL_ONLY)
    return root


def _counted(value: Any) -> Any:
    """Expand a number of seeds to the seeds from 0 on."""
    if isinstance(value, str):
        raise ValueError(_SEEDS)
    is_count = isinstance(value, int) and not isinstance(value, bool) and value <= _MOST_SEEDS
    return tuple(range(value)) if is_count else value


Value = bool | int | float | str | None
FieldValues = dict[str, Value | list[Value]]
"""Fields of the training configuration by dotted name; a list of values spans a grid."""
Rules = Annotated[tuple[str, ...], AfterValidator(members("rule", RULES.names))]
Shares = Annotated[tuple[float, ...], AfterValidator(_shares)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
CountedSeeds = Annotated[tuple[int, ...], BeforeValidator(_counted)]
Seeds = Annotated[CountedSeeds, AfterValidator(_distinct)]


class BenchmarkData(Record):
    """Benchmarks, and the folder with their files.

    Attributes:
        allow_missing: measure on the available images if others are missing; results list what was skipped.
    """

    names: Annotated[tuple[str, ...], AfterValidator(members("benchmark", BENCHMARKS.names))] = Field(min_length=1)
    root: Annotated[Path, AfterValidator(_local)]
    allow_missing: bool = False


class FieldTable(Record):
    """A table of a plan that mixes its own fields with fields of the training configuration.

    Attributes:
        fields: values of training-configuration fields by dotted name; a list of values spans a grid.
    """

    fields: FieldValues = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, row: Any) -> Any:
        """Move names that are not its own under "fields"."""
        if not isinstance(row, dict) or not isinstance(row.get("fields", {}), dict | None):
            return row
        own = {name: value for name, value in row.items() if name in cls.model_fields}
        others = {name: value for name, value in row.items() if name not in cls.model_fields}
        return {**own, "fields": {**(own.get("fields") or {}), **others}}


class Arm(FieldTable):
    """One arm of the study: a recipe with changed fields; a list of values spans a grid.

    Attributes:
        recipe: name of a recipe.
        label: its name in tables; by default the recipe's.
        rules: rules that make its negatives; by default the plan's.
        average: shares of the tuned weights in the weight averages to measure; by default the plan's.
    """

    recipe: Annotated[str, AfterValidator(member("recipe", RECIPES.names))]
    label: str = ""
    rules: Rules | None = None
    average: Shares | None = None

    @property
    def name(self) -> str:
        """The label, or by default the recipe."""
        return self.label or self.recipe


class ArmsPlan(Record):
    """Fields that both kinds of plans share.

    Attributes:
        title: title of the page.
        about: the question of the study, in a few sentences.
        base: model that all arms start from and are compared with, in any form that `degla` accepts.
        benchmarks: what to measure on, if nothing is drawn from the world.
        set: fields of the training configuration of all arms, by dotted name; an arm's own fields take precedence.
        arms: what to compare.
        seeds: training seeds, or their number.
    """

    title: str
    about: str = ""
    base: str = "world"
    benchmarks: BenchmarkData | None = None
    set: FieldValues = Field(default_factory=dict)
    arms: tuple[Arm, ...] = Field(min_length=1)
    seeds: Seeds = (0,)

    def tables(self) -> dict[str, FieldTable]:
        """Return the tables with training-configuration fields, by their name in messages."""
        return {f"arm {arm.name!r}": arm for arm in self.arms}

    def placed(self, folder: Path) -> dict[str, Any]:
        """Return the fields that have paths, resolved against the plan's folder."""
        benchmarks = self.benchmarks
        if benchmarks is not None:
            benchmarks = benchmarks.model_copy(update={"root": folder / at_home(str(benchmarks.root))})
        return {"set": place(self.set, folder), "arms": placed_tables(self.arms, folder), "benchmarks": benchmarks}


AnyPlan = TypeVar("AnyPlan", bound=ArmsPlan)
AnyTable = TypeVar("AnyTable", bound=FieldTable)


def placed_tables(tables: Sequence[AnyTable], folder: Path) -> tuple[AnyTable, ...]:
    """Return tables with their paths resolved against `folder`."""
    return tuple(table.model_copy(update={"fields": place(table.fields, folder)}) for table in tables)


def read_plan_file(kind: type[AnyPlan], path: Path, *, overrides: Sequence[str], lists: Sequence[str]) -> AnyPlan:
    """Read a plan.

    Args:
        kind: class of the plan.
        path: file that ends in .yaml, .yml, .toml or .json. Paths in it are relative to its folder.
        overrides: "NAME=VALUE": a field of the plan ("seeds=2", "world.scenes=500"), or a field of the training
            configuration of every arm, which overrides the arms' own values ("train.steps=20").
        lists: fields of the plan that hold tables with training fields, which overrides replace.

    Raises:
        InputError: the file cannot be read or is not a plan, or an override names an unknown field.
    """
    values = read_values(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: a plan must be a table with the fields {', '.join(kind.model_fields)}.")
    for text in overrides:
        _override(values, text, kind=kind, lists=lists)
    plan = validate(kind, values, where=str(path))
    for where, names in {"set": plan.set, **{name: table.fields for name, table in plan.tables().items()}}.items():
        for name in names:
            _check_field(name, where=f"{path}: {where}")
    return plan.model_copy(update=plan.placed(path.parent))


def _check_field(name: str, *, where: str) -> None:
    """Reject a name that is not a field of the training configuration, or that the study sets itself."""
    if name in RESERVED:
        raise InputError(f"{where}: field {name!r} cannot be set here; {RESERVED[name]}.")
    fields.check_field(name, where=where)


def _override(values: dict[str, Any], text: str, *, kind: type[ArmsPlan], lists: Sequence[str]) -> None:
    name, equals, value_text = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: use NAME=VALUE, for example --set train.steps=20.")
    try:
        value = parse_yaml(value_text, where=f"--set {name}")
    except InputError:
        value = value_text
    first, _, rest = name.partition(".")
    if first in (*lists, "set"):
        raise InputError(f"--set {text}: name a field of the plan or of the training configuration, not {first!r}.")
    if first in kind.model_fields:
        if not rest:
            values[name] = value
        elif isinstance(values.get(first), dict):
            values[first] = {**values[first], rest: value}
        else:
            raise InputError(f"--set {text}: the plan has no {first!r}.")
        return
    _check_field(name, where=f"--set {text}")
    # Anything else than a table or list of tables is rejected when the plan is read.
    shared = values.get("set") or {}
    if isinstance(shared, dict):
        values["set"] = {**shared, name: value}
    for table in (table for each in lists if isinstance(values.get(each), list) for table in values[each]):
        for fields_of in (table, table.get("fields")) if isinstance(table, dict) else ():
            if isinstance(fields_of, dict):
                fields_of.pop(name, None)
