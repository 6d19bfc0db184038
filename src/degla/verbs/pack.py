"""pack images, captions and negatives into WebDataset shards that training reads faster than loose files"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from degla.errors import InputError
from degla.pages.words import counted
from degla.verbs._arguments import describe_captions, describe_columns, given_captions, require_folder
from degla.verbs._terminal import print_json


def describe(verb: argparse.ArgumentParser) -> None:
    describe_captions(verb, images=True)
    verb.add_argument("--negatives", type=Path, metavar="FILE", help="negatives from degla negatives")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder to write")
    verb.add_argument("--size", type=int, default=256, metavar="PIXELS", help="shorter side of the images (256)")
    verb.add_argument("--quality", type=int, default=92, metavar="N", help="JPEG quality, 1 to 95 (92)")
    verb.add_argument("--per-shard", type=int, default=1000, metavar="N", help="images per shard (1000)")
    verb.add_argument("--workers", type=int, default=2, metavar="N", help="threads (2)")
    describe_columns(verb)
    verb.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(given: argparse.Namespace) -> int:
    for name, least, most in (("size", 32, 4096), ("quality", 1, 95), ("per_shard", 1, 10**6), ("workers", 1, 256)):
        if not least <= getattr(given, name) <= most:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} is {getattr(given, name)}; it must be from {least} to {most}.")
    require_folder(given.images, "of images (--images)")
    from degla.data.joining import join
    from degla.data.pack import CAPTIONS_NAME, NEGATIVES_NAME, Packing, pack
    from degla.data.sources import read_negatives
    from degla.records import OPTIONAL_FIELDS

    negatives = list(read_negatives(given.negatives)) if given.negatives is not None else []
    rows = join(given_captions(given, optional=OPTIONAL_FIELDS), negatives if negatives else None)
    packing = Packing(size=given.size, quality=given.quality, per_shard=given.per_shard, workers=given.workers)
    found = pack(rows, negatives, folder=given.images, out=given.out, packing=packing)
    if given.json:
        print_json(asdict(found))
        return 0
    flags = ["--data.captions", str(given.out / CAPTIONS_NAME), "--data.images", str(given.out)]
    if found.negatives:
        flags += ["--data.negatives", str(given.out / NEGATIVES_NAME)]
    sys.stdout.write(
        f"{counted(found.images, 'image')}, {counted(found.captions, 'caption')}, "
        f"{counted(found.negatives, 'negative')} in {counted(found.shards, 'shard')}, "
        f"{found.bytes / 2**20:.1f} MiB.\n"
        f"Train with: {shlex.join(flags)}\n"
    )
    return 0
