"""export negatives in the format of the released DeGLA or NegCLIP code"""

from __future__ import annotations

import argparse
from pathlib import Path

from degla.files import spare_inputs
from degla.verbs._arguments import describe_columns, describe_negatives, given_captions, refuse_given
from degla.verbs._terminal import answer, tell


def describe(verb: argparse.ArgumentParser) -> None:
    describe_negatives(verb)
    verb.add_argument(
        "--to",
        choices=("degla-json", "csv"),
        required=True,
        help="the published DeGLA json, or NegCLIP's table (tab-separated if OUT ends in .tsv)",
    )
    verb.add_argument("--out", type=Path, required=True, help="file to write")
    verb.add_argument("--images", type=Path, metavar="FOLDER", help="csv: folder to prepend to image paths")
    describe_columns(verb)
    verb.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(given: argparse.Namespace) -> int:
    from degla.data.sources import read_negatives
    from degla.negatives.files.caption_index import CaptionIndex
    from degla.negatives.files.export import export_degla_json, export_table

    spare_inputs(given.out, given.file, given.captions)
    if given.to != "csv":
        refuse_given(given, "images", why="requires --to csv; this is --to degla-json.")
    records = read_negatives(given.file)
    with CaptionIndex(given_captions(given)) as captions:
        if given.to == "degla-json":
            summary = export_degla_json(records, captions, given.out)
        else:
            summary = export_table(records, captions, given.out, images=given.images)
    answer(given, summary.plain, lambda: tell(f"written: {given.out}: " + "\n".join(summary.sentences())))
    return 0
