"""learn tasks one after another by a plan: what each way of learning keeps of the tasks before"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from degla.errors import DeglaError, InputError


def describe(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `degla continual`."""
    verb.add_argument("plan", type=Path, metavar="PLAN", help="YAML or TOML file; see docs/studies.md")
    verb.add_argument("--out", type=Path, required=True, help="folder; what is done there already is kept")
    verb.add_argument(
        "--processes", type=int, metavar="N", help="sequences at a time, one thread each (one a processor)"
    )
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of the plan (seeds=2) or of the training of every arm and task (train.steps=20); repeatable",
    )
    verb.add_argument("--json", action="store_true", help="print continual.json")


def run(given: argparse.Namespace) -> int:
    """Learn what is left, and show what came of it."""
    from degla.study.sequence_plan import read_sequence_plan

    if given.processes is not None and given.processes < 1:
        raise InputError(f"--processes is {given.processes}; give 1 or more.")
    plan = read_sequence_plan(given.plan, overrides=given.set)

    from degla.study.sequence import conduct_sequences
    from degla.study.sequence_page import as_data, render_terminal
    from degla.verbs._terminal import show

    words = ["degla", "continual", str(given.plan), "--out", str(given.out)]
    words += [word for text in given.set for word in ("--set", text)]
    command = shlex.join(words)
    found = conduct_sequences(plan, out=given.out, where=str(given.plan), command=command, processes=given.processes)
    if given.json:
        data = as_data(found.plan, found.arms, found.failures, command=command)
        sys.stdout.write(json.dumps(data, indent=2) + "\n")
    else:
        show(render_terminal(found.plan, found.arms))
        sys.stderr.write(f"written: {given.out / 'continual.md'}, continual.json and continual.svg beside it\n")
    if found.failures:
        told = "; ".join(f"{title}: {error}" for title, error in found.failures)
        raise DeglaError(f"{len(found.failures)} sequences failed: {told}. The same command tries them again.")
    return 0
