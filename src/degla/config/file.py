"""A configuration as a file that people write: YAML, TOML or JSON, with fields by dotted names or in tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from degla.config.fields import change, path_fields
from degla.config.plain import to_plain
from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.parse import read_json, read_toml, read_yaml

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
    fields = _flat(values, where=str(path))
    recipe = fields.pop("recipe", None)
    if recipe is not None and not isinstance(recipe, str):
        raise InputError(f"{path}: field 'recipe': {recipe!r} is no name of a recipe.")
    return recipe or None, fields if path.name == OF_RUNS else place(fields, path.parent)


def place(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Fields of a file with their paths as they are seen from here, not from the file's folder."""
    paths = path_fields()
    return {
        name: ([str(folder / entry) for entry in value] if isinstance(value, list) else str(folder / str(value)))
        if name in paths and value is not None
        else value
        for name, value in fields.items()
    }


def to_yaml(config: TrainConfig) -> str:
    """All fields of a configuration as YAML, with whole paths, so that the file may lie anywhere."""
    import yaml

    placed = place(_flat(to_plain(config), where=""), Path.cwd())
    whole = change(config, {name: placed[name] for name in path_fields()}, where="")
    return str(yaml.safe_dump(to_plain(whole), sort_keys=False, allow_unicode=True, width=120))


def _flat(values: Mapping[Any, Any], *, where: str, prefix: str = "") -> dict[str, Any]:
    """Tables inside tables as dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        inner = _flat(value, where=where, prefix=f"{name}.") if isinstance(value, dict) else {name: value}
        twice = found.keys() & inner.keys()
        if twice:
            raise InputError(f"{where}: field {min(twice)!r} stands there twice.")
        found |= inner
    return found
