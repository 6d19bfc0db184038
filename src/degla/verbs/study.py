"""recipes x settings x seeds by a plan: one table with intervals, a frontier, paired tests"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from degla.errors import DeglaError, InputError


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("plan", type=Path, metavar="PLAN", help="YAML or TOML file; see docs/studies.md")
    verb.add_argument("--out", type=Path, required=True, help="folder; what is done there already is kept")
    verb.add_argument("--processes", type=int, metavar="N", help="runs at a time, one thread each (one a processor)")
    verb.add_argument(
        "--price", type=float, metavar="X", help="joint score: points gained that a point lost costs (the plan's, 1)"
    )
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of the plan (seeds=2, world.scenes=500) or of every arm's training (train.steps=20); repeatable",
    )
    verb.add_argument("--list", action="store_true", help="print the runs and stop")
    verb.add_argument("--json", action="store_true", help="print study.json")


def run(given: argparse.Namespace) -> int:
    from degla.study.plan import read_plan

    if given.processes is not None and given.processes < 1:
        raise InputError(f"--processes is {given.processes}; give 1 or more.")
    overrides = [*given.set, *([] if given.price is None else [f"price={given.price}"])]
    plan = read_plan(given.plan, overrides=overrides)
    if given.list:
        from degla.study.grid import expand

        for run in expand(plan, where=str(given.plan)):
            sys.stdout.write(f"{run.label}, seed {run.seed}\n")
        return 0

    from degla.study.conduct import conduct
    from degla.study.page import as_data

    words = ["degla", "study", str(given.plan), "--out", str(given.out)]
    words += [word for text in given.set for word in ("--set", text)]
    words += [] if given.price is None else ["--price", f"{given.price:g}"]
    findings = conduct(plan, out=given.out, where=str(given.plan), command=shlex.join(words), processes=given.processes)
    if given.json:
        sys.stdout.write(json.dumps(as_data(findings), indent=2) + "\n")
    else:
        sys.stderr.write(f"written: {given.out / 'study.html'}, study.md and study.json beside it\n")
    if findings.failures:
        told = "; ".join(f"{title}: {error}" for title, error in findings.failures)
        raise DeglaError(f"{len(findings.failures)} runs failed: {told}. The same command tries them again.")
    return 0
