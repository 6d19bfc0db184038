"""add a distractor image and its matching text to captions, for CoN-CLIP and TripletCLIP"""

from __future__ import annotations

import argparse
from pathlib import Path

from degla.files import spare_inputs
from degla.pages.words import counted
from degla.verbs._arguments import captions_of, describe_captions, describe_columns, require_folder, require_jsonl
from degla.verbs._terminal import tell


def describe(verb: argparse.ArgumentParser) -> None:
    describe_captions(verb)
    verb.add_argument("--negatives", type=Path, required=True, metavar="FILE", help="negatives from degla negatives")
    verb.add_argument("--rule", default="negation", help="rule whose negative is the distractor's text (negation)")
    images = verb.add_mutually_exclusive_group(required=True)
    images.add_argument("--neighbours", type=Path, metavar="FILE", help="use the nearest images, from degla neighbours")
    images.add_argument("--drawn", type=Path, metavar="DIR", help="use images named after the caption's id")
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSONL file of captions to write")
    describe_columns(verb)


def run(arguments: argparse.Namespace) -> int:
    require_jsonl(arguments.out)
    require_folder(arguments.out.parent, "to write to (--out)")
    if arguments.drawn is not None:
        require_folder(arguments.drawn, "of images (--drawn)")
    spare_inputs(arguments.out, arguments.captions, arguments.negatives, arguments.neighbours)
    from degla.data.neighbours import NeighbourRecord, drawn_images, similar_images, with_partners
    from degla.data.sources import read_negatives
    from degla.records import OPTIONAL_FIELDS, read_jsonl, write_jsonl

    # Fields that other commands added are kept; distractors are replaced.
    fields = tuple(name for name in OPTIONAL_FIELDS if not name.startswith("distractor_"))
    captions = list(captions_of(arguments, optional=fields))
    if arguments.drawn is not None:
        image_of = drawn_images(arguments.drawn)
    else:
        image_of = similar_images(captions, read_jsonl(NeighbourRecord, arguments.neighbours))
    rows = list(with_partners(captions, read_negatives(arguments.negatives), image_of, rule=arguments.rule))
    write_jsonl(arguments.out, rows)
    count = sum(1 for caption in rows if caption.distractor_image)
    tell(f"{count:,} of {counted(len(rows), 'caption')} with a distractor image: {arguments.out}")
    return 0
