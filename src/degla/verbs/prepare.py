"""hold out captions (split), or add what some recipes read: presence, units, contexts, composites"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import isqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Final

from degla.errors import InputError
from degla.files import cannot_write, whole_folder
from degla.pages.words import counted, duration
from degla.records import OPTIONAL_FIELDS, CaptionRecord, write_jsonl
from degla.remote import address_of, display_path
from degla.shelf import LOSSES
from degla.verbs._arguments import (
    at_least,
    captions_of,
    describe_captions,
    describe_columns,
    describe_model,
    model_source,
    model_with_replies,
    refuse_flags,
    require_folder,
    require_jsonl,
    require_parent,
)
from degla.verbs._terminal import tell

_MAKERS = {
    "split": "the captions of a random fifth of the images (at most 1,000), to evaluate on, and all others: "
    "held_out.jsonl, train.jsonl; with --images, also the folders own and retrieval of those benchmarks",
    "presence": "captions that name absent objects, and multiple-choice questions: captions.jsonl, choice.jsonl, "
    "choice-negatives.jsonl",
    "units": "captions with the objects and relations they name, foils of these (both by rules or, with --llm openai, "
    "a language model), noun phrases, and attribute and relation words: one file",
    "contexts": "captions with a longer true caption that combines the objects and relations they name, by templates "
    "or a language model (--llm): one file",
    "composites": "images and captions joined in pairs, and negatives: captions.jsonl, negatives.jsonl, images/",
}

_WRITE_A_FILE: Final = ("units", "contexts")
"""Makers that write one file, not a folder, and may ask a language model."""
_ONLY_FOR: Final = {"size": ("composites",), "images": ("split", "composites"), "held_out": ("split",)}
"""Flags, and the makers that read them."""
_MOST_HELD_OUT: Final = 1000
_SAMPLED: Final = 256
"""Most images from which a dry run estimates; at least half as many, if there are."""


def describe(verb: argparse.ArgumentParser) -> None:
    listed = (
        fill(f"  {name:<12}{does}", 118, subsequent_indent=" " * 14, break_on_hyphens=False)
        for name, does in _MAKERS.items()
    )
    verb.description = "\n".join([f"{verb.description}", "", "makers:", *listed])
    verb.add_argument("maker", choices=list(_MAKERS), metavar="MAKER", help=f"one of {', '.join(_MAKERS)}")
    describe_captions(verb)
    verb.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help="new folder to write; for units and contexts, a file"
    )
    verb.add_argument("--seed", type=int, default=0, help="seed of all random choices (0)")
    dry = "estimate rows, disk space and time from a sample of the images; write nothing, ask no language model"
    verb.add_argument("--dry-run", action="store_true", help=dry)
    images = "split, composites: folder that image paths are relative to"
    verb.add_argument("--images", type=Path, metavar="FOLDER", help=images)
    held_out = "split: number of images to hold out (a fifth of them, at most 1,000)"
    verb.add_argument("--held-out", type=at_least(1), metavar="N", help=held_out)
    verb.add_argument(
        "--size", type=int, metavar="PIXELS", help="composites: height and width of the images, even (224)"
    )
    describe_columns(verb)
    describe_model(verb, examples=False)
    verb.set_defaults(max_tokens=512)  # Units with their foils are longer than a negative.


def run(arguments: argparse.Namespace) -> int:
    to_file = arguments.maker in _WRITE_A_FILE
    if not to_file and arguments.out.exists():
        raise InputError(f"{arguments.out}: already exists. Choose another --out.")
    model = model_source(arguments)  # Checks the model's flags, also in a dry run, which asks none.
    if model is not None and not to_file:
        raise InputError(f"--llm applies only to degla prepare units and contexts, not to {arguments.maker}.")
    for flag, readers in _ONLY_FOR.items():
        if arguments.maker not in readers:
            why = f"applies only to degla prepare {' and '.join(readers)}, not to {arguments.maker}."
            refuse_flags(arguments, flag, why=why)
    if arguments.maker == "split":
        refuse_flags(arguments, "dry_run", why="does not apply to degla prepare split, which takes seconds.")
    refuse_flags(arguments, "examples", "examples_folder", why="has no effect: the model is shown no examples.")
    if to_file:
        require_jsonl(arguments.out, arguments.captions)
    require_parent(arguments.out)
    makers = {"split": _split, "presence": _presence, "units": _units, "contexts": _contexts, "composites": _composites}
    make = makers[arguments.maker]
    own = () if arguments.maker in ("presence", "composites") else _own_columns()
    captions = captions_of(arguments, optional=_kept_fields(arguments.maker), own=own)
    if arguments.maker != "split":
        captions = _warning_of_other_languages(captions)
    if arguments.dry_run:
        _estimate(make, captions, arguments)
    else:
        tell(f"{make(arguments, captions)}: {arguments.out}")
    return 0


def _warning_of_other_languages(captions: Iterable[CaptionRecord]) -> Iterator[CaptionRecord]:
    """Yield the captions; then warn, once, of those that the rules, which are for English, were not made for."""
    from degla.negatives.checks import check_caption

    other = 0
    for caption in captions:
        other += check_caption(caption.text).reason == "not_english"
        yield caption
    if other:
        tell(f"{counted(other, 'caption counts', 'captions count')} as not English; all rules are for English.")


def _kept_fields(maker: str) -> tuple[str, ...]:
    """Optional fields of the captions that a maker hands on."""
    return {"presence": (), "composites": ("positives",)}.get(maker, OPTIONAL_FIELDS)


def _own_columns() -> tuple[tuple[str, bool], ...]:
    """Columns that the user's own losses read, and whether each holds numbers."""
    if not (names := LOSSES.own()):  # Losses import torch.
        return ()
    from degla.inputs import own_columns
    from degla.losses.core.objective import loss_class

    return own_columns({part for name in names for part in loss_class(name).reads})


def _estimate(
    make: Callable[[argparse.Namespace, Iterable[CaptionRecord]], str],
    captions: Iterable[CaptionRecord],
    arguments: argparse.Namespace,
) -> None:
    """Make the data of a few images in a temporary folder, and tell what all would take."""
    from degla.negatives.grammar.phrases import parse

    rows = list(captions)
    images = list(dict.fromkeys(row.image_id for row in rows))
    chosen = set(images[:: -(-len(images) // _SAMPLED)])
    sample = [row for row in rows if row.image_id in chosen]
    parse(["A dog runs."])  # Loading the tagger is no part of a caption's time.
    with TemporaryDirectory() as folder:
        out = Path(folder) / arguments.out.name
        started = time.monotonic()
        by_rules = {"out": out, "llm": "rules", "typed": frozenset()}
        made = make(argparse.Namespace(**{**vars(arguments), **by_rules}), sample)
        scale = len(images) / len(chosen)
        seconds = scale * (time.monotonic() - started)
        files = [out] if out.is_file() else sorted(each for each in out.rglob("*") if each.is_file())
        size = scale * sum(each.stat().st_size for each in files)
        counts = {each.name: sum(1 for _ in each.open("rb")) for each in files if each.suffix == ".jsonl"}
    tell(
        f"{counted(len(rows), 'caption')} of {counted(len(images), 'image')}; estimated from "
        f"{counted(len(sample), 'caption')} of {counted(len(chosen), 'image')}, nothing was written: {made}"
    )
    lines = [f"about {round(scale * count):,} in {name}" for name, count in counts.items()]
    free = ""
    if address_of(arguments.out) is None:
        place = next(each for each in arguments.out.absolute().parents if each.exists())
        free = f"; {shutil.disk_usage(place).free / 1e9:.1f} GB are free"
    tell(f"rows: {', '.join(lines)}")
    tell(f"disk space: about {size / 1e6:,.1f} MB{free}")
    model = "" if arguments.llm == "rules" else ", and that of a request to the language model for each caption"
    tell(f"time: about {duration(seconds)}{model}")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    try:
        with whole_folder(out) as folder:
            yield folder
    except OSError as error:
        raise cannot_write(out, error, remedy="Choose another --out.") from None


def _split(arguments: argparse.Namespace, captions: Iterable[CaptionRecord]) -> str:
    from degla.data.containers import one_image_per_picture
    from degla.data.images import check_images
    from degla.data.joining import join
    from degla.data.pairs import hold_out
    from degla.data.places import base_of

    missing = ""
    if (images := arguments.images) is not None:
        if address_of(images) is not None:
            why = "the new folder links to the images, which must be in a local folder"
            raise InputError(f"{display_path(images)}: {why}. Copy them to one, or omit --images.")
        require_folder(images, "of images (--images)")
    rows = list(captions)
    merged = list(one_image_per_picture(rows, base=base_of(arguments.captions)))
    if again := sum(new.image != old.image for new, old in zip(merged, rows, strict=True)):
        tell(f"{counted(again, 'row shows', 'rows show')} the picture of an earlier row and are captions of one image.")
    if images is not None:
        report = check_images(join(merged, None, silent=True), images, depth="exists")
        if 2 * len(report.bad) > report.checked:
            raise InputError(f"{report.summary()}\nCheck --images, or remove their rows.")
        if report.bad:
            tell(report.summary())
            missing = f"{len(report.bad):,} of {counted(report.checked, 'image')} cannot be used; "
    count = arguments.held_out
    train, held_out = hold_out(merged, most=count or _MOST_HELD_OUT, one_in=1 if count else 5, seed=arguments.seed)
    if not (train and held_out):
        few, part = (f"{count + 1:,}", f"{count:,}") if count else ("five", "a fifth")
        raise InputError(f"{arguments.captions}: has captions of fewer than {few} images, too few to hold out {part}.")
    with _new_folder(arguments.out) as folder:
        write_jsonl(folder / "train.jsonl", train)
        write_jsonl(folder / "held_out.jsonl", held_out)
        # As the benchmarks own and retrieval read them; own still needs its negatives.
        for benchmark, file in () if images is None else (("own", "captions.jsonl"), ("retrieval", "held_out.jsonl")):
            (folder / benchmark).mkdir()
            write_jsonl(folder / benchmark / file, held_out)
            (folder / benchmark / "images").symlink_to(images.resolve(), target_is_directory=True)
    count = len({caption.image_id for caption in held_out})
    passed = "pass the same --data.images to degla train, or, if none was needed, "
    return (
        f"{counted(len(held_out), 'caption')} of {counted(count, 'image')} held out, {len(train):,} for training; "
        f"{missing}image paths are unchanged: {passed if images is None else 'pass '}"
        f"--data.images {display_path(base_of(arguments.captions) if images is None else images)}"
    )


def _presence(arguments: argparse.Namespace, captions: Iterable[CaptionRecord]) -> str:
    from degla.negatives.presence import naming_the_absent, questions, require_something, survey

    captions = list(captions)
    contents = survey(captions, seed=arguments.seed)
    require_something(contents, where=str(arguments.captions))
    choices = list(questions(captions, contents, seed=arguments.seed))
    with _new_folder(arguments.out) as folder:
        named = write_jsonl(folder / "captions.jsonl", naming_the_absent(captions, contents))
        write_jsonl(folder / "choice.jsonl", (caption for caption, _ in choices))
        write_jsonl(folder / "choice-negatives.jsonl", (negative for _, false in choices for negative in false))
    return (
        f"{named:,} of {counted(len(captions), 'caption names', 'captions name')} an absent object, {len(choices):,} "
        f"of {counted(len(contents), 'image has', 'images have')} a question"
    )


def _units(arguments: argparse.Namespace, captions: Iterable[CaptionRecord]) -> str:
    from degla.negatives.units import with_units
    from degla.negatives.written import UnitWriter

    units, foils = 0, 0

    def counting(captions: Iterable[CaptionRecord]) -> Iterator[CaptionRecord]:
        nonlocal units, foils
        for caption in captions:
            units += len(caption.units)
            foils += sum(len(unit.foils) for unit in caption.units)
            yield caption

    with model_with_replies(arguments) as opened:
        write = None if opened is None else UnitWriter(*opened)
        count = write_jsonl(arguments.out, counting(with_units(captions, seed=arguments.seed, write=write)))
    by = "" if write is None else f", those of {counted(write.written, 'caption')} by {write.model.name}"
    return f"{counted(count, 'caption')} with {counted(units, 'unit')} and {counted(foils, 'foil')}{by}"


def _contexts(arguments: argparse.Namespace, captions: Iterable[CaptionRecord]) -> str:
    from degla.negatives.units import with_contexts
    from degla.negatives.written import ContextWriter

    captions = list(captions)
    with model_with_replies(arguments) as opened:
        write = None if opened is None else ContextWriter(*opened)
        rows = list(with_contexts(captions, seed=arguments.seed, write=write))
    longer = sum(new != old for new, old in zip(rows, captions, strict=True))
    if not longer:
        raise InputError(f"{arguments.captions}: no caption names an object and something more. Use other captions.")
    write_jsonl(arguments.out, rows)
    by = "" if write is None else f", {write.written:,} of them by {write.model.name}"
    return f"{longer:,} of {counted(len(captions), 'caption has', 'captions have')} a longer version{by}"


def _composites(arguments: argparse.Namespace, captions: Iterable[CaptionRecord]) -> str:
    from degla.data.composites import composites
    from degla.data.decoding import MAX_PIXELS

    if arguments.images is None:
        raise InputError("composites need the folder that image paths are relative to (--images).")
    require_folder(arguments.images, "of images (--images)")
    size = 224 if arguments.size is None else arguments.size
    largest = isqrt(MAX_PIXELS) // 2 * 2
    if size % 2 or not 2 <= size <= largest:
        raise InputError(f"--size is {size}; it must be even, from 2 to {largest}.")
    captions = list(captions)
    rows, negatives = [], []
    with _new_folder(arguments.out) as folder:
        (folder / "images").mkdir()
        for composite in composites(captions, folder=arguments.images, size=size, seed=arguments.seed):
            composite.picture.save(folder / "images" / composite.caption.image)
            rows.append(composite.caption)
            negatives += [] if composite.negative is None else [composite.negative]
        write_jsonl(folder / "captions.jsonl", rows)
        write_jsonl(folder / "negatives.jsonl", negatives)
    images = len({caption.image_id for caption in captions})
    return f"{counted(len(rows), 'composite')} of {counted(images, 'image')}, {len(negatives):,} with a negative"
