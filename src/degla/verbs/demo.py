"""run the whole pipeline on the embedded world or your own photographs, with a report"""

from __future__ import annotations

import argparse
from pathlib import Path

from degla.errors import InputError
from degla.verbs._arguments import require_least
from degla.verbs._terminal import print_json


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", type=Path, default=Path("demo"), metavar="FOLDER", help="output folder (demo)")
    verb.add_argument("--quick", action="store_true", help="fewer pairs, steps and items: a preview, not a measurement")
    verb.add_argument("--seeds", type=int, default=1, metavar="N", help="runs per method, with seeds 0 to N-1 (1)")
    photos = "captions of your own photographs, in any format that degla train reads"
    verb.add_argument("--photos", type=Path, metavar="CAPTIONS", help=photos)
    verb.add_argument("--images", type=Path, metavar="FOLDER", help="with --photos: folder of the photographs")
    verb.add_argument("--json", action="store_true", help="print the table as JSON")


def run(arguments: argparse.Namespace) -> int:
    require_least(arguments, "seeds", least=1)
    if (arguments.photos is None) != (arguments.images is None):
        raise InputError("--photos CAPTIONS and --images FOLDER require each other. Give both or neither.")
    if arguments.photos is None:
        from degla.demo.world import demo

        table = demo(arguments.out, quick=arguments.quick, seeds=arguments.seeds)
    else:
        from degla.demo.photos import demo_photos

        table = demo_photos(
            arguments.photos, arguments.images, arguments.out, quick=arguments.quick, seeds=arguments.seeds
        )
    if arguments.json:
        print_json(table)
    return 0
