"""find similar images for hard-image training: captions whose images a model embeds close together"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from degla.files import spare_inputs
from degla.pages.words import counted
from degla.verbs._arguments import (
    describe_captions,
    describe_columns,
    given_captions,
    require_folder,
    require_least,
)
from degla.verbs._terminal import tell


def describe(verb: argparse.ArgumentParser) -> None:
    describe_captions(verb, images=True)
    verb.add_argument(
        "--model", required=True, help="model whose image embeddings are compared, any model that degla loads"
    )
    verb.add_argument("--count", type=int, default=3, metavar="N", help="neighbours per caption (3, as in NegCLIP)")
    verb.add_argument("--seed", type=int, default=0, help="seed for choosing among captions of one image (0)")
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSONL file to write")
    describe_columns(verb)


def run(given: argparse.Namespace) -> int:
    require_least(given, "count", least=1)
    require_folder(given.images, "of images (--images)")
    require_folder(given.out.parent, "to write to (--out)")
    spare_inputs(given.out, given.captions)
    captions = list(given_captions(given))

    from degla.model.load import load_encoder
    from degla.records import write_jsonl
    from degla.training.features import find_neighbours

    found = find_neighbours(
        captions, folder=given.images, encoder=load_encoder(given.model), count=given.count, seed=given.seed
    )
    count = write_jsonl(given.out, found)
    tell(f"{counted(count, 'caption')} with {counted(given.count, 'neighbour')} each: {given.out}")
    tell(f"Train with: --data.neighbours {shlex.quote(str(given.out))} --data.neighbours-per-pair 1")
    return 0
