"""the whole pipeline on the embedded world, with a report"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from degla.errors import InputError


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", type=Path, default=Path("demo"), help="folder for all that the demo makes (demo)")
    verb.add_argument("--quick", action="store_true", help="fewer pairs, steps and items: a look, not a measurement")
    verb.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each method, with seeds 0 to N-1 (1)")
    verb.add_argument("--json", action="store_true", help="print the table as JSON")


def run(given: argparse.Namespace) -> int:
    from degla.demo import demo

    if given.seeds < 1:
        raise InputError(f"--seeds is {given.seeds}; give 1 or more.")
    table = demo(given.out, quick=given.quick, seeds=given.seeds)
    if given.json:
        sys.stdout.write(json.dumps(table, indent=2) + "\n")
    return 0
