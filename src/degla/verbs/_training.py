"""Words of verbs that take a training configuration: a recipe, a file or a run, then any of its fields as flags."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from degla.errors import InputError
from degla.shelf import RECIPES, did_you_mean
from degla.verbs._training_help import ALL, show_help

if TYPE_CHECKING:
    from degla.config.run import TrainConfig

CONFIG = "--config"
PRINT = "--print-config"


def configure(words: list[str], *, verb: str) -> TrainConfig:
    """The configuration of `RECIPE [flags]`, `[RECIPE] --config FILE [flags]`, or `--resume RUN [flags]`.

    Raises:
        SystemExit: help or the configuration itself was asked for, and printed.
        InputError: no such recipe, run, file, field or flag; or a resumed run would compute something else.
    """
    printed = PRINT in words
    file, words = _take(CONFIG, [word for word in words if word != PRINT])
    resume = words[:1] == ["--resume"]
    named = words[0] if words and not words[0].startswith("-") else None
    if resume and (len(words) < 2 or file):
        raise InputError(
            "a resumed run has its own configuration: leave --config out." if file
            else f"--resume needs the run's folder: degla {verb} --resume RUN"
        )  # fmt: skip
    if not (resume or named or file):
        raise InputError(
            f"a recipe comes first: degla {verb} RECIPE ..., or degla {verb} {CONFIG} FILE ... "
            f"Recipes: {', '.join(RECIPES.names())}."
        )
    if named:
        RECIPES.require(named)

    import tyro

    from degla.config.file import to_yaml
    from degla.config.plain import flags
    from degla.config.run import TrainConfig
    from degla.training.resume import check_unchanged, read_config

    default: Any = read_config(Path(words[1])) if resume else _start(named, file)
    first = words[: 2 if resume else 1 if named else 0]
    rest = words[len(first) :]
    _known_flags(rest, known=flags(default))
    program = " ".join(["degla", verb, *first, *([CONFIG, file] if file else [])])
    if {"-h", "--help", ALL} & set(rest):
        show_help(default, program=program, everything=ALL in rest)
        raise SystemExit(0)
    try:
        config: TrainConfig = tyro.cli(TrainConfig, args=rest, default=default, prog=program)
    except InputError as error:
        raise InputError(_as_given(str(error), rest)) from None
    if resume:
        check_unchanged(default, config)
    if printed:
        sys.stdout.write(to_yaml(config))
        raise SystemExit(0)
    return config


def _start(named: str | None, file: str | None) -> TrainConfig:
    """What flags change: a recipe's configuration, with the fields of a file where one is given."""
    from degla.config.fields import change
    from degla.config.file import read_fields
    from degla.config.run import recipe_config

    recipe, fields = read_fields(Path(file)) if file else (None, {})
    if named and recipe and named != recipe:
        raise InputError(f"{file}: its recipe is {recipe!r}, and the command's is {named!r}; leave one of them out.")
    name = named or recipe
    if name is None:
        raise InputError(f"{file}: names no recipe: write 'recipe: NAME', or degla train NAME {CONFIG} {file}.")
    try:
        start = recipe_config(name)
    except InputError as error:
        raise InputError(f"{file}: field 'recipe': {error}") from None
    return change(start, fields, where=str(file))


def _take(flag: str, words: list[str]) -> tuple[str | None, list[str]]:
    """The value of a flag that is no field, given once or not at all, and the other words."""
    found: str | None = None
    rest: list[str] = []
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if name != flag:
            rest.append(word)
            continue
        given = value if equals else next(left, "")
        if not given or given.startswith("--") or found:
            raise InputError(f"{flag} is given {'twice' if found else 'without a file'}: write {flag} FILE, once.")
        found = given
    return found, rest


def describe_flags(verb: argparse.ArgumentParser) -> None:
    """Every field of the configuration as a flag, for help; tyro is what reads them."""
    from degla.config.plain import flags
    from degla.config.run import TrainConfig

    verb.add_argument(CONFIG, metavar="FILE", help="fields in YAML, TOML or JSON; flags go on top")
    verb.add_argument(PRINT, action="store_true", help="print the whole configuration for --config, and end")
    for name, switch in flags(TrainConfig()).items():
        verb.add_argument(f"--{name}", help=argparse.SUPPRESS, action="store_true" if switch else "store")


def _as_given(message: str, words: list[str]) -> str:
    """A message about the second stream, whose data and losses have the sections of the first, with the flag given."""
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--rehearsal."):
            message = message.replace(f"--{flag.removeprefix('--rehearsal.')} is ", f"{flag} is ")
    return message


def _known_flags(words: list[str], *, known: dict[str, bool]) -> None:
    """Refuse a flag that no field has, with the nearest that one has."""
    names = set(known)
    for name, switch in known.items():
        if switch:
            section, _, field = name.rpartition(".")
            names.add(f"{section}.no-{field}" if section else f"no-{field}")
    for word in words:
        name = word.partition("=")[0].removeprefix("--").replace("_", "-")
        if word.startswith("--") and name not in names and word not in ("--help", ALL):
            section = name.rpartition(".")[0]
            same = [flag for flag in names if section and flag.startswith(section + ".")]
            hint = did_you_mean(name, names)
            if same:
                hint += f" Flags of {section}: {', '.join(sorted(same))}."
            raise InputError(f"unknown flag --{name}.{hint} All flags: degla train RECIPE {ALL}.")
