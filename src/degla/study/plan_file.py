"""Tables of plans' files: fields that the study sets itself, overrides from the command line, seeds."""

from __future__ import annotations

from collections.abc import Collection, Container
from typing import Any

from degla.config import fields
from degla.errors import InputError
from degla.parse import parse_yaml

_MOST_SEEDS = 10_000
RESERVED = {
    "recipe": "an arm's recipe is its field 'recipe'",
    "model": "the model of all arms is the plan's field 'base'",
    "out": "the folder of a run is under --out of the study",
    "train.seed": "seeds are the plan's field 'seeds'",
}
"""Fields that the study sets itself, with what to do instead."""


def check_field(name: str, *, where: str) -> None:
    """Refuse a name that is no field of a training configuration, or one that the study sets.

    Raises:
        InputError: says what to do instead.
    """
    if name in RESERVED:
        raise InputError(f"{where}: field {name!r} cannot be set here: {RESERVED[name]}.")
    fields.check_field(name, where=where)


def override(values: dict[str, Any], text: str, *, known: Container[str], lists: Collection[str]) -> None:
    """Change what a plan's file says by "NAME=VALUE", a field of the plan (`known`) or of the training of all.

    `lists` are the fields that hold tables with training fields of their own, which give way. Raises InputError where
    there is no such field.
    """
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
    if first in known:
        if not rest:
            values[name] = value
        elif isinstance(values.get(first), dict):
            values[first] = {**values[first], rest: value}
        else:
            raise InputError(f"--set {text}: the plan has no {first!r} to change.")
        return
    check_field(name, where=f"--set {text}")
    values["set"] = {**(values.get("set") or {}), name: value}
    for table in (table for each in lists for table in values.get(each) or []):
        if isinstance(table, dict):
            table.pop(name, None)


def fields_apart(row: Any, own: Container[str]) -> Any:
    """A table of a plan's file with the fields of the training configuration, those not its own, under "fields"."""
    if not isinstance(row, dict):
        return row
    kept = {name: value for name, value in row.items() if name in own}
    others = {name: value for name, value in row.items() if name not in own}
    return {**kept, "fields": {**(kept.get("fields") or {}), **others}}


def seeds_of(given: Any) -> Any:
    """Seeds from 0 on, where only their number is given."""
    counted = isinstance(given, int) and not isinstance(given, bool) and given <= _MOST_SEEDS
    return tuple(range(given)) if counted else given
