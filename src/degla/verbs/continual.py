"""train on tasks in sequence from a plan file, and measure how much each method retains of earlier tasks"""

from __future__ import annotations

import argparse

from degla.verbs._arguments import command_line, describe_plan, refuse_failures, require_least


def describe(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `degla continual`."""
    describe_plan(
        verb,
        runs="sequences",
        fields="override a field of the plan (seeds=2) or of the training of every arm and task (train.steps=20)",
        result="continual.json",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train the unfinished sequences and show the results."""
    from degla.study.sequence_plan import read_sequence_plan

    require_least(arguments, "processes", least=1)
    plan = read_sequence_plan(arguments.plan, overrides=arguments.set)

    from degla.study.retention import as_data, render_terminal
    from degla.study.sequence import conduct_sequences
    from degla.verbs._terminal import print_json, show, tell

    command = command_line(arguments, verb="continual")
    sequences = conduct_sequences(
        plan,
        out=arguments.out,
        where=str(arguments.plan),
        command=command,
        processes=arguments.processes,
        engine=arguments.engine,
    )
    if arguments.json:
        print_json(as_data(sequences, command=command))
    else:
        show(render_terminal(sequences))
        tell(f"written: {arguments.out / 'continual.html'}, continual.md and continual.json beside it")
    refuse_failures(sequences.failures, run="sequence")
    return 0
