"""What plans of both kinds say, and how their files are read: YAML, TOML or JSON, validated, with overrides."""

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
from degla.shelf import BENCHMARKS, RECIPES, RULES, did_you_mean

_MOST_SEEDS = 10_000
RESERVED = {
    "recipe": "an arm's recipe is its field 'recipe'",
    "model": "the model of all arms is the plan's field 'base'",
    "out": "the folder of a run is under --out of the study",
    "train.seed": "seeds are the plan's field 'seeds'",
}
"""Fields that the study sets itself, with what to do instead."""


def members(noun: str, names: Callable[[], Sequence[str]]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """A check for one name or more of those that `names` gives, each once."""

    def check(value: tuple[str, ...]) -> tuple[str, ...]:
        known = names()
        for name in value:
            if name not in known:
                raise ValueError(f"unknown {noun} {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}")
        if not value or len(set(value)) != len(value):
            raise ValueError(f"name one {noun} or more, each once")
        return value

    return check


def member(noun: str, names: Callable[[], Sequence[str]]) -> Callable[[str], str]:
    """A check for one of those names."""
    check = members(noun, names)
    return lambda name: check((name,))[0]


_SEEDS: Final = "give one seed or more, each once, 0 or above; or their number, 1 or more"


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ValueError(_SEEDS)
    return seeds


def _shares(shares: tuple[float, ...]) -> tuple[float, ...]:
    names = {f"{share:g}" for share in shares}  # As a model's name has them.
    if not shares or len(names) != len(shares) or not all(0 < share <= 1 for share in shares):
        raise ValueError("shares of the tuned weights are above 0 and at most 1, each once; 1 is the tuned model")
    return tuple(sorted(shares, reverse=True))


def _counted(value: Any) -> Any:
    """Seeds from 0 on, where only their number is given."""
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
    """Benchmarks of the shelf, and the folder with their files.

    Attributes:
        allow_missing: ask about the images that are there where others are missing; results say what was left out.
    """

    names: Annotated[tuple[str, ...], AfterValidator(members("benchmark", BENCHMARKS.names))] = Field(min_length=1)
    root: Path
    allow_missing: bool = False


class FieldTable(Record):
    """A table of a plan in which fields of the training configuration stand beside its own.

    Attributes:
        fields: dotted name of a field of the training configuration to its value, or to the list of its values.
    """

    fields: FieldValues = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, row: Any) -> Any:
        """Those that are not its own go under "fields"."""
        if not isinstance(row, dict) or not isinstance(row.get("fields", {}), dict | None):
            return row
        own = {name: value for name, value in row.items() if name in cls.model_fields}
        others = {name: value for name, value in row.items() if name not in cls.model_fields}
        return {**own, "fields": {**(own.get("fields") or {}), **others}}


class Arm(FieldTable):
    """One line of the study: a recipe with changed fields; a list of values spans a grid.

    Attributes:
        recipe: a member of the shelf `recipes`.
        label: its name in tables; the recipe's by default.
        rules: rules that its negatives are made by; the plan's by default.
        average: shares of the tuned weights in averages with the base that are measured; the plan's by default.
    """

    recipe: Annotated[str, AfterValidator(member("recipe", RECIPES.names))]
    label: str = ""
    rules: Rules | None = None
    average: Shares | None = None

    @property
    def name(self) -> str:
        """The label, or else the recipe."""
        return self.label or self.recipe


class ArmsPlan(Record):
    """What plans of both kinds say.

    Attributes:
        title: of the page.
        about: what is asked, in a few sentences.
        base: model that all start from and that gains and losses are counted from, in any form that `degla` takes.
        benchmarks: what is measured, where nothing is drawn from the world.
        set: fields of the training configuration of all arms, by dotted name; an arm's own go before.
        arms: what is compared.
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
        """Tables with fields of the training configuration, as messages name them."""
        return {f"arm {arm.name!r}": arm for arm in self.arms}

    def placed(self, folder: Path) -> dict[str, Any]:
        """Fields whose paths are seen from here, not from the plan's folder."""
        benchmarks = self.benchmarks and self.benchmarks.model_copy(update={"root": folder / self.benchmarks.root})
        return {"set": place(self.set, folder), "arms": placed_tables(self.arms, folder), "benchmarks": benchmarks}


AnyPlan = TypeVar("AnyPlan", bound=ArmsPlan)
AnyTable = TypeVar("AnyTable", bound=FieldTable)


def placed_tables(tables: Sequence[AnyTable], folder: Path) -> tuple[AnyTable, ...]:
    """Tables with paths as they are seen from here."""
    return tuple(table.model_copy(update={"fields": place(table.fields, folder)}) for table in tables)


def read_plan_file(kind: type[AnyPlan], path: Path, *, overrides: Sequence[str], lists: Sequence[str]) -> AnyPlan:
    """Read a plan.

    Args:
        kind: of plan.
        path: ends in .yaml, .yml, .toml or .json. Paths in it are relative to its folder.
        overrides: "NAME=VALUE": a field of the plan ("seeds=2", "world.scenes=500"), or a field of the training
            configuration of every arm, over what the arms say ("train.steps=20").
        lists: fields of the plan that hold tables with training fields, which give way to overrides.

    Raises:
        InputError: the file cannot be read, is no plan, or an override names nothing.
    """
    values = read_values(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: a plan is a table of fields: {', '.join(kind.model_fields)}.")
    for text in overrides:
        _override(values, text, kind=kind, lists=lists)
    plan = validate(kind, values, where=str(path))
    for where, names in {"set": plan.set, **{name: table.fields for name, table in plan.tables().items()}}.items():
        for name in names:
            _check_field(name, where=f"{path}: {where}")
    return plan.model_copy(update=plan.placed(path.parent))


def _check_field(name: str, *, where: str) -> None:
    """Refuse a name that is no field of a training configuration, or one that the study sets."""
    if name in RESERVED:
        raise InputError(f"{where}: field {name!r} cannot be set here: {RESERVED[name]}.")
    fields.check_field(name, where=where)


def _override(values: dict[str, Any], text: str, *, kind: type[ArmsPlan], lists: Sequence[str]) -> None:
    name, equals, written = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: write NAME=VALUE, for example --set train.steps=20.")
    try:
        value = parse_yaml(written, where=f"--set {name}")
    except InputError:
        value = written
    first, _, rest = name.partition(".")
    if first in (*lists, "set"):
        raise InputError(f"--set {text}: name a field of the plan or of the training configuration itself.")
    if first in kind.model_fields:
        if not rest:
            values[name] = value
        elif isinstance(values.get(first), dict):
            values[first] = {**values[first], rest: value}
        else:
            raise InputError(f"--set {text}: the plan has no {first!r} to change.")
        return
    _check_field(name, where=f"--set {text}")
    # What is no table, or no list of tables, is refused where the plan is read.
    given = values.get("set") or {}
    if isinstance(given, dict):
        values["set"] = {**given, name: value}
    for table in (table for each in lists if isinstance(values.get(each), list) for table in values[each]):
        for fields_of in (table, table.get("fields")) if isinstance(table, dict) else ():
            if isinstance(fields_of, dict):
                fields_of.pop(name, None)
