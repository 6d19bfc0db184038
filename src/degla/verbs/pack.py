"""pack images, captions and negatives into WebDataset shards that training reads faster than loose files"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from degla.pages.words import counted
from degla.remote import display_path, in_addresses
from degla.verbs._arguments import captions_of, describe_captions, describe_columns, require_folder
from degla.verbs._terminal import print_json


def describe(verb: argparse.ArgumentParser) -> None:
    describe_captions(verb, images=True)
    verb.add_argument("--negatives", type=Path, metavar="FILE", help="negatives from degla negatives")
    verb.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder to write")
    verb.add_argument("--size", type=int, default=256, metavar="PIXELS", help="shorter side of the images (256)")
    verb.add_argument("--quality", type=int, default=92, metavar="N", help="JPEG quality, 1 to 95 (92)")
    verb.add_argument("--per-shard", type=int, default=1000, metavar="N", help="images per shard (1000)")
    verb.add_argument("--workers", type=int, default=2, metavar="N", help="threads (2)")
    describe_columns(verb)
    verb.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(arguments: argparse.Namespace) -> int:
    from degla.data.joining import join
    from degla.data.pack import CAPTIONS_NAME, NEGATIVES_NAME, Packing, pack
    from degla.data.sources import read_negatives
    from degla.records import OPTIONAL_FIELDS

    packing = Packing(
        size=arguments.size, quality=arguments.quality, per_shard=arguments.per_shard, workers=arguments.workers
    )
    require_folder(arguments.images, "of images (--images)")
    negatives = list(read_negatives(arguments.negatives)) if arguments.negatives is not None else None
    captions = captions_of(arguments, optional=OPTIONAL_FIELDS)
    names = display_path(arguments.captions), display_path(arguments.negatives or "")
    rows = join(captions, negatives, files=names)
    counts = pack(rows, negatives or (), folder=arguments.images, out=arguments.out, packing=packing)
    if arguments.json:
        print_json(asdict(counts))
        return 0
    flags = ["--data.captions", str(arguments.out / CAPTIONS_NAME), "--data.images", str(arguments.out)]
    if counts.negatives:
        flags += ["--data.negatives", str(arguments.out / NEGATIVES_NAME)]
    sys.stdout.write(
        f"{counted(counts.images, 'image')}, {counted(counts.captions, 'caption')}, "
        f"{counted(counts.negatives, 'negative')} in {counted(counts.shards, 'shard')}, "
        f"{counts.bytes / 2**20:.1f} MiB.\n"
        f"Train with: {in_addresses(shlex.join(flags))}\n"
    )
    return 0
