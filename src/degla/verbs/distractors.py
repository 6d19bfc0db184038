"""add a distractor image and its matching text to captions, for CoN-CLIP and TripletCLIP"""

from __future__ import annotations

import argparse
from pathlib import Path

from degla.errors import InputError
from degla.pages.words import counted
from degla.remote import refuse_address
from degla.verbs._arguments import (
    captions_of,
    describe_captions,
    describe_columns,
    refuse_flags,
    require_folder,
    require_jsonl,
    require_parent,
)
from degla.verbs._drawing import check_drawing, describe_drawing, draw
from degla.verbs._terminal import tell

_SERVER = ("model", "concurrency", "timeout", "retries", "seed", "extra_body")


def describe(verb: argparse.ArgumentParser) -> None:
    describe_captions(verb)
    verb.add_argument("--negatives", type=Path, required=True, metavar="FILE", help="negatives from degla negatives")
    verb.add_argument("--rule", default="negation", help="rule whose negative is the distractor's text (negation)")
    images = verb.add_mutually_exclusive_group(required=True)
    neighbours = "use the nearest images of which the text can be true, from degla neighbours"
    images.add_argument("--neighbours", type=Path, metavar="FILE", help=neighbours)
    drawn = "images named after caption ids: a%%2F1.png for a/1"
    images.add_argument("--drawn", type=Path, metavar="FOLDER", help=drawn)
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSONL file of captions to write")
    server = verb.add_argument_group("text-to-image server, which draws what --drawn lacks from the negatives")
    describe_drawing(server)
    describe_columns(verb)


def run(arguments: argparse.Namespace) -> int:
    require_jsonl(arguments.out, arguments.captions, arguments.negatives, arguments.neighbours)
    require_parent(arguments.out)
    _check_server(arguments)
    if arguments.drawn is not None and not arguments.base_url:
        refuse_address(arguments.drawn)
        require_folder(arguments.drawn, "of images (--drawn)")
    from degla.data.neighbours import drawn_images, read_neighbours, similar_images, texts_of_rule, with_partners
    from degla.data.sources import read_negatives
    from degla.negatives.presence import find_contradicted
    from degla.records import OPTIONAL_FIELDS, only_negatives, write_jsonl

    # Fields that other commands added are kept; distractors are replaced.
    fields = tuple(name for name in OPTIONAL_FIELDS if not name.startswith("distractor_"))
    captions = list(captions_of(arguments, optional=fields))
    remedy = f"A distractor's text must be false: give a file of negatives, not {arguments.negatives}."
    texts = texts_of_rule(only_negatives(read_negatives(arguments.negatives), remedy=remedy), arguments.rule)
    missing = 0
    if arguments.base_url:
        missing = draw({each.id: texts[each.id] for each in captions if each.id in texts}, arguments.drawn, arguments)
    if arguments.drawn is not None:
        image_of = drawn_images(arguments.drawn, texts)
    else:
        near = read_neighbours(arguments.neighbours)
        image_of = similar_images(captions, near, find_contradicted(captions, texts))
    rows = list(with_partners(captions, texts, image_of, rule=arguments.rule))
    write_jsonl(arguments.out, rows)
    count = sum(1 for caption in rows if caption.distractor_image)
    tell(f"{count:,} of {counted(len(rows), 'caption')} with a distractor image: {arguments.out}")
    if lonely := sum(1 for caption in rows if caption.id in texts and not caption.distractor_image):
        why = "is no image of it" if arguments.drawn else "is no similar image, or each shows what the text denies"
        tell(f"For {lonely:,} more with a text there {why}.")
    return int(bool(missing))


def _check_server(arguments: argparse.Namespace) -> None:
    if not arguments.base_url:
        refuse_flags(arguments, *_SERVER, why="requires --base-url URL.")
        return
    if arguments.drawn is None or not arguments.model:
        raise InputError("--base-url needs --model NAME, and --drawn FOLDER, the one to draw to.")
    check_drawing(arguments, arguments.drawn)
