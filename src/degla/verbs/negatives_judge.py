"""reject negatives that are implausible or still true, judged by models"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from degla.errors import InputError
from degla.pages.words import counted
from degla.verbs._arguments import (
    caption_index,
    describe_columns,
    describe_likelihood,
    describe_model,
    describe_negatives,
    model_source,
    model_with_replies,
    refuse_flags,
    require_files,
    require_folder,
    require_jsonl,
)
from degla.verbs._terminal import print_json, tell

if TYPE_CHECKING:
    from degla.screening import Screen


def describe(verb: argparse.ArgumentParser) -> None:
    describe_negatives(verb)
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSONL file to write")
    plausibility = "reject texts far less likely than their captions, by the embedded model or a GGUF, folder or hub id"
    describe_likelihood(verb, "--plausibility", plausibility)
    verb.add_argument(
        "--clip", metavar="MODEL", help="reject texts that match the image as well as the caption, by this CLIP model"
    )
    verb.add_argument("--images", type=Path, metavar="FOLDER", help="with --clip: image folder")
    margin = "with --clip: reject a negative whose cosine is at least the caption's minus this (0)"
    verb.add_argument("--margin", type=float, help=margin)
    verb.add_argument("--device", help="with --clip: cpu, cuda, ... (auto)")
    verb.add_argument("--seed", type=int, default=0, help="seed of the language model (0)")
    describe_columns(verb)
    describe_model(verb, rules="no language model judges", examples=False)
    verb.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(arguments: argparse.Namespace) -> int:
    from degla.data.sources import read_negatives
    from degla.records import only_negatives
    from degla.screening import ImageScreen, TruthScreen, require_images, screen

    _check(arguments)
    with _screens(arguments) as screens, caption_index(arguments) as index:
        if arguments.images is not None:
            require_images(index, arguments.images)
        rows = read_negatives(arguments.file)
        if arguments.clip is not None or arguments.llm != "rules":
            remedy = f"--llm and --clip reject what is true: judge {arguments.file} by --plausibility alone."
            rows = only_negatives(rows, remedy=remedy)
        counts = screen(rows, captions=index, screens=screens, out=arguments.out)
        _write_manifest(arguments, [one.name for one in screens])
    for one in screens:
        if isinstance(one, ImageScreen):
            from degla.evaluation.embed import warn_of_cut

            warn_of_cut(one.encoder, one.cut)
    unanswered = sum(one.unanswered for one in screens if isinstance(one, TruthScreen))
    if unanswered:
        tell(f"no answer to {counted(unanswered, 'request')}: the same command asks again")
    if arguments.json:
        print_json(counts.plain())
        return int(unanswered > 0)
    tell(f"written: {arguments.out}: {counted(counts.rows, 'row')}, {counts.accepted} still accepted")
    for (rule, reason), number in sorted(counts.refused.items()):
        tell(f"  rejected: {rule} {reason} {number}")
    for name, number in sorted(counts.undecided.items()):
        tell(f"  undecided: {name} {number}")
    return int(unanswered > 0)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.plausibility is None and arguments.clip is None and arguments.llm == "rules":
        raise InputError("no judge given. Use one or more of --plausibility, --llm and --clip.")
    if (arguments.clip is None) != (arguments.images is None):
        raise InputError("--clip MODEL and --images FOLDER require each other. Give both or neither.")
    if arguments.clip is None:
        refuse_flags(arguments, "margin", "device", why="requires --clip.")
    if arguments.llm == "rules":
        refuse_flags(arguments, "seed", why="requires --llm.")
    refuse_flags(arguments, "examples", "examples_folder", why="has no effect: a judge is shown no examples.")
    require_jsonl(arguments.out, arguments.file, arguments.captions)
    require_files(arguments.file, arguments.captions)
    if arguments.images is not None:
        require_folder(arguments.images, "of images (--images)")
    if arguments.margin is not None and not isfinite(arguments.margin):
        raise InputError(f"--margin is {arguments.margin}; it must be a finite number, such as 0.01.")
    model_source(arguments)  # Its flags are checked before any model is loaded.


@contextmanager
def _screens(arguments: argparse.Namespace) -> Iterator[list[Screen]]:
    """Open the screens that the arguments name, the cheapest first."""
    from degla import screening

    with ExitStack() as stack:
        screens: list[Screen] = []
        if arguments.plausibility is not None:
            from degla.negatives.llm.likelihood import open_likelihood

            likelihood, name = open_likelihood(arguments.plausibility)
            screens.append(screening.PlausibilityScreen(likelihood, name))
        if arguments.clip is not None:
            from degla.model.load import load_encoder
            from degla.verbs._scoring import resolve_device

            encoder = load_encoder(arguments.clip, device=resolve_device(arguments.device or "auto"))
            screens.append(screening.ImageScreen(encoder, arguments.images, arguments.margin or 0.0))
        if opened := stack.enter_context(model_with_replies(arguments)):
            screens.append(screening.TruthScreen(*opened))
        yield screens


def _write_manifest(arguments: argparse.Namespace, names: list[str]) -> None:
    """Copy the manifest of the negatives beside the output and add the screens' names."""
    from degla.negatives.files.pack import read_manifest
    from degla.negatives.run.output import write_manifest

    manifest = read_manifest(arguments.file) or {}
    write_manifest(arguments.out, {**manifest, "judged": [*manifest.get("judged", []), *names]})
