"""run recipes x settings x seeds from a plan file: one table with intervals, a frontier, paired tests"""

from __future__ import annotations

import argparse
import sys

from degla.verbs._arguments import command_line, describe_plan, refuse_failures, refuse_flags, require_least
from degla.verbs._terminal import tell


def describe(verb: argparse.ArgumentParser) -> None:
    describe_plan(
        verb,
        runs="runs",
        fields="override a field of the plan (seeds=2, world.scenes=500) or of all arms' training (train.steps=20)",
        result="study.json",
    )
    verb.add_argument(
        "--rehearse",
        action="store_true",
        help="rehearse the plan: small model, few steps, the data that is present, generated files for the rest",
    )
    verb.add_argument("--list", action="store_true", help="print the runs and exit")


def run(arguments: argparse.Namespace) -> int:
    from degla.study.plan import read_plan

    require_least(arguments, "processes", least=1)
    plan = read_plan(arguments.plan, overrides=arguments.set)
    if arguments.list:
        why = "has no effect: --list only prints the runs."
        refuse_flags(arguments, "processes", "engine", "rehearse", "json", why=why)
        from degla.study.grid import expand

        runs = expand(plan, where=str(arguments.plan))
        for run in runs:
            sys.stdout.write(f"{run.title}\n")

        from degla.study.materials import missing_paths

        for path in missing_paths(plan, runs):
            tell(f"{path}: no such file or folder, which the plan reads")
        return 0

    from degla.study.conduct import conduct
    from degla.study.record import dump_study

    command = command_line(arguments, verb="study") + (" --rehearse" if arguments.rehearse else "")
    study = conduct(
        plan, out=arguments.out, where=str(arguments.plan), command=command, processes=arguments.processes,
        engine=arguments.engine, rehearsed=arguments.rehearse,
    )  # fmt: skip
    if arguments.json:
        sys.stdout.write(dump_study(study.record))
    else:
        tell(f"written: {arguments.out / 'study.html'}, study.md and study.json beside it")
    refuse_failures(study.record.failures, run="run")
    return 0
