"""The demo on your own photographs and captions, with the built-in model `photo`, whose text tower is fine-tuned.

A fifth of the images is held out for evaluation: true captions against false ones made by the rules, and retrieval.
Each image is embedded only once, so the demo takes minutes on an ordinary machine.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from degla.config.run import TrainConfig, recipe_config
from degla.data.images import check_images, locate, usable_rows
from degla.data.pairs import PairRow, hold_out
from degla.data.sources import read_captions, read_negatives
from degla.data.table import table_of
from degla.demo import methods
from degla.errors import InputError
from degla.evaluation.results import load_result
from degla.evaluation.terminal import named_scores
from degla.negatives.run.output import manifest_path
from degla.pages.words import counted, percent
from degla.records import CaptionRecord, write_jsonl
from degla.study.tuning import tune

log = logging.getLogger("degla.demo")

METHODS: Final[dict[str, float | None]] = {"degla_plus": None, "degla": None, "negclip": None, "clip": None}
RATE: Final = 1e-4
"""Learning rate that replaces a recipe's 1e-6."""
STEPS, QUICK_STEPS = 300, 60
LARGEST, QUICK_LARGEST = 7500, 1000
"""Largest number of images used."""
LARGEST_HELD: Final = 1000
LEAST: Final = 20
"""Smallest number of images that training and evaluation need."""


def demo_photos(captions: Path, images: Path, out: Path, *, quick: bool = False, seeds: int = 1) -> dict[str, Any]:
    """Generate negatives of your captions, fine-tune `photo` with several recipes, evaluate, and write ``report.html``.

    Args:
        captions: captions file in any format that `degla train` reads.
        images: folder that image paths are relative to.
        out: output folder; runs and results of an earlier demo in it are replaced.
        quick: use fewer images and steps, as a preview.
        seeds: runs per method, with training seeds 0 to `seeds` - 1.

    Returns:
        The report's table.

    Raises:
        InputError: a file cannot be read, too few images are usable, or the folder cannot be written.
        DeglaError: a run failed.
        StoppedError: a signal stopped the demo.
    """
    with methods.whole_demo(out) as folder_lock:
        with methods.stage("checking the images"):
            rows = usable(captions, images, largest=QUICK_LARGEST if quick else LARGEST)
            methods.clear(out)
            _link(images, out)
            train, held_out = hold_out(rows, most=LARGEST_HELD, seed=1)
        pairs, own = out / "train.jsonl", out / "own"
        (out / "retrieval").mkdir(exist_ok=True)
        own.mkdir(exist_ok=True)
        write_jsonl(pairs, train)
        for path in (out / "retrieval" / "held_out.jsonl", own / "captions.jsonl"):
            write_jsonl(path, held_out)
        log.info("%s for training, %s for evaluation", counted(len(train), "caption"), f"{len(held_out):,}")
        negatives = out / "negatives.jsonl"
        with methods.stage("generating hard negatives"):
            for source, target in ((pairs, negatives), (own / "captions.jsonl", own / "negatives.jsonl")):
                for earlier in (target, manifest_path(target)):  # Perhaps of other captions.
                    earlier.unlink(missing_ok=True)
                summary = methods.make_negatives(source, target, words="captions")
                log.info("%s: %.2f negatives per caption", target.relative_to(out), summary.mean)
        most = min(most_negatives(negatives), most_negatives(own / "negatives.jsonl"))
        base = methods.base_job("photo", ("own", "retrieval"), root=out, out=out)
        with methods.stage("evaluating the base model"):
            tune(base)
            scores = named_scores(load_result(base.measures[0].path))
            log.info("base model: %s", ", ".join(f"{name} {percent(value)} %" for name, value in scores.items()))
        # A batch contains no image twice.
        largest_batch = len({row.image for row in train})

        def configure(method: str, seed: int) -> TrainConfig:
            steps = QUICK_STEPS if quick else STEPS
            config = methods.demo_config(recipe_config(method), steps=steps, seed=seed, model="photo", rate=RATE)
            count = min(config.data.negatives_per_caption, most)
            data = replace(config.data, captions=pairs, images=out, negatives=negatives, negatives_per_caption=count)
            size = min(config.train.batch_size, largest_batch)
            loop = replace(
                config.train, batch_size=size, train_image_tower=False, freeze_image_blocks=0, embed_images_once=True
            )
            return replace(config, data=data, train=loop)

        return methods.compare_methods(
            base, configure, methods=METHODS, seeds=seeds, out=out, folder_lock=folder_lock, kept="retrieval"
        )


def most_negatives(path: Path) -> int:
    """Return the largest number of accepted negatives of any caption.

    Raises:
        InputError: there are no accepted negatives.
    """
    counts = Counter(row.caption_id for row in read_negatives(path) if row.accepted)
    if not counts:
        raise InputError(
            f"{path}: the rules found nothing to change in these captions. They need English sentences such as "
            '"A brown dog runs beside a small child." For other texts, generate negatives with a language model '
            "(degla negatives --llm)."
        )
    return max(counts.values())


def usable(captions: Path, images: Path, *, largest: int) -> list[CaptionRecord]:
    """Return the captions of readable images, from a random sample of at most `largest` images, with paths below the
    link.

    Raises:
        InputError: see `read_captions` and `usable_rows`; or too few images are left.
    """
    records = list(read_captions(captions))
    names = sorted({row.image for row in records})
    if len(names) > largest:
        sample = np.random.default_rng(0).choice(len(names), largest, replace=False)
        names = [names[number] for number in sorted(sample)]
        log.info("%s used", counted(largest, "of the images is", "of the images are"))
    selection = set(names)
    rows = table_of([PairRow(row, (), ()) for row in records if row.image in selection])
    numbers = usable_rows(rows, check_images(rows, images), bad_images="skip")
    usable_captions = [row.caption for row in (rows if numbers is None else rows.select(numbers))]
    if (count := len({row.image for row in usable_captions})) < LEAST:
        raise InputError(
            f"{captions}: only {counted(count, 'image')} with captions can be used; the demo needs {LEAST} or more for "
            "training and evaluation."
        )
    root = images.resolve()
    return [row.model_copy(update={"image": _below_link(row.image, root)}) for row in usable_captions]


def _below_link(image: str, root: Path) -> str:
    """Return an image's path relative to the demo's folder; a path outside the images' folder is kept."""
    path = Path(locate(image, root))
    return (
        f"{methods.LINK}/{path.relative_to(root)}"
        if path.is_relative_to(root) and ".." not in path.parts
        else str(path)
    )


def _link(images: Path, out: Path) -> None:
    """Link the images' folder into the demo's, because pages only show images of their own folder."""
    link = out / methods.LINK
    try:
        if link.is_symlink():
            link.unlink()
        link.symlink_to(images.resolve(), target_is_directory=True)
    except OSError as error:
        raise InputError(f"{link}: cannot be created: {error.strerror}. Choose another --out.") from None
