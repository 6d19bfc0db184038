"""pack negatives into one Parquet file with their provenance"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from degla.files import spare_inputs
from degla.verbs._arguments import CAPTION_FLAGS, describe_columns, given_captions, refuse_given
from degla.verbs._terminal import answer, tell


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("file", type=Path, metavar="FILE", help="negatives, JSONL or Parquet")
    verb.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    verb.add_argument("--captions", type=Path, help="add each negative's caption, image and image id from this file")
    verb.add_argument("--all", action="store_true", help="keep rejected rows too")
    describe_columns(verb)
    verb.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(given: argparse.Namespace) -> int:
    from degla.data.sources import read_negatives
    from degla.negatives.files.caption_index import CaptionIndex
    from degla.negatives.files.pack import pack

    spare_inputs(given.out, given.file, given.captions)
    if given.captions is None:
        refuse_given(given, *CAPTION_FLAGS, why="requires --captions.")
    with nullcontext() if given.captions is None else CaptionIndex(given_captions(given)) as captions:
        summary = pack(read_negatives(given.file), given.out, source=given.file, refused=given.all, captions=captions)
    answer(given, summary.plain, lambda: tell(f"written: {given.out}: {summary.sentence()}"))
    return 0
