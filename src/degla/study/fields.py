"""Fields of a training configuration by their dotted names: `optim.lr`, `objective.text_grounded.weight`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from degla.config.plain import flags
from degla.config.run import TrainConfig
from degla.config.sections import DataConfig, ValidationConfig
from degla.errors import InputError
from degla.losses.core.objective import losses_by_name
from degla.shelf import did_you_mean

RESERVED = {
    "recipe": "an arm's recipe is its field 'recipe'",
    "model": "the model of all arms is the plan's field 'base'",
    "out": "the folder of a run is under --out of the study",
    "train.seed": "seeds are the plan's field 'seeds'",
}
"""Fields that the study sets itself, with what to do instead."""


@cache
def known_fields() -> frozenset[str]:
    """Dotted names of all fields that a plan may change, with underscores."""
    names = {name.replace("-", "_") for name in flags(TrainConfig(objective=losses_by_name()))}
    return frozenset(names - RESERVED.keys())


def path_fields() -> tuple[str, ...]:
    """Dotted names of the fields that hold a path."""
    sections = {"data": DataConfig, "rehearsal.data": DataConfig, "validation": ValidationConfig}
    return tuple(
        f"{section}.{name}"
        for section, kind in sections.items()
        for name, hint in get_type_hints(kind).items()
        if hint in (Path, Path | None)
    )


def check_field(name: str, *, where: str) -> None:
    """Refuse a name that is no field of a training configuration.

    Raises:
        InputError: it is unknown, or one that the study sets.
    """
    if name in RESERVED:
        raise InputError(f"{where}: field {name!r} cannot be set here: {RESERVED[name]}.")
    known = known_fields()
    if name not in known:
        section = name.rpartition(".")[0]
        same = sorted(field for field in known if section and field.startswith(section + "."))
        listed = f" Fields of {section}: {', '.join(same)}." if same else ""
        raise InputError(f"{where}: unknown field {name!r}.{did_you_mean(name, known)}{listed}")


def change(config: TrainConfig, changes: Mapping[str, Any], *, where: str) -> TrainConfig:
    """A configuration with fields changed.

    Args:
        config: what to start from.
        changes: dotted name to value; "1e-4" in a file is a number.
        where: names the plan and the arm in messages.

    Raises:
        InputError: an unknown field, or a value of the wrong type or out of its range.
    """
    for name in changes:
        check_field(name, where=where)
    return set_fields(config, changes, where=where)


def set_fields(config: TrainConfig, changes: Mapping[str, Any], *, where: str) -> TrainConfig:
    """As `change`, for any field of the configuration."""
    known = {name.replace("-", "_") for name in flags(TrainConfig())}
    for name, value in changes.items():
        if name not in known:
            raise InputError(f"{where}: unknown field {name!r}.{did_you_mean(name, known)}")
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
        value = value.split()  # As on the command line; a list in a plan spans a grid.
    try:
        return TypeAdapter(hint).validate_python(str(value) if isinstance(value, Path) else value)
    except ValidationError as error:
        raise InputError(f"{where}: {value!r}: {error.errors()[0]['msg']}.") from None
