"""make hard negative captions"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from degla.shelf import RULES
from degla.verbs._captions import columns, describe_columns
from degla.verbs._terminal import show


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("captions", type=Path, help="COCO json, JSONL, Parquet, CSV, TSV or a datasets folder")
    verb.add_argument("--out", type=Path, required=True, help="JSONL file; an existing one is continued")
    verb.add_argument("--rules", nargs="+", metavar="RULE", help="rules of the shelf (all: see degla ls rules)")
    verb.add_argument("--per-rule", type=int, default=1, metavar="N", help="negatives a caption and rule (1)")
    verb.add_argument("--seed", type=int, default=0, help="seed of the choices (0)")
    verb.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    describe_columns(verb)
    verb.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(given: argparse.Namespace) -> int:
    from degla.data.sources import read_captions
    from degla.negatives.generate import generate

    summary = generate(
        read_captions(given.captions, format=given.format, columns=columns(given)),
        rules=given.rules or RULES.names(),
        out=given.out,
        seed=given.seed,
        per_rule=given.per_rule,
        workers=given.workers,
        progress=True,
    )
    if given.json:
        sys.stdout.write(json.dumps(summary.plain(), indent=2) + "\n")
    else:
        show(summary.render())
    return 0
