"""list the accepted in-context examples of each rule"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from degla.pages.words import counted
from degla.shelf import RULES
from degla.verbs._terminal import show


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("rules", nargs="*", metavar="RULE", help="print examples of these rules (only count, for all)")
    verb.add_argument("--examples-folder", type=Path, metavar="DIR", help="folder of your own examples (built in)")
    verb.add_argument("--json", action="store_true", help="print JSON")


def run(given: argparse.Namespace) -> int:
    from rich.table import Column, Table

    from degla.negatives.examples import find_examples, load_examples
    from degla.negatives.rule import load_rule

    for rule in given.rules:
        load_rule(rule)
    listed = {rule: load_examples(rule, folder=given.examples_folder) for rule in given.rules or RULES.names()}
    if given.json:
        rows = {
            rule: [{"caption": one.caption, "negative": one.negative} for one in found]
            for rule, found in listed.items()
        }
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        return 0
    if given.rules:
        for rule, found in listed.items():
            table = Table(
                "caption", "negative", title=f"{rule}: {counted(len(found), 'example')}", title_justify="left"
            )
            for one in found:
                table.add_row(one.caption, one.negative)
            show(table)
        return 0
    table = Table("rule", "examples", Column("file", overflow="fold"))
    for rule, found in listed.items():
        table.add_row(rule, str(len(found)), str(find_examples(rule, folder=given.examples_folder)))
    show(table)
    return 0
