"""Files of plans: YAML or TOML to tables, overrides from the command line, paths as they are seen from here."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from pathlib import Path
from typing import Any

from degla.errors import InputError
from degla.parse import parse_yaml, read_toml, read_yaml
from degla.study.fields import check_field, path_fields

_MOST_SEEDS = 10_000
PATHS = path_fields()
"""Fields that hold a path, which a plan gives from its own folder."""


def parse(path: Path) -> Any:
    """What a YAML or TOML file says.

    Raises:
        InputError: the file cannot be read, or is neither.
    """
    if path.suffix == ".toml":
        return read_toml(path)
    if path.suffix in (".yaml", ".yml"):
        return read_yaml(path)
    raise InputError(f"{path}: the name of a plan ends in .yaml, .yml or .toml.")


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


def place(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Fields of a plan with their paths as they are seen from here, not from the plan's folder."""
    return {
        name: ([str(folder / entry) for entry in value] if isinstance(value, list) else str(folder / str(value)))
        if name in PATHS and value is not None
        else value
        for name, value in fields.items()
    }
