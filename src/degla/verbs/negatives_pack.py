"""pack negatives into one Parquet file with their provenance"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path

from degla.files import spare_inputs
from degla.verbs._captions import columns, describe_columns


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("file", type=Path, metavar="FILE", help="negatives, JSONL or Parquet")
    verb.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    verb.add_argument("--captions", type=Path, help="put each negative's caption, image and image id beside it")
    verb.add_argument("--all", action="store_true", help="keep refused rows too")
    describe_columns(verb)
    verb.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(given: argparse.Namespace) -> int:
    from degla.data.sources import read_captions, read_negatives
    from degla.negatives.files.caption_index import CaptionIndex
    from degla.negatives.files.pack import pack

    spare_inputs(given.out, given.file, given.captions)
    opened = (
        nullcontext()
        if given.captions is None
        else CaptionIndex(read_captions(given.captions, format=given.format, columns=columns(given)))
    )
    with opened as captions:
        summary = pack(read_negatives(given.file), given.out, source=given.file, refused=given.all, captions=captions)
    if given.json:
        sys.stdout.write(json.dumps(summary.plain(), indent=2) + "\n")
    else:
        sys.stderr.write(f"written: {given.out}: {summary.sentence()}\n")
    return 0
