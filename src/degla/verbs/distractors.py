"""give captions second images with the texts that are true of them, for CoN-CLIP and TripletCLIP"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from degla.errors import InputError
from degla.files import spare_inputs
from degla.verbs._captions import columns, describe_columns


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("captions", type=Path, help="COCO json, JSONL, Parquet, CSV, TSV or a datasets folder")
    verb.add_argument("--negatives", type=Path, required=True, metavar="FILE", help="negatives by degla negatives")
    verb.add_argument("--rule", default="negation", help="rule whose negative is the second image's text (negation)")
    images = verb.add_mutually_exclusive_group(required=True)
    images.add_argument(
        "--neighbours", type=Path, metavar="FILE", help="take the nearest images: degla neighbours wrote it"
    )
    images.add_argument("--drawn", type=Path, metavar="DIR", help="take images called like the caption's id")
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="captions in JSON lines to write")
    describe_columns(verb)


def run(given: argparse.Namespace) -> int:
    if not given.out.parent.is_dir():
        raise InputError(f"{given.out.parent}: no such folder to write to (--out).")
    if given.drawn is not None and not given.drawn.is_dir():
        raise InputError(f"{given.drawn}: no such folder of images (--drawn).")
    spare_inputs(given.out, given.captions, given.negatives, given.neighbours)
    from degla.data.neighbours import NeighbourRecord, drawn_images, similar_images, with_partners
    from degla.data.sources import read_captions, read_negatives
    from degla.records import OPTIONAL_FIELDS, read_jsonl, write_jsonl

    # What other commands have added stays; second images are all new.
    kept = tuple(name for name in OPTIONAL_FIELDS if not name.startswith("distractor_"))
    named = replace(columns(given), optional=kept)
    captions = list(read_captions(given.captions, format=given.format, columns=named))
    if given.drawn is not None:
        image_of = drawn_images(given.drawn)
    else:
        image_of = similar_images(captions, read_jsonl(NeighbourRecord, given.neighbours))
    found = list(with_partners(captions, read_negatives(given.negatives), image_of, rule=given.rule))
    write_jsonl(given.out, found)
    count = sum(1 for caption in found if caption.distractor_image)
    sys.stderr.write(f"{count} of {len(found)} captions with a second image: {given.out}\n")
    return 0
