"""train and evaluate a related system against its baselines in its own domain: one table over seeds"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from degla.errors import InputError
from degla.remote import address_of, display_path, refuse_address
from degla.shelf import SYSTEMS, VERBS
from degla.verbs._arguments import Parser, require_least
from degla.verbs._training import check_flags, read_flags

if TYPE_CHECKING:
    from degla.systems.system import AnySystem, Case

_ACTIONS = {
    "run": "train and evaluate every method with every seed, and write a page",
    "evaluate": "re-evaluate the models of an earlier run with other settings, on all or some of its data",
}


def describe(verb: argparse.ArgumentParser) -> None:
    verb.usage = "degla system NAME run|evaluate [--quick] [--seeds N] [--out DIR] [SETTINGS]"
    verb.add_argument("name", choices=SYSTEMS.names(), help="degla system NAME --help lists its settings")
    actions = "; ".join(f"{name}: {text}" for name, text in _ACTIONS.items())
    verb.add_argument("action", choices=list(_ACTIONS), help=actions)
    quick = "a preview, not a measurement: one seed, little data, few steps"
    verb.add_argument("--quick", action="store_true", help=quick)
    verb.add_argument("--seeds", type=int, metavar="N", help="seeds per method (3; 1 with --quick)")
    verb.add_argument("--first-seed", type=int, default=0, metavar="S", help="use seeds S to S+N-1 (0)")
    verb.add_argument("--methods", nargs="+", default=[], metavar="NAME", help="methods to run (all)")
    out = "folder; finished work is kept (NAME; RUN/evaluation for evaluate)"
    verb.add_argument("--out", type=Path, metavar="FOLDER", help=out)
    verb.add_argument("--models", type=Path, metavar="RUN", help="evaluate: folder of the run (NAME)")
    verb.add_argument("--json", action="store_true", help="print the record as JSON")


def _parser() -> argparse.ArgumentParser:
    summary = VERBS.summary("system")
    about = f"{summary[:1].upper()}{summary[1:]}. Defaults are in parentheses."
    verb = Parser(prog="degla system", description=about, allow_abbrev=False)
    describe(verb)
    return verb


@dataclasses.dataclass(frozen=True)
class SystemCommand:
    """A parsed command."""

    arguments: argparse.Namespace
    system: AnySystem
    settings: Any
    cases: list[Case]


def run_words(words: list[str]) -> int:
    """`degla system NAME run|evaluate [flags]`: every field of the settings is a flag."""
    if len(words) < 2 or set(words) & {"-h", "--help"}:
        return _help(words)
    command = read_command(words)
    arguments = command.arguments
    models = arguments.models
    out = arguments.out or (Path(arguments.name) if models is None else models / "evaluation")

    from degla.systems.conduct import run_system
    from degla.systems.page import render_terminal
    from degla.verbs._terminal import show, tell

    line, request = shlex.join(["degla", "system", *words]), (command.system, command.settings, command.cases)
    record = run_system(*request, name=arguments.name, out=out, command=line, models=models)
    if arguments.json:
        sys.stdout.write(json.dumps(record.model_dump(mode="json"), indent=1) + "\n")
    else:
        show(render_terminal(command.system, record))
        tell(f"written: {out / 'system.html'}, system.md and system.json beside it")
    return 0


def read_command(words: list[str]) -> SystemCommand:
    """Parse the words after `degla system`, including flags of the system's own settings.

    Raises:
        InputError: an unknown name or flag, a wrong value, or flags that conflict.
    """
    SYSTEMS.require(words[0])
    arguments, rest = _parser().parse_known_args(words)
    if arguments.out is not None:
        refuse_address(arguments.out)
    if arguments.models is not None and address_of(arguments.models) is not None:
        raise InputError(f"{display_path(arguments.models)}: models are read from a local folder. Download it.")
    if arguments.models is not None and arguments.action != "evaluate":
        raise InputError("--models applies only to degla system NAME evaluate. Use --out.")
    if arguments.quick and arguments.action == "evaluate":
        raise InputError("--quick applies only to degla system NAME run; evaluate uses the settings of the run.")
    if arguments.first_seed and arguments.action == "evaluate" and arguments.seeds is None:
        raise InputError("--first-seed requires --seeds: evaluate uses the seeds of the run by default.")
    require_least(arguments, "seeds", least=1)
    count = arguments.seeds if arguments.seeds is not None else 1 if arguments.quick else 3
    if not 0 <= arguments.first_seed < 2**31:
        raise InputError(f"--first-seed is {arguments.first_seed}; it must be 0 or more and below {2**31}.")
    if arguments.first_seed + count > 2**31:
        raise InputError(f"--seeds is {count}; the last seed must be below {2**31}.")

    from degla.systems.conduct import cases_of
    from degla.systems.record import load_record, read_settings, seeds_of

    system = SYSTEMS.load(arguments.name).SYSTEM
    start, seeds, methods = system.quick if arguments.quick else system.settings, None, arguments.methods
    if arguments.action == "evaluate":
        arguments.models = arguments.models or Path(arguments.name)
        earlier = load_record(arguments.models, system=arguments.name)
        start = read_settings(type(system.settings), earlier.settings, where=str(arguments.models))
        seeds = seeds_of(earlier.cases) if arguments.seeds is None else None
        methods = methods or list(dict.fromkeys(row.method for row in earlier.cases))
    settings = _settings(start, rest, name=arguments.name)
    seeds = seeds or list(range(arguments.first_seed, arguments.first_seed + count))
    cases = cases_of(system, settings, seeds=seeds, methods=methods)
    # Calls of the run may have had other seeds or methods. Data or methods that none of them had are an error.
    if arguments.action == "evaluate" and arguments.seeds is None:
        done = {row.case for row in earlier.cases}
        measured = {name for case in done for name in (case.data, case.method)}
        cases = [case for case in cases if case in done or not {case.data, case.method} <= measured] or cases
    return SystemCommand(arguments, system, settings, cases)


def _settings(start: Any, words: list[str], *, name: str) -> Any:
    from degla.config.fields import flags

    check_flags(words, switches=flags(start), remedy=f"Flags: degla system {name} --help.")
    return read_flags(words, start)


def _help(words: list[str]) -> int:
    name = words[0] if words and not words[0].startswith("-") else ""
    if not name:
        sys.stdout.write(_parser().format_help() + "\nsystems:\n")
        width = max(map(len, SYSTEMS.names()), default=0)
        sys.stdout.writelines(f"  {each:<{width}}  {SYSTEMS.summary(each)}\n" for each in SYSTEMS.names())
        return 0 if words else 2
    SYSTEMS.require(name)
    wants_help = bool(set(words) & {"-h", "--help"})
    if not wants_help:
        raise InputError(f"degla system {name} needs one of {', '.join(_ACTIONS)}. See degla system {name} --help.")

    from degla.config.fields import explain_settings

    system = SYSTEMS.load(name).SYSTEM
    sys.stdout.write(_parser().format_help())
    sys.stdout.write("\n" + "\n\n".join(SYSTEMS.docstrings(name)) + f"\n\nMethods: {', '.join(system.methods)}.\n\n")
    sys.stdout.write(explain_settings(system.settings))
    return 0
