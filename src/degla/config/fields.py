"""Fields of a training configuration by their dotted names: `optim.lr`, `objective.text_grounded.weight`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from degla.config.plain import flags
from degla.config.run import TrainConfig
from degla.config.sections import DataConfig, ValidationConfig
from degla.errors import InputError
from degla.ranges import allowed, field_types
from degla.shelf import did_you_mean


@cache
def known_fields() -> frozenset[str]:
    """Dotted names of all fields, with underscores."""
    return frozenset(name.replace("-", "_") for name in flags(TrainConfig()))


@cache
def path_fields() -> tuple[str, ...]:
    """Dotted names of the fields that hold a path."""
    sections = {"": TrainConfig, "data.": DataConfig, "rehearsal.data.": DataConfig, "validation.": ValidationConfig}
    return tuple(
        section + name
        for section, kind in sections.items()
        for name, hint in get_type_hints(kind).items()
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


def documented(kind: type[Any]) -> dict[str, str]:
    """What the source of a dataclass says below each of its fields."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    return {
        line.target.id: " ".join(below.value.value.split())
        for line, below in pairwise(body.body)
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }


def explain_field(name: str) -> str:
    """A known field: its flag, the text of the help, what it may be, and its default."""
    *sections, last = name.split(".")
    owner: Any = TrainConfig()
    for section in sections:
        owner = owner[section] if isinstance(owner, dict) else getattr(owner, section)
    value, kind = getattr(owner, last), cast(Any, type(owner))
    default = "none" if value in (None, ()) else value
    text = textwrap.fill(documented(kind)[last], 100, break_on_hyphens=False)
    told = f"{text}\nAllowed: {allowed(field_types(kind)[last])}. Default: {default}; a recipe may have another."
    return f"--{name.replace('_', '-')}\n{textwrap.indent(told, '  ')}\n"


def change(config: TrainConfig, changes: Mapping[str, Any], *, where: str) -> TrainConfig:
    """A configuration with fields changed.

    Args:
        config: what to start from.
        changes: dotted name to value; "1e-4" in a file is a number.
        where: names the file, and the arm of a plan, in messages.

    Raises:
        InputError: an unknown field, or a value of the wrong type or out of its range.
    """
    for name, value in changes.items():
        check_field(name, where=where)
        config = _replace(config, name.split("."), value, where=f"{where}: field {name!r}")
    return config


def _replace(owner: Any, path: list[str], value: Any, *, where: str) -> Any:
    name, rest = path[0], path[1:]
    if isinstance(owner, dict):
        return {**owner, name: _replace(owner[name], rest, value, where=where)}
    if rest:
        return dataclasses.replace(owner, **{name: _replace(getattr(owner, name), rest, value, where=where)})
    chosen = _converted(value, get_type_hints(type(owner))[name], where=where)
    try:
        return dataclasses.replace(owner, **{name: chosen})
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _converted(value: Any, hint: Any, *, where: str) -> Any:
    if get_origin(hint) is tuple and isinstance(value, str):
        value = value.split()  # As on the command line; in a plan a list spans a grid.
    try:
        return TypeAdapter(hint).validate_python(str(value) if isinstance(value, Path) else value)
    except ValidationError as error:
        raise InputError(f"{where}: {value!r}: {error.errors()[0]['msg']}.") from None
