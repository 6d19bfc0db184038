"""A configuration as plain values for files, and back; the names of its flags; what differs between two."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any, get_type_hints

from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.losses.core.objective import LossesByName, loss_class, losses_by_name
from degla.shelf import did_you_mean


def to_plain(config: Any) -> Any:
    """A configuration as JSON values: dataclasses to objects, paths to strings, tuples to lists."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {entry.name: to_plain(getattr(config, entry.name)) for entry in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {name: to_plain(value) for name, value in config.items()}
    if isinstance(config, tuple | list):
        return [to_plain(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def from_plain(values: dict[str, Any], *, where: str) -> TrainConfig:
    """Rebuild a configuration from its JSON values.

    Args:
        values: what `to_plain` gave.
        where: names the file in messages.

    Raises:
        InputError: an unknown field, or a value of the wrong type or out of its range, with the field's name.
    """
    config: TrainConfig = _build(TrainConfig, values, where=where)
    return config


def _build_losses(values: Any, *, where: str) -> LossesByName:
    if not isinstance(values, dict):
        raise InputError(f"{where}: {values!r} stands where losses and their settings belong, an object.")
    built = {name: _build(loss_class(name), chosen, where=f"{where}.{name}") for name, chosen in values.items()}
    return losses_by_name(**built)


def _build(kind: type[Any], values: Any, *, where: str) -> Any:
    if not isinstance(values, dict):
        raise InputError(f"{where}: {values!r} stands where the settings of {kind.__name__} belong, an object.")
    hints = get_type_hints(kind)
    known = {entry.name for entry in dataclasses.fields(kind)}
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"{where}: unknown field {name!r}.{did_you_mean(name, known)}")
        hint = hints[name]
        if hint == LossesByName:
            arguments[name] = _build_losses(value, where=f"{where}: {name}")
        elif dataclasses.is_dataclass(hint):
            arguments[name] = _build(hint, value, where=f"{where}: {name}")  # type: ignore[arg-type]
        elif isinstance(value, str) and (hint is Path or (isinstance(hint, types.UnionType) and Path in hint.__args__)):
            arguments[name] = Path(value)
        elif isinstance(value, list):
            arguments[name] = tuple(value)
        else:
            arguments[name] = value
    try:
        return kind(**arguments)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def flags(config: Any, *, prefix: str = "") -> dict[str, bool]:
    """Names of all flags of a configuration, without dashes in front, and whether each is a true-or-false switch."""
    values = to_plain(config)
    if isinstance(values, dict):
        found: dict[str, bool] = {}
        for name, value in values.items():
            found |= flags(value, prefix=f"{prefix}.{name}" if prefix else name)
        return found
    return {prefix.replace("_", "-"): isinstance(values, bool)}


def differences(old: Any, new: Any, *, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Flags whose values differ between two configurations: (name, old value, new value)."""
    old, new = to_plain(old), to_plain(new)
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[tuple[str, Any, Any]] = []
        for name in sorted(old.keys() | new.keys()):
            path = f"{prefix}.{name}" if prefix else name
            found += differences(old.get(name), new.get(name), prefix=path)
        return found
    return [] if old == new else [(prefix.replace("_", "-"), old, new)]
