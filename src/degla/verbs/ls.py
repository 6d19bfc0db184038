"""list the available recipes, losses, rules, benchmarks and more"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from degla.errors import InputError
from degla.shelf import SHELVES
from degla.verbs._terminal import answer, print_json, show


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("shelf", nargs="?", choices=sorted(SHELVES), help="list only these")
    root = "with benchmarks: show what this folder contains of each"
    verb.add_argument("--root", type=Path, metavar="DATA", help=root)
    verb.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    if arguments.root is not None:
        if arguments.shelf != "benchmarks":
            raise InputError("--root requires benchmarks: degla ls benchmarks --root DATA.")
        return _ls_inventory(arguments)
    shelves = {name: shelf for name, shelf in SHELVES.items() if arguments.shelf in (None, name)}
    members = {name: {item: shelf.summary(item) for item in shelf.names()} for name, shelf in shelves.items()}
    if arguments.json:
        print_json(members)
        return 0
    for name, items in members.items():
        sys.stdout.write(f"{name}\n")
        width = max((len(item) for item in items), default=0)
        for item, summary in items.items():
            sys.stdout.write(f"  {item:<{width}}  {summary}\n")
    return 0


def _ls_inventory(arguments: argparse.Namespace) -> int:
    from degla.evaluation.inventory import render_inventory, take_inventory

    rows = take_inventory(arguments.root)
    answer(arguments, lambda: [row.model_dump() for row in rows], lambda: show(render_inventory(rows)))
    return 0
