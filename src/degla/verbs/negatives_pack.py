"""pack negatives into one Parquet file with their provenance"""

from __future__ import annotations

import argparse
from pathlib import Path

from degla.files import refuse_to_overwrite_inputs
from degla.verbs._terminal import answer, tell


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("file", type=Path, metavar="FILE", help="negatives, JSONL or Parquet")
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="Parquet file to write")
    verb.add_argument("--all", action="store_true", help="keep rejected rows and rows without text too")
    verb.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(arguments: argparse.Namespace) -> int:
    from degla.data.sources import read_negatives
    from degla.negatives.files.pack import pack

    refuse_to_overwrite_inputs(arguments.out, arguments.file)
    summary = pack(read_negatives(arguments.file), arguments.out, source=arguments.file, refused=arguments.all)
    answer(arguments, summary.plain, lambda: tell(f"written: {arguments.out}: {summary.sentence()}"))
    return 0
