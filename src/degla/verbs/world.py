"""generate data of the embedded world: image-text pairs, its benchmark, labelled images"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from degla.verbs._arguments import refuse_flags, require_least
from degla.verbs._terminal import tell

_ACTIONS = {
    "draw": "scenes with captions, and the benchmark",
    "recognition": "labelled images of recognition domains, for training or testing",
}
_RECOGNITION = ("domains", "style", "split", "images_per_class")


def describe(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `degla world`."""
    verb.add_argument(
        "action", choices=list(_ACTIONS), help="; ".join(f"{name}: {text}" for name, text in _ACTIONS.items())
    )
    verb.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write to")
    verb.add_argument("--pairs", type=int, default=8000, metavar="N", help="draw: training scenes (8000)")
    captions = "draw: captions per scene (5)"
    verb.add_argument("--captions-per-image", type=int, default=5, metavar="N", help=captions)
    verb.add_argument("--contexts", action="store_true", help="draw: a longer true text of each caption, as a positive")
    verb.add_argument("--seed", type=int, default=0, help="seed (0)")
    only = verb.add_argument_group("recognition only")
    only.add_argument("--domains", nargs="+", metavar="NAME", help="letter, digit, animal, food, thing, ... (all)")
    only.add_argument("--style", metavar="NAME", help="plain, turned, sketched, mosaic or snowy (plain)")
    only.add_argument("--split", choices=["train", "validation", "test"], help="split of the images (train)")
    only.add_argument("--images-per-class", type=int, metavar="N", help="images per class (100)")


def run(arguments: argparse.Namespace) -> int:
    """Do the action."""
    require_least(arguments, "pairs", "captions_per_image", "images_per_class", least=1)
    if arguments.action == "recognition":
        return _recognition(arguments)
    refuse_flags(arguments, *_RECOGNITION, why="applies only to degla world recognition, not to draw.")
    from degla.world.draw import draw_benchmark, draw_pairs

    draw_pairs(
        arguments.out / "pairs", count=arguments.pairs, seed=arguments.seed, contexts=arguments.contexts,
        captions_per_image=arguments.captions_per_image,
    )  # fmt: skip
    draw_benchmark(arguments.out / "benchmark", split="test", seed=arguments.seed)
    tell(f"written: {arguments.out}/pairs and {arguments.out}/benchmark")
    return 0


def _recognition(arguments: argparse.Namespace) -> int:
    from degla.world.recognition import CLASS_TEMPLATE, draw_recognition

    why = "applies only to degla world draw. Use --images-per-class."
    refuse_flags(arguments, "pairs", "captions_per_image", why=why)
    refuse_flags(arguments, "contexts", why="applies only to degla world draw.")
    settings = {name: getattr(arguments, name) for name in _RECOGNITION if name in arguments.typed}
    data = draw_recognition(arguments.out, seed=arguments.seed, **settings)
    tell(f"written: {arguments.out}")
    if arguments.split in (None, "train"):
        flags = {"captions": data.captions, "images": data.images, "classes": data.classes}
        words = [word for name, path in flags.items() for word in (f"--data.{name}", str(path))]
        tell(f"to train: {shlex.join([*words, '--data.class-template', CLASS_TEMPLATE])}")
    else:
        tell(f"to evaluate: --benchmarks zeroshot --root ROOT, with this folder at ROOT/zeroshot/{arguments.out.name}")
    return 0
