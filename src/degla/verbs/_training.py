"""Words of verbs that take a training configuration: a recipe or a run, then any of its fields as flags."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from degla.errors import InputError
from degla.shelf import RECIPES, did_you_mean
from degla.verbs._training_help import ALL, show_help

if TYPE_CHECKING:
    from degla.config.run import TrainConfig


def configure(words: list[str], *, verb: str) -> TrainConfig:
    """The configuration of `RECIPE [flags]`, or of `--resume RUN [flags]`.

    Raises:
        SystemExit: help was asked for, and printed.
        InputError: no such recipe, run or flag; or a resumed run would compute something else.
    """
    resume = words[0] == "--resume"
    if not resume:
        _known_recipe(words[0])

    import tyro

    from degla.config.plain import flags
    from degla.config.run import TrainConfig
    from degla.training.resume import check_unchanged, read_config

    default: Any = read_config(Path(words[1])) if resume else getattr(RECIPES.load(words[0]), words[0])()
    rest = words[2:] if resume else words[1:]
    _known_flags(rest, known=flags(default))
    program = f"degla {verb} {' '.join(words[: 2 if resume else 1])}"
    if {"-h", "--help", ALL} & set(rest):
        show_help(default, program=program, everything=ALL in rest)
        raise SystemExit(0)
    try:
        config: TrainConfig = tyro.cli(TrainConfig, args=rest, default=default, prog=program)
    except InputError as error:
        raise InputError(_as_given(str(error), rest)) from None
    if resume:
        check_unchanged(default, config)
    return config


def describe_flags(verb: argparse.ArgumentParser) -> None:
    """Every field of the configuration as a flag, for help; tyro is what reads them."""
    from degla.config.plain import flags
    from degla.config.run import TrainConfig

    for name, switch in flags(TrainConfig()).items():
        verb.add_argument(f"--{name}", help=argparse.SUPPRESS, action="store_true" if switch else "store")


def _as_given(message: str, words: list[str]) -> str:
    """A message about the second stream, whose data and losses have the sections of the first, with the flag given."""
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--rehearsal."):
            message = message.replace(f"--{flag.removeprefix('--rehearsal.')} is ", f"{flag} is ")
    return message


def _known_recipe(name: str) -> None:
    if name not in RECIPES.names():
        raise InputError(
            f"unknown recipe {name!r}.{did_you_mean(name, RECIPES.names())} Known: {', '.join(RECIPES.names())}."
        )


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
