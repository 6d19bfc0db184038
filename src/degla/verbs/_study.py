"""Arguments, command line and failures of the verbs that conduct a plan."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from degla.errors import DeglaError, InputError


def describe_plan(verb: argparse.ArgumentParser, *, runs: str, fields: str, result: str) -> None:
    """Arguments of every verb that conducts a plan.

    Args:
        verb: parser of the verb.
        runs: what is done side by side.
        fields: what `--set` changes.
        result: the file that `--json` prints.
    """
    verb.add_argument("plan", type=Path, metavar="PLAN", help="YAML, TOML or JSON file; see docs/studies.md")
    verb.add_argument("--out", type=Path, required=True, help="folder; what is done there already is kept")
    verb.add_argument("--processes", type=int, metavar="N", help=f"{runs} at a time, one thread each (one a processor)")
    verb.add_argument(
        "--engine", choices=("local", "ray"), default="local", help=f"ray does the {runs} on a cluster (RAY_ADDRESS)"
    )
    verb.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"{fields}; repeatable")
    verb.add_argument("--json", action="store_true", help=f"print {result}")


def check_processes(given: argparse.Namespace) -> None:
    """Refuse a number of processes below 1."""
    if given.processes is not None and given.processes < 1:
        raise InputError(f"--processes is {given.processes}; give 1 or more.")


def command_line(given: argparse.Namespace, *, verb: str) -> str:
    """The command that makes the same again, for the page."""
    words = ["degla", verb, str(given.plan), "--out", str(given.out)]
    return shlex.join([*words, *(word for text in given.set for word in ("--set", text))])


def refuse_failures(failures: Sequence[tuple[str, str]], *, runs: str) -> None:
    """End with an error where something failed; `failures`: titles and causes."""
    if failures:
        told = "; ".join(f"{title}: {error}" for title, error in failures)
        raise DeglaError(f"{len(failures)} {runs} failed: {told}. The same command tries them again.")
