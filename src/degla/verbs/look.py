"""rank texts for an image with one or more models: cosine, rank and probability, side by side"""

from __future__ import annotations

import argparse
from pathlib import Path

from degla.verbs._scoring import resolve_device
from degla.verbs._terminal import answer, show


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files")
    texts = "one or more texts to rank, each in quotes"
    verb.add_argument("--captions", nargs="+", default=[], metavar="TEXT", help=texts)
    false = "additional texts that are false for the images"
    verb.add_argument("--false", nargs="+", default=[], metavar="TEXT", help=false)
    models = "as for degla evaluate; the last one is compared with the first (photo)"
    verb.add_argument("--models", nargs="+", default=["photo"], metavar="MODEL", help=models)
    negatives = "also rank hard negatives of each text, made by the grammar rules"
    verb.add_argument("--negatives", action="store_true", help=negatives)
    positives = "also rank true rewrites of each text, made by the grammar rules"
    verb.add_argument("--positives", action="store_true", help=positives)
    verb.add_argument("--device", default="auto", help="cpu, cuda, ... (auto)")
    verb.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(arguments: argparse.Namespace) -> int:
    from degla.look import look, render_look

    result = look(
        arguments.images,
        arguments.captions,
        arguments.models,
        false=arguments.false,
        negatives=arguments.negatives,
        positives=arguments.positives,
        device=resolve_device(arguments.device),
    )
    answer(arguments, result.plain, lambda: show(render_look(result)))
    return 0
