"""A configuration as plain values and back, in YAML, TOML or JSON that people write, and of a run; its fields by dotted
names (`optim.lr`)."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from degla.config.run import ReplayDataConfig, TrainConfig
from degla.config.sections import DataConfig, ValidationConfig
from degla.errors import InputError
from degla.model.address import bring_here
from degla.model.integrity import check_one
from degla.model.runs import latest_checkpoint, settle
from degla.parse import read_json, read_json_object, read_toml, read_yaml
from degla.ranges import allowed, field_types
from degla.remote import address_of, told
from degla.shelf import did_you_mean


def to_plain(config: Any) -> Any:
    """A configuration as JSON values: dataclasses to objects, paths to strings, tuples to lists."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {entry.name: to_plain(getattr(config, entry.name)) for entry in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {name: to_plain(value) for name, value in config.items()}
    if isinstance(config, tuple | list):
        return [to_plain(value) for value in config]
    return told(config) if isinstance(config, Path) else config


def flat(values: Mapping[Any, Any], *, where: str = "", prefix: str = "") -> dict[str, Any]:
    """Plain values by dotted names.

    Raises:
        InputError: a field is there twice, by its dotted name and in a table.
    """
    fields: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        inner = flat(value, where=where, prefix=f"{name}.") if isinstance(value, dict) else {name: value}
        if twice := fields.keys() & inner.keys():
            raise InputError(f"{where}: field {min(twice)!r} stands there twice.")
        fields |= inner
    return fields


def from_plain(values: dict[str, Any], *, where: str) -> TrainConfig:
    """Rebuild a configuration from its JSON values.

    Args:
        values: what `to_plain` gave; fields that are not there have their defaults.
        where: names the file in messages.

    Raises:
        InputError: an unknown field, or a value of the wrong type or out of its range, with the field's name.
    """
    return change(TrainConfig(), flat(values, where=where), where=where)


def flags(config: Any) -> dict[str, bool]:
    """Names of all flags of a configuration, without dashes in front, and whether each is a true-or-false switch."""
    return {name.replace("_", "-"): isinstance(value, bool) for name, value in flat(to_plain(config)).items()}


def differences(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Flags whose values differ between two configurations: (name, old value, new value)."""
    before, after = flat(to_plain(old)), flat(to_plain(new))
    return [
        (name.replace("_", "-"), before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


@cache
def known_fields() -> frozenset[str]:
    """Dotted names of all fields, with underscores."""
    return frozenset(name.replace("-", "_") for name in flags(TrainConfig()))


@cache
def path_fields() -> tuple[str, ...]:
    """Dotted names of the fields that hold a path."""
    sections = {"": TrainConfig, "data.": DataConfig, "replay.data.": ReplayDataConfig, "validation.": ValidationConfig}
    return tuple(
        section + name
        for section, kind in sections.items()
        for name, hint in _plain_types(kind).items()
        if hint in (Path, Path | None)
    )


def check_field(name: str, *, where: str) -> None:
    """Refuse a name that is no field.

    Raises:
        InputError: names the nearest field, and those of its section.
    """
    known = known_fields()
    if name not in known:
        inside = sorted(field for field in known if field.startswith(name + "."))
        section = name if inside else name.rpartition(".")[0]
        same = inside or sorted(field for field in known if section and field.startswith(section + "."))
        listed = f" Fields of {section}: {', '.join(same)}." if same else ""
        hint = "" if inside else did_you_mean(name, known)
        raise InputError(f"{where}: {'no value belongs to' if inside else 'unknown field'} {name!r}.{hint}{listed}")


@cache
def documented(kind: type[Any]) -> dict[str, str]:
    """What the source of a dataclass, and of those that it extends, says below each of its fields."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    base = kind.__base__
    return (documented(base) if dataclasses.is_dataclass(base) else {}) | {
        line.target.id: " ".join(below.value.value.split())
        for line, below in pairwise(body.body)
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }


def _owner(name: str, config: TrainConfig) -> tuple[Any, str]:
    """What holds a known field, and the field's own name."""
    *sections, last = name.split(".")
    owner: Any = config
    for section in sections:
        owner = owner[section] if isinstance(owner, dict) else getattr(owner, section)
    return owner, last


def field_of(name: str, config: TrainConfig) -> tuple[Any, str]:
    """The value of a known field, and the text of the help; for a loss's weight what the loss does."""
    owner, last = _owner(name, config)
    kind: Any = type(owner)
    text = str(inspect.getdoc(kind)) if last == "weight" and ".objective." in f".{name}" else ""
    return getattr(owner, last), text.partition("\n\n")[0] or documented(kind).get(last, "")


def explain_field(name: str, config: TrainConfig | None = None) -> str:
    """A known field: its flag, the text of the help, what it may be, and its value in `config` or by default."""
    owner, last = _owner(name, config or TrainConfig())
    value, kind = getattr(owner, last), cast(Any, type(owner))
    shown = "none" if value in (None, ()) else value
    text = textwrap.fill(documented(kind).get(last, "No text stands below it."), 100, break_on_hyphens=False)
    ends = f"Default: {shown}; a recipe may have another." if config is None else f"Here: {shown}."
    lines = f"{text}\nAllowed: {allowed(field_types(kind)[last])}. {ends}"
    return f"--{name.replace('_', '-')}\n{textwrap.indent(lines, '  ')}\n"


def change(config: TrainConfig, changes: Mapping[str, Any], *, where: str) -> TrainConfig:
    """A configuration with fields changed.

    Args:
        config: what to start from.
        changes: dotted name to value; "1e-4" in a file is a number.
        where: names the file, and the arm of a plan, in messages; "" for flags, whose messages name them.

    Raises:
        InputError: an unknown field, or a value of the wrong type or out of its range.
    """
    for name, value in changes.items():
        check_field(name, where=where)
        config = with_field(config, name.split("."), value, where=where and f"{where}: field {name!r}")
    return config


def with_field(owner: Any, path: list[str], value: Any, *, where: str) -> Any:
    """A dataclass of settings, or a dictionary of such, with one field changed.

    Args:
        owner: what holds it.
        path: the parts of its name.
        value: as a file has it.
        where: begins the message; "" where that names the field well enough.

    Raises:
        InputError: the value is of the wrong type or out of its range.
    """
    name, rest = path[0], path[1:]
    if isinstance(owner, dict):
        inner = with_field(owner[name], rest, value, where=where)
        return owner if inner is owner[name] else {**owner, name: inner}
    before, kind = getattr(owner, name), cast(Any, type(owner))
    if rest:
        inner = with_field(before, rest, value, where=where)
        return owner if inner is before else dataclasses.replace(owner, **{name: inner})
    chosen = _converted(value, _plain_types(kind)[name])
    if type(chosen) is type(before) and chosen == before:
        return owner
    try:
        return dataclasses.replace(owner, **{name: chosen})
    except InputError as error:
        if not where:
            raise
        raise InputError(f"{where}: {error}") from None


def _converted(value: Any, hint: Any) -> Any:
    """A value of a file as its field has it; what is none is left as it is, and refused by the field's type."""
    if get_origin(hint) is tuple and isinstance(value, str):
        value = value.split()  # As on the command line; in a plan a list spans a grid.
    if isinstance(value, bool) and hint is not bool:
        return value  # pydantic would take it for 1 or 0.
    with contextlib.suppress(ValidationError):
        return _adapter(hint).validate_python(str(value) if isinstance(value, Path) else value)
    return value


@cache
def _plain_types(kind: Any) -> dict[str, Any]:
    """The type of each field of a dataclass, without its range: that is checked where the dataclass is made."""
    return get_type_hints(kind)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


_READERS = {".yaml": read_yaml, ".yml": read_yaml, ".toml": read_toml, ".json": read_json}
OF_RUNS = "config.json"
"""The file that a run writes; paths in it are as they were given to the run."""


def read_values(path: Path) -> Any:
    """What a YAML, TOML or JSON file says, by the end of its name.

    Raises:
        InputError: the file cannot be read, or is none of them.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise InputError(f"{path}: its name must end in .yaml, .yml, .toml or .json.")
    return reader(path)


def read_fields(path: Path) -> tuple[str | None, dict[str, Any]]:
    """The recipe that a file names, and its other fields by dotted names, with paths as they are seen from here.

    Paths are relative to the file's folder; those of a run's own `config.json` are as the run was given them.

    Raises:
        InputError: the file cannot be read, is no table, or says a field twice.
    """
    values = read_values(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: a configuration is a table of fields: recipe, model, data.captions, optim.lr, ...")
    fields = flat(values, where=str(path))
    recipe = fields.pop("recipe", None)
    if recipe is not None and not isinstance(recipe, str):
        raise InputError(f"{path}: field 'recipe': {recipe!r} is no name of a recipe.")
    return recipe or None, fields if path.name == OF_RUNS else place(fields, path.parent)


def place(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Fields of a file with their paths as they are seen from here, not from the file's folder."""
    paths = path_fields()

    def seen(path: object) -> str:
        return address_of(str(path)) or str(folder / str(path))

    return {
        name: ([seen(entry) for entry in value] if isinstance(value, list) else seen(value))
        if name in paths and value is not None
        else value
        for name, value in fields.items()
    }


def to_yaml(config: TrainConfig) -> str:
    """All fields of a configuration as YAML, with whole paths, so that the file may lie anywhere."""
    import yaml

    placed = place(flat(to_plain(config)), Path.cwd())
    whole = change(config, {name: placed[name] for name in path_fields()}, where="")
    return str(yaml.safe_dump(to_plain(whole), sort_keys=False, allow_unicode=True, width=120))


FREE = ("checkpoint.", "tracking.", "stop.", "data.workers", "replay.data.workers", "train.strategy")
"""Beginnings of the flags that change nothing about what a step computes, and so may differ after a resume."""


def read_config(run: Path) -> TrainConfig:
    """The configuration of a run's newest checkpoint, with `out` where the run lies now.

    Raises:
        InputError: there is no run, or its configuration was made by another version or by hand and does not fit.
    """
    out, run = run, bring_here(run)
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder.")
    settle(run, patience=5.0)
    newest = latest_checkpoint(run)
    if newest is None:
        raise InputError(f"{told(out)}: no complete checkpoint to go on from; start the run without --resume.")
    path = newest / "config.json"
    check_one(newest, path.name)
    values = read_json_object(path, remedy="Use an earlier checkpoint.", constants=True)
    return replace(from_plain(values, where=str(path)), out=out)


def check_unchanged(old: TrainConfig, new: TrainConfig) -> None:
    """Refuse a resume that would compute something else.

    Raises:
        InputError: names each changed flag with both values.
    """
    changed = [entry for entry in differences(old, new) if not entry[0].startswith(FREE)]
    if changed:
        listed = "; ".join(f"--{name} was {before!r} and is now {now!r}" for name, before, now in changed)
        raise InputError(
            f"a resumed run must stay the same: {listed}. Leave the flag out, or start a new run from the checkpoint "
            f"with --model {old.out} and another --out."
        )
