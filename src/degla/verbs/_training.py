"""Command-line words of verbs that take a training configuration (recipe, file or run, then flags), and their help."""

from __future__ import annotations

import logging
import re
import shlex
import sys
import textwrap
from collections.abc import Iterable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from degla.errors import InputError
from degla.passwords import without_passwords
from degla.shelf import RECIPES, did_you_mean
from degla.verbs._terminal import tell
from degla.verbs.explain import ALL

if TYPE_CHECKING:
    from degla.config.run import TrainConfig

log = logging.getLogger("degla.train")
Settings = TypeVar("Settings")
CONFIG = "--config"
PRINT = "--print-config"


def configure(words: list[str], *, verb: str, may_resume: bool = True) -> TrainConfig:
    """Read the configuration from `RECIPE [flags]`, `[RECIPE] --config FILE [flags]`, or `--resume RUN [flags]`.

    Args:
        words: behind the verb.
        verb: of the command, for messages.
        may_resume: whether a message may recommend --resume.

    Raises:
        SystemExit: help or the configuration itself was requested and has been printed.
        InputError: unknown recipe, run, file, field or flag; or a resumed run would compute something else.
    """
    printed = PRINT in words
    file, words = _take(CONFIG, [word for word in words if word != PRINT])
    if resume := resumes(words):
        words = [*words[0].split("=", 1), *words[1:]]
    named = words[0] if words and not words[0].startswith("-") else None
    if resume and file:
        raise InputError("a resumed run has its own configuration. Omit --config.")
    if resume and (not words[1:] or words[1][:1] in ("", "-")):
        raise InputError(f"--resume needs the run's folder: degla {verb} --resume RUN")
    at = 0 if resume else next((at for at, word in enumerate(words) if resumes([word])), 0)
    if at:
        command = shlex.join(["degla", verb, *_resume_first(words, at)])
        raise InputError(f"--resume comes first, without a recipe: {command}")
    if not (resume or named or file):
        raise InputError(
            f"no recipe given. Use degla {verb} RECIPE ... or degla {verb} {CONFIG} FILE ... "
            f"Recipes: {', '.join(RECIPES.names())}."
        )
    if named:
        if named not in RECIPES.names() and (option := _meant_option(named, may_resume=may_resume)):
            raise InputError(f"{named}: is not a recipe. Did you mean degla {verb} {option} {shlex.quote(named)} ...?")
        RECIPES.require(named)

    from degla.config.fields import check_unchanged, differences, flags, read_config, to_yaml, unread_fields

    if resume:
        before = default = read_config(Path(words[1]))
    else:
        before, default = _start(named, file)
    first = words[: 2 if resume else 1 if named else 0]
    rest = words[len(first) :]
    program = " ".join(["degla", verb, *first, *([CONFIG, file] if file else [])])
    about, rest = _help_of(rest)
    if about is not None:
        show_help(default, program=program, about=about)
        raise SystemExit(0)
    check_flags(rest, switches=flags(default), remedy=f"All flags: degla train RECIPE --help {ALL}.")

    config = read_flags(rest, default)
    if resume:
        check_unchanged(default, config)
    for sentence in unread_fields((flag for flag, _, value in differences(before, config) if value), config):
        log.info("%s", sentence)
    if printed:
        text = to_yaml(config)
        public = without_passwords(text)
        sys.stdout.write(public)
        if public != text:
            tell("Passwords of addresses are left out. Add them where this configuration is used.")
        raise SystemExit(0)
    return config


def _meant_option(word: str, *, may_resume: bool) -> str | None:
    """Return the option that a run's folder or a configuration file belongs to."""
    from degla.config.fields import OF_RUNS, READERS

    with suppress(OSError):  # A name that is too long, or below a folder that cannot be read.
        # Models, too, have a file of this name.
        if may_resume and Path(word, OF_RUNS).is_file() and any(Path(word).glob("step-*")):
            return "--resume"
        if Path(word).suffix in READERS and Path(word).is_file():
            return CONFIG
    return None


def resumes(words: list[str]) -> bool:
    """Whether a command resumes a run: `--resume` is its first word."""
    return bool(words) and words[0].partition("=")[0] == "--resume"


def _resume_first(words: list[str], at: int) -> list[str]:
    """Return the words with `--resume`, their word `at`, and its run moved to the front, without a recipe."""
    before, after = words[:at], words[at + 1 :]
    run = words[at].partition("=")[2] or (after.pop(0) if after and not after[0].startswith("-") else "")
    if not before[0].startswith("-"):
        named = before.pop(0)
        run = run or (named if named not in RECIPES.names() else "")
    return ["--resume", run or "RUN", *before, *after]


def read_flags(words: list[str], settings: Settings) -> Settings:
    """Apply flags (`--a 1`, `--a=1`, `--list x y`, `--switch`, `--no-switch`); of a repeated one the last counts.

    Args:
        words: flags, none of them unknown, and their values.
        settings: dataclass to change.

    Raises:
        InputError: a word is not a flag; or a value is missing, one too many, or not allowed for its field.
    """
    from degla.config.fields import flags, value_of, with_fields
    from degla.ranges import RangeError

    given: list[tuple[str, list[str]]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            given.append((name.removeprefix("--").replace("_", "-"), [value] if equals else []))
        elif given:
            given[-1][1].append(word)
        else:
            raise InputError(f"{word!r} is not a flag. Flags begin with --.")
    switches = flags(settings)
    sections: dict[str, dict[str, Any]] = {}
    for flag, parts in given:
        section = flag[: flag.rfind(".") + 1]
        field = flag.removeprefix(section).replace("-", "_")
        if switches.get(flag, True):  # --train.trim, or --train.no-trim, which is not among them
            on = flag in switches
            if parts:
                remedy = f" To switch it off: --{section}no-{flag.removeprefix(section)}." if on else ""
                raise InputError(f"--{flag} takes no value.{remedy}")
            sections.setdefault(section, {})[field if on else field.removeprefix("no_")] = on
        else:
            sections.setdefault(section, {})[field] = value_of(flag, parts, settings)
    for section, values in sections.items():
        try:
            settings = with_fields(settings, section.replace("-", "_").split(".")[:-1], values)
        except RangeError as error:  # Losses of replayed pairs have the types, and so the sections, of the run's own.
            raise InputError(f"--{section}{error.flag.rpartition('.')[2]} {error.reason}") from None
    return settings


def _start(named: str | None, file: str | None) -> tuple[TrainConfig, TrainConfig]:
    """Return a recipe's configuration, and that which flags change: with the fields of a file if one is given."""
    from degla.config.fields import as_recorded, change, read_fields
    from degla.config.run import recipe_config

    recipe, fields = read_fields(Path(file)) if file else (None, {})
    if named and recipe and named != recipe:
        raise InputError(f"{file}: its recipe is {recipe!r}, but the command's is {named!r}. Remove one of them.")
    name = named or recipe
    if name is None:
        raise InputError(f"{file}: no recipe. Add 'recipe: NAME' to it, or use degla train NAME {CONFIG} {file}.")
    try:
        RECIPES.require(name)
    except InputError as error:
        raise InputError(f"{file}: field 'recipe': {error}") from None
    plain = recipe_config(name)
    return plain, change(as_recorded(plain, fields), fields, where=str(file))


def _take(flag: str, words: list[str]) -> tuple[str | None, list[str]]:
    """Return the value of a flag that is not a field, given at most once, and the other words."""
    path: str | None = None
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        if name != flag:
            rest.append(word)
            continue
        text = value if equals else next(remaining, "")
        if not text or text.startswith("--") or path:
            raise InputError(f"{flag} is given {'twice' if path else 'without a file'}. Give {flag} FILE once.")
        path = text
    return path, rest


def _help_of(words: list[str]) -> tuple[str | None, list[str]]:
    """Return the requested help topic ("" for the usual fields, None for no help), and the other words."""
    for place, word in enumerate(words):
        if word == "--help-all":
            return ALL, []
        if word in ("-h", "--help"):
            return help_topic(words[place + 1 :]), []
    return None, words


def help_topic(behind: list[str]) -> str:
    """Return the word behind --help, "" if there is none. Raises InputError if there are several."""
    names = list(takewhile(lambda word: not word.startswith("--"), behind))
    if len(names) > 1:
        raise InputError(f"--help takes one field, section or {ALL!r}; got {' '.join(names)}. Ask for one at a time.")
    return names[0] if names else ""


_ELSEWHERE: Final = {
    "lr": "optim.lr", "learning-rate": "optim.lr", "wd": "optim.weight-decay", "warmup": "optim.warmup-steps",
    "grad-clip-norm": "optim.clip-norm", "max-grad-norm": "optim.clip-norm", "num-train-epochs": "train.epochs",
    "max-steps": "train.steps", "per-device-train-batch-size": "train.batch-size", "bf16": "train.precision",
    "fp16": "train.precision", "train-data": "data.captions", "num-workers": "data.workers",
    "pretrained": "model", "logs": "out", "output-dir": "out", "caption-column": "data.text-column",
}  # fmt: skip
"""Flags of the open_clip and transformers trainers, and their names here."""


def check_flags(words: list[str], *, switches: dict[str, bool], remedy: str) -> None:
    """Raise an error for an unknown flag and suggest the nearest one; `remedy` says where all are listed."""
    names = set(switches)
    for name, switch in switches.items():
        if switch:
            section, _, field = name.rpartition(".")
            names.add(f"{section}.no-{field}" if section else f"no-{field}")
    for word in words:
        name = word.partition("=")[0].removeprefix("--").replace("_", "-")
        if word.startswith("--") and name not in names:
            section = name.rpartition(".")[0]
            same = [flag for flag in names if section and flag.startswith(section + ".")]
            # A name of this program's own, such as lr, in a section that does not exist is a mistake in the section.
            last = name.rpartition(".")[2]
            own = any(flag.endswith(f".{last}") for flag in names)
            hint = did_you_mean(_ELSEWHERE.get(name if own else last, name), names)
            if same:
                hint += f" Flags of {section}: {', '.join(sorted(same))}."
            raise InputError(f"unknown flag --{name}.{hint} {remedy}")


_WIDTH = 110
_USUAL = (
    "out", "model", "data.captions", "data.images", "data.negatives", "data.negatives_per_caption", "data.workers",
    "optim.lr", "optim.warmup_steps", "train.batch_size", "train.epochs", "train.steps", "train.precision",
    "train.chunk_size", "train.seed", "adapter.rank", "validation.benchmarks", "validation.root",
    "stop.max_forgetting", "checkpoint.every_minutes",
)  # fmt: skip
"""The fields that most users set, in the order in which they are usually needed."""


def show_help(config: TrainConfig, *, program: str, about: str) -> None:
    """Print the flags of a configuration with its values.

    Args:
        config: of a recipe or a run.
        program: the command up to the flags.
        about: dotted name of a field or section, or "all"; "" for the usual fields.

    Raises:
        InputError: there is no field or section named `about`.
    """
    if about:
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
            "Usual flags, with their values in this configuration:",
            *_rows([*_USUAL, *_own(config)], config),
            "",
            "Losses:",
            *_rows(weights, config),
            *textwrap.wrap(f"Weight 0, with flags of the same form: {other}.", _WIDTH, break_on_hyphens=False),
            *textwrap.wrap(f"Sections and their numbers of flags: {counts}.", _WIDTH, break_on_hyphens=False),
            "",
            f"{program} --help optim.lr     one flag: meaning, range, value",
            f"{program} --help optim        all flags of a section",
            f"{program} --help {ALL}          all flags",
            "",
        ]
    )


def _own(config: TrainConfig) -> list[str]:
    """Return the fields that matter to this configuration in addition to the usual ones."""
    reads = frozenset[str]().union(*(stream.reads for stream in config.streams))
    teaches = any(stream.needs for stream in config.streams)
    fields = {
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
    return [name for name, matters in fields.items() if matters]


def _rows(names: Iterable[str], config: TrainConfig) -> list[str]:
    """Format one line per field: flag, value, and the beginning of its description."""
    from degla.config.fields import field_of, shown_value

    rows = []
    for name in names:
        value, meaning = field_of(name, config)
        flag = f"  --{name.replace('_', '-')}"
        # Without the range and the source, which --help FIELD prints.
        meaning = re.sub(r"(;| \(|, >|, \d|, above \d).*", "", meaning, flags=re.DOTALL).rstrip(".")
        start = f"{flag:<38} {shown_value(value):<9} "
        rows.append(start + textwrap.shorten(meaning, max(_WIDTH - len(start), 20), placeholder=" ..."))
    return rows
