"""export negatives in the format of the released DeGLA or NegCLIP code"""

from __future__ import annotations

import argparse
from pathlib import Path

from degla.files import refuse_to_overwrite_inputs
from degla.verbs._arguments import caption_index, describe_columns, describe_negatives, refuse_flags, require_ending
from degla.verbs._terminal import answer, tell


def describe(verb: argparse.ArgumentParser) -> None:
    describe_negatives(verb)
    to = "the published DeGLA json, or NegCLIP's table (comma- or tab-separated, as --out ends in .csv or .tsv)"
    verb.add_argument("--to", choices=("degla-json", "csv"), required=True, help=to)
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    verb.add_argument("--images", type=Path, metavar="FOLDER", help="csv: folder to prepend to image paths")
    neighbours = "csv: similar images for neg_image, from degla neighbours (random)"
    verb.add_argument("--neighbours", type=Path, metavar="FILE", help=neighbours)
    describe_columns(verb)
    verb.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(arguments: argparse.Namespace) -> int:
    from degla.data.formats import csv, tsv
    from degla.data.neighbours import read_neighbours
    from degla.data.sources import read_negatives
    from degla.negatives.files.export import export_degla_json, export_table

    refuse_to_overwrite_inputs(arguments.out, arguments.file, arguments.captions, arguments.neighbours)
    if arguments.to != "csv":
        refuse_flags(arguments, "images", "neighbours", why="requires --to csv; this is --to degla-json.")
        require_ending(arguments.out, (".json",), what="one JSON document")
    else:
        require_ending(arguments.out, (*csv.ENDINGS, *tsv.ENDINGS), what="a table")
    records = read_negatives(arguments.file)
    with caption_index(arguments) as captions:
        if arguments.to == "degla-json":
            summary = export_degla_json(records, captions, arguments.out)
        else:
            similar = arguments.neighbours and {
                one.caption_id: one.neighbours for one in read_neighbours(arguments.neighbours)
            }
            summary = export_table(records, captions, arguments.out, images=arguments.images, similar=similar)
    answer(arguments, summary.plain, lambda: tell(f"written: {arguments.out}: " + "\n".join(summary.sentences())))
    return 0
