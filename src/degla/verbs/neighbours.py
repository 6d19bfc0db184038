"""find similar images for hard-image training: captions whose images a model embeds close together"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from degla.pages.words import counted
from degla.verbs._arguments import (
    captions_of,
    describe_captions,
    describe_columns,
    require_folder,
    require_jsonl,
    require_least,
    require_parent,
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


def run(arguments: argparse.Namespace) -> int:
    require_least(arguments, "count", least=1)
    require_jsonl(arguments.out, arguments.captions)
    require_folder(arguments.images, "of images (--images)")
    require_parent(arguments.out)
    captions = list(captions_of(arguments))

    from degla.model.load import load_encoder
    from degla.records import write_jsonl
    from degla.training.features import find_neighbours

    neighbours = find_neighbours(
        captions,
        folder=arguments.images,
        encoder=load_encoder(arguments.model),
        count=arguments.count,
        seed=arguments.seed,
    )
    count = write_jsonl(arguments.out, neighbours)
    tell(f"{counted(count, 'caption')} with {counted(arguments.count, 'neighbour')} each: {arguments.out}")
    tell(f"Train with: --data.neighbours {shlex.quote(str(arguments.out))} --data.neighbours-per-pair 1")
    return 0
