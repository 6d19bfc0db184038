"""Conversion of configurations to and from plain values, in YAML, TOML and JSON files and in runs; fields by dotted
name (`optim.lr`)."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from degla.config.run import ReplayDataConfig, TrainConfig
from degla.config.sections import DataConfig, ValidationConfig
from degla.errors import InputError
from degla.locks import lock
from degla.model.address import bring_here
from degla.model.integrity import STATE_NAME, check_one
from degla.model.load import model_from
from degla.model.runs import latest_checkpoint, require_checkpoint, settle
from degla.parse import FORM, read_json, read_json_object, read_toml, read_yaml, require_form
from degla.passwords import without_passwords
from degla.ranges import RangeError, allowed, field_types
from degla.remote import address_of, at_home, check_address, display_path
from degla.shelf import IF_OWN, LOSSES, did_you_mean


def to_plain(config: Any) -> Any:
    """Convert a configuration to JSON values: dataclasses to objects, paths to strings, tuples to lists."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {entry.name: to_plain(getattr(config, entry.name)) for entry in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {name: to_plain(value) for name, value in config.items()}
    if isinstance(config, tuple | list):
        return [to_plain(value) for value in config]
    return display_path(config) if isinstance(config, Path) else config


def to_record(config: TrainConfig) -> dict[str, Any]:
    """Return a run's configuration as JSON values, without the user's own losses that it does not use."""
    plain, own = to_plain(config), LOSSES.own()
    for owner in (plain, plain["replay"]):
        kept = {name: loss for name, loss in owner["objective"].items() if name not in own or loss["weight"]}
        owner["objective"] = kept
    return FORM | cast(dict[str, Any], plain)


def as_recorded(config: TrainConfig, fields: Mapping[str, Any]) -> TrainConfig:
    """Return a recipe's configuration without the weights that `to_record` left out of a file because they were 0.

    Args:
        config: the recipe's.
        fields: those of the file; it is such a record if it has the weights of all losses but the user's own.
    """
    own, changes = LOSSES.own(), dict[str, Any]()
    for section, losses in (("objective", config.objective), ("replay.objective", config.replay.objective)):
        weights = {name: f"{section}.{name}.weight" for name in losses}
        if all(weight in fields for name, weight in weights.items() if name not in own):
            changes |= {weight: 0 for name, weight in weights.items() if name in own and weight not in fields}
    return change(config, changes, where="")


def flat(values: Mapping[Any, Any], *, where: str = "", prefix: str = "") -> dict[str, Any]:
    """Flatten plain values to a dictionary by dotted name.

    Raises:
        InputError: a field is given twice, by its dotted name and in a table.
    """
    fields: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        inner = flat(value, where=where, prefix=f"{name}.") if isinstance(value, dict) else {name: value}
        if twice := fields.keys() & inner.keys():
            raise InputError(f"{where}: field {min(twice)!r} is given twice. Remove one.")
        fields |= inner
    return fields


def _fields_of(values: dict[str, Any], *, where: str) -> dict[str, Any]:
    """Flatten the content of a file and take out the number of its form."""
    require_form(values, where=where, remedy="Remove the field.")
    return flat({name: value for name, value in values.items() if name not in FORM}, where=where)


def from_plain(values: dict[str, Any], *, where: str) -> TrainConfig:
    """Rebuild a configuration from its JSON values.

    Args:
        values: as returned by `to_plain` or `to_record`; missing fields have their defaults.
        where: name of the file, for messages.

    Raises:
        InputError: a field is unknown, or its value has the wrong type or is out of range; names the field.
    """
    return change(TrainConfig(), _fields_of(values, where=where), where=where)


def flags(config: Any) -> dict[str, bool]:
    """Return the names of all flags of a configuration, without leading dashes, and whether each is a switch."""
    return {name.replace("_", "-"): isinstance(value, bool) for name, value in flat(to_plain(config)).items()}


def differences(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Return the flags whose values differ between two configurations, as (name, old value, new value)."""
    before, after = flat(to_plain(old)), flat(to_plain(new))
    return [
        (name.replace("_", "-"), before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


@cache
def known_fields() -> frozenset[str]:
    """Return the dotted names of all fields, with underscores."""
    return frozenset(name.replace("-", "_") for name in flags(TrainConfig()))


@cache
def path_fields() -> tuple[str, ...]:
    """Return the dotted names of the fields that hold a path."""
    sections = {"": TrainConfig, "data.": DataConfig, "replay.data.": ReplayDataConfig, "validation.": ValidationConfig}
    return tuple(
        section + name
        for section, kind in sections.items()
        for name, hint in _plain_types(kind).items()
        if hint in (Path, Path | None)
    )


def check_field(name: str, *, where: str) -> None:
    """Check that a name is a field.

    Raises:
        InputError: it is not; the message names the nearest field and the fields of its section.
    """
    fields = known_fields()
    if name not in fields:
        section, _, rest = name.removeprefix("replay.").partition(".")
        loss, losses = rest.partition(".")[0], LOSSES.names()
        if section == "objective" and loss and loss not in losses:
            near = did_you_mean(loss, losses) and did_you_mean(name, fields)
            raise InputError(f"{where}: unknown loss {loss!r}.{near} {IF_OWN} See degla ls losses.")
        inside = sorted(field for field in fields if field.startswith(name + "."))
        section = name if inside else name.rpartition(".")[0]
        same = inside or sorted(field for field in fields if section and field.startswith(section + "."))
        listed = f" Fields of {section}: {', '.join(same)}." if same else ""
        hint = "" if inside else did_you_mean(name, fields)
        raise InputError(f"{where}: {'cannot set the section' if inside else 'unknown field'} {name!r}.{hint}{listed}")


@cache
def documented(kind: type[Any]) -> dict[str, str]:
    """Return the docstrings below the fields in the source of a dataclass and its base classes."""
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
    """Return the object that holds a known field, and the field's own name."""
    *sections, last = name.split(".")
    owner: Any = config
    for section in sections:
        owner = owner[section] if isinstance(owner, dict) else getattr(owner, section)
    return owner, last


def field_of(name: str, config: TrainConfig) -> tuple[Any, str]:
    """Return the value of a known field and its description; for a loss's weight, what the loss does."""
    owner, last = _owner(name, config)
    kind: Any = type(owner)
    text = str(inspect.getdoc(kind)) if last == "weight" and ".objective." in f".{name}" else ""
    return getattr(owner, last), text.partition("\n\n")[0] or documented(kind).get(last, "")


def shown_value(value: Any) -> str:
    """Write a field's value as its flag or a file takes it; texts with blanks in quotes."""
    if isinstance(value, tuple):
        return " ".join(map(shown_value, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    text = "none" if value is None else str(value)
    return f'"{text}"' if isinstance(value, str | Path) and (not text or " " in text) else text


def explain_field(name: str, config: TrainConfig | None = None) -> str:
    """Describe a known field: its flag, description, allowed values, and its value in `config` or default."""
    owner, last = _owner(name, config or TrainConfig())
    shown = shown_value(getattr(owner, last))
    return _explained(
        name, type(owner), f"Default: {shown}; recipes may override it" if config is None else f"Here: {shown}"
    )


def explain_settings(settings: Any) -> str:
    """Describe all fields of a dataclass of settings, none of which is a section, with their values as defaults."""
    values = {each.name: shown_value(getattr(settings, each.name)) for each in dataclasses.fields(settings)}
    return "\n".join(_explained(name, type(settings), f"Default: {value}") for name, value in values.items())


def _explained(name: str, kind: Any, ends: str) -> str:
    last = name.rpartition(".")[2]
    text = textwrap.fill(documented(kind).get(last, "No description."), 100, break_on_hyphens=False)
    section, _, word = (flag := name.replace("_", "-")).rpartition(".")
    hint = field_types(kind)[last]
    # A switch takes no value on the command line.
    values = f"--{flag}, or --{section and section + '.'}no-{word} for false" if hint is bool else allowed(hint)
    lines = f"{text}\n" + textwrap.fill(f"Allowed: {values}. {ends}.", 108, break_on_hyphens=False)
    return f"--{flag}\n{textwrap.indent(lines, '  ')}\n"


def change(config: TrainConfig, changes: Mapping[str, Any], *, where: str) -> TrainConfig:
    """Return a configuration with some fields changed.

    Args:
        config: configuration to start from.
        changes: dotted name to value; "1e-4" in a file is a number.
        where: name of the file, and of the arm of a plan, for messages; "" for flags, whose messages name them.

    Raises:
        InputError: a field is unknown, or its value has the wrong type or is out of range.
    """
    sections: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        check_field(name, where=where)
        section, _, field = name.rpartition(".")
        sections.setdefault(section, {})[field] = value
    for section, values in sections.items():
        try:
            config = with_fields(config, section.split(".") if section else [], values)
        except InputError as error:
            if not where:
                raise
            wrong = error.flag.rpartition(".")[2].replace("-", "_") if isinstance(error, RangeError) else ""
            names = [f"{section}.{name}".removeprefix(".") for name in ([wrong] if wrong in values else values)]
            raise InputError(f"{where}: field {' and '.join(map(repr, names))}: {error}") from None
    return config


def unread_fields(names: Iterable[str], config: TrainConfig) -> Iterator[str]:
    """Yield a sentence on each of these fields that the run does not read.

    Args:
        names: dotted names of fields that the user has set, or their flags without the first hyphens.
        config: configuration with them.
    """
    unread = config.unread
    for flag in (name.replace("_", "-") for name in names):
        reasons = (why for name, why in unread.items() if flag == name or (name[-1] == "." and flag.startswith(name)))
        if why := next(reasons, ""):
            yield f"--{flag} has no effect: {why}."


def with_fields(owner: Any, section: list[str], values: Mapping[str, Any]) -> Any:
    """Return a dataclass of settings, or a dictionary of such dataclasses, with fields of one section changed at once,
    because a section may check them against each other.

    Args:
        owner: the dataclass or dictionary.
        section: parts of the section's dotted name.
        values: field to value, as read from a file.

    Raises:
        InputError: a value has the wrong type or is out of range.
    """
    if section:
        name, *rest = section
        if isinstance(owner, dict) and name not in owner:
            raise InputError(f"the configuration was made before there was a loss {name!r}. Make it anew.")
        before = owner[name] if isinstance(owner, dict) else getattr(owner, name)
        inner = with_fields(before, rest, values)
        if inner is before:
            return owner
        return {**owner, name: inner} if isinstance(owner, dict) else dataclasses.replace(owner, **{name: inner})
    types = _plain_types(cast(Any, type(owner)))
    new = {name: _converted(value, types[name]) for name, value in values.items()}
    if all(type(value) is type(getattr(owner, name)) and value == getattr(owner, name) for name, value in new.items()):
        return owner
    return dataclasses.replace(owner, **new)


def value_of(flag: str, words: list[str], settings: Any) -> Any:
    """Return what the words behind a flag, which is no switch, mean for its field; `with_fields` converts it.

    Raises:
        InputError: the field is not a list, and there is no word, an empty one (`--out="$UNSET"`), or several.
    """
    owner, name = _owner(flag.replace("-", "_"), settings)
    hint = _plain_types(cast(Any, type(owner)))[name]
    if get_origin(hint) is tuple:
        return words
    if not any(words):  # The path "" would be the working directory.
        raise InputError(f"--{flag} needs a value.")
    if len(words) > 1:
        dash = any(word.startswith(("-", "–", "—")) for word in words)  # Editors replace -- by a long dash.
        remedy = "Flags begin with --." if dash else "Quote a value with spaces."
        raise InputError(f"--{flag} takes one value, got {len(words)}: {' '.join(words)}. {remedy}")
    return None if _is_none(words[0]) and NoneType in get_args(hint) else words[0]


def _is_none(value: object) -> bool:
    """Whether a value from a file or a flag means none, for a field that may have none."""
    return value is None or (isinstance(value, str) and value.lower() in ("none", "null"))


def _converted(value: Any, hint: Any) -> Any:
    """Convert a value from a file to its field's type; if that fails, leave it for the field's own check to reject."""
    if get_origin(hint) is tuple and isinstance(value, str):
        value = value.split()  # As on the command line; in a plan a list spans a grid.
    if _is_none(value) and NoneType in get_args(hint) and Path not in get_args(hint):  # A folder may have this name.
        return None
    if isinstance(value, bool) and hint is not bool:
        return value  # pydantic would convert it to 1 or 0.
    if value == "" and Path in (hint, *get_args(hint)):
        return value  # The path "" would be the working folder.
    with contextlib.suppress(ValidationError):
        return _adapter(hint).validate_python(str(value) if isinstance(value, Path) else value)
    return value


@cache
def _plain_types(kind: Any) -> dict[str, Any]:
    """Return the type of each field of a dataclass, without its range, which the dataclass itself checks."""
    return get_type_hints(kind)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


READERS = {".yaml": read_yaml, ".yml": read_yaml, ".toml": read_toml, ".json": read_json}
OF_RUNS = "config.json"
"""Configuration file that a run writes; its paths are as they were given to the run."""


def read_values(path: Path) -> Any:
    """Read a YAML, TOML or JSON file, chosen by its extension.

    Raises:
        InputError: the file cannot be read, or has another extension.
    """
    reader = READERS.get(path.suffix)
    if reader is None:
        raise InputError(f"{path}: its name must end in .yaml, .yml, .toml or .json.")
    return reader(path)


def read_fields(path: Path) -> tuple[str | None, dict[str, Any]]:
    """Read a configuration file: the recipe that it names and its other fields by dotted name.

    Paths in the file are relative to its folder and are returned relative to the working directory. Those of a run's
    own `config.json` are returned as the run was given them.

    Raises:
        InputError: the file cannot be read, is not a table, or gives a field twice.
    """
    values = read_values(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: must be a table of fields such as recipe, model, data.captions and optim.lr.")
    fields = _fields_of(values, where=str(path))
    recipe = fields.pop("recipe", None)
    if recipe is not None and not isinstance(recipe, str):
        raise InputError(f"{path}: field 'recipe': {recipe!r} is not a recipe name. See degla ls recipes.")
    if path.name != OF_RUNS:
        fields |= dict.fromkeys(name for name in path_fields() if _is_none(fields.get(name, "")))
        fields = place(fields, path.parent)
    return recipe or None, fields


def place(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Resolve the paths among the fields of a file, `model` included, against the file's folder; raises as
    `check_address`. Empty ones, which would be the folder itself, are left for `change` to refuse."""
    paths = path_fields()

    def resolve(name: str, value: object) -> object:
        if isinstance(value, list):
            return [resolve(name, entry) for entry in value]
        if name == "model" and isinstance(value, str):
            return model_from(folder, at_home(value))
        if name not in paths or value is None or value == "":
            return value
        check_address(text := at_home(str(value)))
        return address_of(text) or str(folder / text)

    return {name: resolve(name, value) for name, value in fields.items()}


def to_yaml(config: TrainConfig) -> str:
    """Write all fields of a configuration as YAML, with absolute paths, so that the file can be moved anywhere."""
    import yaml

    # "~nouser" is here the folder that was written "./~nouser", not a home folder.
    here = {name: f"./{text}" if str(text)[:1] == "~" else text for name, text in flat(to_plain(config)).items()}
    placed = place(here, Path.cwd())
    whole = change(config, {name: placed[name] for name in ("model", *path_fields())}, where="")
    return str(yaml.safe_dump(to_record(whole), sort_keys=False, allow_unicode=True, width=120))


FREE = ("checkpoint.", "tracking.", "stop.", "data.workers", "replay.data.workers", "train.strategy")
"""Prefixes of the flags that do not affect what a step computes, and so may differ after a resume."""


def read_config(run: Path) -> TrainConfig:
    """Read the configuration of a run's newest checkpoint, with `out` set to the run's current location.

    Raises:
        InputError: there is no run, or its configuration was made by another version or by hand and is not valid.
    """
    out, run = run, bring_here(run)
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder.")
    settle(run, patience=5.0)
    if (run / STATE_NAME).is_file():
        raise InputError(
            f"{run}: a checkpoint, not a run. --resume {run.resolve().parent} resumes its run from the newest one."
        )
    if latest_checkpoint(run) is None:
        with lock(run, remedy="It has no checkpoint yet; wait for it to end."):
            pass  # Otherwise the remedy would be to start a run that is under way.
    newest = require_checkpoint(run, out=out)
    path = newest / "config.json"
    check_one(newest, path.name)
    values = read_json_object(path, remedy="Use an earlier checkpoint.", constants=True)
    return replace(from_plain(values, where=str(path)), out=out)


def check_unchanged(old: TrainConfig, new: TrainConfig) -> None:
    """Check that a resumed run would compute the same as before; passwords of addresses may differ.

    Raises:
        InputError: it would not; names each changed flag with both values.
    """
    changed = [
        (name, before, now)
        for name, before, now in differences(old, new)
        if not name.startswith(FREE) and without_passwords(repr(before)) != without_passwords(repr(now))
    ]
    if changed:
        listed = "; ".join(f"--{name} was {before!r} and is now {now!r}" for name, before, now in changed)
        raise InputError(
            f"cannot change a resumed run: {without_passwords(listed)}. Omit the flag, or start a new run from the "
            f"checkpoint with --model {old.out} and another --out."
        )
