"""Words of verbs that take a training configuration: a recipe, a file or a run, then fields as flags; their help."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from degla.errors import InputError
from degla.evaluation.processes import parsed_once
from degla.shelf import RECIPES, did_you_mean

if TYPE_CHECKING:
    from degla.config.run import TrainConfig
    from degla.losses.core.objective import LossesByName

Settings = TypeVar("Settings")
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
            "a resumed run has its own configuration: leave --config out."
            if file
            else f"--resume needs the run's folder: degla {verb} --resume RUN"
        )
    if not (resume or named or file):
        raise InputError(
            f"a recipe comes first: degla {verb} RECIPE ..., or degla {verb} {CONFIG} FILE ... "
            f"Recipes: {', '.join(RECIPES.names())}."
        )
    if named:
        RECIPES.require(named)

    from degla.config.fields import check_unchanged, flags, read_config, to_yaml

    default = read_config(Path(words[1])) if resume else _start(named, file)
    first = words[: 2 if resume else 1 if named else 0]
    rest = words[len(first) :]
    program = " ".join(["degla", verb, *first, *([CONFIG, file] if file else [])])
    about, rest = _help_of(rest)
    if about is not None:
        show_help(default, program=program, about=about)
        raise SystemExit(0)
    require_known(rest, known=flags(default), remedy=f"All flags: degla train RECIPE --help {ALL}.")

    from degla.ranges import RangeError

    try:
        config = _with_flags(rest, default, program=program) if rest else default
    except RangeError as error:
        # Losses of replayed pairs are of the same types as those of the run's own.
        flag = f"--replay.{error.flag}"
        second = any(word.partition("=")[0].replace("_", "-") == flag for word in rest)
        raise InputError(f"{flag} {error.reason}" if second else str(error)) from None
    if resume:
        check_unchanged(default, config)
    if printed:
        sys.stdout.write(to_yaml(config))
        raise SystemExit(0)
    return config


def _with_flags(words: list[str], default: TrainConfig, *, program: str) -> TrainConfig:
    """A configuration changed by known flags; tyro, slow with many fields, sees only those losses that a flag names."""
    sections = {word.partition("=")[0].rpartition(".")[0].replace("-", "_") for word in words}

    def named(losses: LossesByName, section: str) -> LossesByName:
        return {name: loss for name, loss in losses.items() if f"__{section}.{name}" in sections}

    own, replay = default.objective, default.replay
    less = replace(replay, objective=named(replay.objective, "replay.objective"))
    less_of_all = replace(default, objective=named(own, "objective"), replay=less)
    given = read_flags(words, less_of_all, program=program)
    replay = replace(given.replay, objective=replay.objective | given.replay.objective)
    return replace(given, objective=own | given.objective, replay=replay)


def read_flags(words: list[str], default: Settings, *, program: str) -> Settings:
    """A dataclass of settings changed by flags of its fields.

    Raises:
        InputError: a value is missing, or one that its field cannot have.
        SystemExit: anything else is wrong, and printed.
    """
    import tyro

    def read() -> Settings:
        return tyro.cli(type(default), args=words, default=default, prog=program)

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return read()
    except SystemExit:
        _refuse(words, default)
    with parsed_once():
        return read()


def _refuse(words: list[str], settings: Any) -> None:
    """Refuse flags in one line, as a file with such a value is refused; tyro has a box of ten."""
    from degla.config.fields import flags, with_field

    switches = flags(settings)
    values: dict[str, list[str]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        flag = name.removeprefix("--").replace("_", "-")
        if name.startswith("--") and flag in switches:
            values[flag] = [value] if equals else []
        elif values:
            next(reversed(values.values())).append(word)
        else:
            raise InputError(f"{word!r} is no flag: they begin with --.")
    for flag, said in values.items():
        if not said and not switches[flag]:
            raise InputError(f"--{flag} is given without a value.")
        if said and said != ["None"]:
            with_field(settings, flag.replace("-", "_").split("."), " ".join(said), where="")


def _start(named: str | None, file: str | None) -> TrainConfig:
    """What flags change: a recipe's configuration, with the fields of a file where one is given."""
    from degla.config.fields import change, read_fields
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
    from degla.config.fields import flags
    from degla.config.run import TrainConfig

    verb.add_argument(CONFIG, metavar="FILE", help="fields in YAML, TOML or JSON; flags go on top")
    verb.add_argument(PRINT, action="store_true", help="print the whole configuration for --config, and end")
    for name, switch in flags(TrainConfig()).items():
        verb.add_argument(f"--{name}", help=argparse.SUPPRESS, action="store_true" if switch else "store")


def _help_of(words: list[str]) -> tuple[str | None, list[str]]:
    """What help is asked for ("" for the usual fields; None where it is not), and the other words."""
    for place, word in enumerate(words):
        if word == "--help-all":
            return ALL, []
        if word in ("-h", "--help"):
            behind = words[place + 1] if place + 1 < len(words) else ""
            return ("" if behind.startswith("--") else behind), []
    return None, words


_ELSEWHERE: Final = {
    "lr": "optim.lr", "learning-rate": "optim.lr", "wd": "optim.weight-decay", "warmup": "optim.warmup-steps",
    "grad-clip-norm": "optim.clip-norm", "max-grad-norm": "optim.clip-norm", "num-train-epochs": "train.epochs",
    "max-steps": "train.steps", "per-device-train-batch-size": "train.batch-size", "bf16": "train.precision",
    "fp16": "train.precision", "train-data": "data.captions", "num-workers": "data.workers",
    "pretrained": "model", "logs": "out", "output-dir": "out",
}  # fmt: skip
"""Flags of open_clip's trainer and of transformers' by what they are called here."""


def require_known(words: list[str], *, known: dict[str, bool], remedy: str) -> None:
    """Refuse a flag that no field has, with the nearest that one has; `remedy` says where all are listed."""
    names = set(known)
    for name, switch in known.items():
        if switch:
            section, _, field = name.rpartition(".")
            names.add(f"{section}.no-{field}" if section else f"no-{field}")
    for word in words:
        name = word.partition("=")[0].removeprefix("--").replace("_", "-")
        if word.startswith("--") and name not in names:
            section = name.rpartition(".")[0]
            same = [flag for flag in names if section and flag.startswith(section + ".")]
            hint = did_you_mean(_ELSEWHERE.get(name.rpartition(".")[2], name), names)
            if same:
                hint += f" Flags of {section}: {', '.join(sorted(same))}."
            raise InputError(f"unknown flag --{name}.{hint} {remedy}")


ALL = "all"
"""The word behind --help that asks for every flag."""

_WIDTH = 110
_USUAL = (
    "out", "model", "data.captions", "data.images", "data.negatives", "data.negatives_per_caption", "data.workers",
    "optim.lr", "optim.warmup_steps", "train.batch_size", "train.epochs", "train.steps", "train.precision",
    "train.chunk_size", "train.seed", "adapter.rank", "validation.benchmarks", "validation.root",
    "stop.max_forgetting", "checkpoint.every_minutes",
)  # fmt: skip
"""The fields that most users set, in the order in which they think of them."""


def show_help(config: TrainConfig, *, program: str, about: str) -> None:
    """Print the flags of a configuration, with its values.

    Args:
        config: a recipe's, or a run's.
        program: the words of the command up to the flags.
        about: a field or a section by its dotted name, or "all"; "" for the usual fields.

    Raises:
        InputError: nothing is called as `about` says.
    """
    if about == ALL:
        import tyro

        from degla.config.run import TrainConfig

        # tyro ends the program here, as its caller does.
        tyro.cli(TrainConfig, args=["--help"], default=config, prog=program)
    elif about:
        from degla.verbs.explain import explain_fields

        sys.stdout.write(explain_fields(about, config=config))
    else:
        sys.stdout.write(_usual(config, program=program))


def _usual(config: TrainConfig, *, program: str) -> str:
    from degla.config.fields import known_fields

    weights = [
        f"{section}.{name}.weight"
        for section, losses in (("objective", config.objective), ("replay.objective", config.replay.objective))
        for name, loss in losses.items()
        if loss.weight > 0
    ]
    other = ", ".join(name.replace("_", "-") for name, loss in config.objective.items() if not loss.weight)
    sections: dict[str, int] = {}
    for name in known_fields():
        section = name.partition(".")[0]
        sections[section] = sections.get(section, 0) + ("." in name)
    counts = ", ".join(f"{name.replace('_', '-')} ({count})" for name, count in sorted(sections.items()) if count)
    summary = RECIPES.summary(config.recipe) if config.recipe in RECIPES.names() else ""
    return "\n".join(
        [
            f"usage: {program} --data.captions FILE --data.images FOLDER --out FOLDER [FLAGS]",
            *(["", *textwrap.wrap(summary, _WIDTH)] if summary else []),
            "",
            "What most runs set, with the values of this one:",
            *_rows([*_USUAL, *_own(config)], config),
            "",
            "Its losses:",
            *_rows(weights, config),
            *textwrap.wrap(f"Weight 0, each a flag like these: {other}.", _WIDTH, break_on_hyphens=False),
            *textwrap.wrap(f"Sections, with their numbers of flags: {counts}.", _WIDTH, break_on_hyphens=False),
            "",
            f"{program} --help optim.lr     one flag: meaning, range, value",
            f"{program} --help optim        all flags of a section",
            f"{program} --help {ALL}          all flags",
            "",
        ]
    )


def _own(config: TrainConfig) -> list[str]:
    """The fields that matter to this configuration besides the usual ones."""
    reads = frozenset[str]().union(*(stream.reads for stream in config.streams))
    teaches = any(stream.needs for stream in config.streams)
    chosen = {
        "data.classes": "classes" in reads,
        "data.positives": "positive" in reads,
        "data.positives_per_caption": bool({"positive", "unit"} & reads),
        "data.distractor_negative": config.data.distractor_negative,
        "data.neighbours": config.data.neighbours_per_pair > 0,
        "data.draw": config.data.draw != "random",
        "teacher.kind": teaches,
        "teacher.decay": teaches and config.teacher.kind == "average",
        "attack.epsilon": config.attack.epsilon > 0,
        "replay.data.captions": config.replayed is not None,
        "replay.data.images": config.replayed is not None,
        "replay.batch_size": config.replayed is not None,
        "l2_sp.weight": config.l2_sp.weight > 0,
        "train.average": config.train.average is not None,
    }
    return [name for name, wanted in chosen.items() if wanted]


def _rows(names: Iterable[str], config: TrainConfig) -> list[str]:
    """A line a field: its flag, its value, and the beginning of what it means."""
    from degla.config.fields import field_of

    rows = []
    for name in names:
        value, meaning = field_of(name, config)
        shown = "none" if value in (None, ()) else " ".join(value) if isinstance(value, tuple) else str(value)
        flag = f"  --{name.replace('_', '-')}"
        # Without the range and the source, which --help FIELD tells.
        meaning = re.sub(r"(;| \(|, >|, \d|, above \d).*", "", meaning, flags=re.DOTALL).rstrip(".")
        start = f"{flag:<38} {shown:<9} "
        rows.append(start + textwrap.shorten(meaning, max(_WIDTH - len(start), 20), placeholder=" ..."))
    return rows
