"""fine-tune a model by a recipe, or go on with a run: every field of the configuration is a flag"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from degla.errors import InputError
from degla.shelf import RECIPES, did_you_mean


def run_words(words: list[str]) -> int:
    """`degla train RECIPE [flags]` or `degla train --resume RUN [flags]`: every field of TrainConfig is a flag."""
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(
            "usage: degla train RECIPE [FLAGS] | degla train --resume RUN [FLAGS]\n\n"
            "Every field of the configuration is a flag; degla train RECIPE --help lists them all with the recipe's\n"
            "values.\n\nrecipes:\n"
        )
        for name in RECIPES.names():
            sys.stdout.write(f"  {name:<16} {RECIPES.summary(name)}\n")
        return 0 if words else 2
    resume = words[0] == "--resume"
    if resume and len(words) < 2:
        raise InputError("--resume needs the run's folder: degla train --resume RUN")
    if not resume and words[0].startswith("-"):
        raise InputError(f"a recipe comes first: degla train RECIPE ... Recipes: {', '.join(RECIPES.names())}.")
    if not resume:
        _known_recipe(words[0])

    import tyro

    from degla.config import TrainConfig, flags
    from degla.training.resume import check_unchanged, read_config

    default: Any = read_config(Path(words[1])) if resume else getattr(RECIPES.load(words[0]), words[0])()
    rest = words[2:] if resume else words[1:]
    _known_flags(rest, known=flags(default))
    config = tyro.cli(
        TrainConfig, args=rest, default=default, prog=f"degla train {' '.join(words[: 2 if resume else 1])}"
    )
    if resume:
        check_unchanged(default, config)

    from degla.training.loop import train

    outcome = train(config, resume=resume)
    sys.stderr.write(f"{'finished' if outcome.finished else 'stopped'} at step {outcome.step}: {outcome.folder}\n")
    return 0


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
        if word.startswith("--") and name not in names and name != "help":
            section = name.rpartition(".")[0]
            same = [flag for flag in names if section and flag.startswith(section + ".")]
            hint = did_you_mean(name, names)
            if same:
                hint += f" Flags of {section}: {', '.join(sorted(same))}."
            raise InputError(f"unknown flag --{name}.{hint} All flags: degla train RECIPE --help.")
