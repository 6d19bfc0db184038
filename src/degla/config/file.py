"""Configurations in files: YAML, TOML or JSON that people write, with fields by dotted names or in tables; of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from degla.config.fields import change, differences, flat, from_plain, new_name, path_fields, to_plain
from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.model.address import bring_here
from degla.model.integrity import check_one
from degla.model.runs import latest_checkpoint, settle
from degla.parse import read_json, read_json_object, read_toml, read_yaml
from degla.remote import address_of, told

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
    renamed = {new_name(name): value for name, value in fields.items()}

    def seen(path: object) -> str:
        return address_of(str(path)) or str(folder / str(path))

    return {
        name: ([seen(entry) for entry in value] if isinstance(value, list) else seen(value))
        if name in paths and value is not None
        else value
        for name, value in renamed.items()
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
