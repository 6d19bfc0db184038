"""The demo on photographs and captions of your own, with the shipped model `photo`: only its text tower learns.

A fifth of the pictures is held out: their captions, true against false ones that the rules make, and retrieval among
them, are the questions. Each picture is embedded once, so that minutes are enough on a plain machine.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from degla.config.run import TrainConfig, recipe_config
from degla.data.images import check_images, locate, usable_rows
from degla.data.pairs import PairRow
from degla.data.sources import read_captions, read_negatives
from degla.data.table import table_of
from degla.demo import methods
from degla.errors import InputError
from degla.evaluation.results import load_result
from degla.evaluation.terminal import named_scores
from degla.pages.words import counted, percent
from degla.records import CaptionRecord, write_jsonl
from degla.study.tuning import tune

log = logging.getLogger("degla.demo")

METHODS: Final[dict[str, float | None]] = {"degla_plus": None, "degla": None, "negclip": None, "clip": None}
RATE: Final = 1e-4
"""Learning rate of a recipe that says 1e-6."""
STEPS, QUICK_STEPS = 300, 60
LARGEST, QUICK_LARGEST = 7500, 1000
"""Pictures that are taken, at most."""
LARGEST_HELD: Final = 1000
LEAST: Final = 20
"""Pictures without which there is nothing to learn from or to ask."""
_LINK: Final = "pictures"


def demo_photos(captions: Path, images: Path, out: Path, *, quick: bool = False, seeds: int = 1) -> dict[str, Any]:
    """Make negatives of your captions, fine-tune `photo` by several recipes, evaluate, and write ``report.html``.

    Args:
        captions: in any format that `degla train` reads.
        images: folder that their images' paths are relative to.
        out: folder for all that is made; runs and results of an earlier demo there are replaced.
        quick: fewer pictures and steps, to see it work.
        seeds: runs of each method, with training seeds 0 to `seeds` - 1.

    Returns:
        The report's table.

    Raises:
        InputError: a file cannot be read, too few pictures can be used, or the folder cannot be written.
        DeglaError: a run failed, or a signal stopped the demo.
    """
    with methods.whole_demo(out) as held:
        with methods.stage("looking at the pictures"):
            rows = usable(captions, images, largest=QUICK_LARGEST if quick else LARGEST)
            methods.clear(out)
            _link(images, out)
            train, asked = split_by_image(rows)
        pairs, own = out / "train.jsonl", out / "own"
        (out / "retrieval").mkdir(exist_ok=True)
        own.mkdir(exist_ok=True)
        write_jsonl(pairs, train)
        for path in (out / "retrieval" / "held_out.jsonl", own / "captions.jsonl"):
            write_jsonl(path, asked)
        log.info("%s to learn from, %d to be asked", counted(len(train), "caption"), len(asked))
        negatives = out / "negatives.jsonl"
        with methods.stage("making hard negatives"):
            for source, target in ((pairs, negatives), (own / "captions.jsonl", own / "negatives.jsonl")):
                target.unlink(missing_ok=True)
                summary = methods.make_negatives(source, target, words="captions")
                log.info("%s: %.2f negatives a caption", target.relative_to(out), summary.mean)
        most = min(most_negatives(negatives), most_negatives(own / "negatives.jsonl"))
        base = methods.base_job("photo", ("own", "retrieval"), root=out, out=out)
        with methods.stage("asking the base"):
            tune(base)
            scores = named_scores(load_result(base.measures[0].path))
            log.info("the base: %s", ", ".join(f"{name} {percent(value)} %" for name, value in scores.items()))
        # A batch holds no picture twice.
        largest_batch = len({row.image for row in train})

        def configure(method: str, seed: int) -> TrainConfig:
            steps = QUICK_STEPS if quick else STEPS
            config = methods.demo_config(recipe_config(method), steps=steps, seed=seed, model="photo", rate=RATE)
            wanted = min(config.data.negatives_per_caption, most)
            data = replace(config.data, captions=pairs, images=out, negatives=negatives, negatives_per_caption=wanted)
            size = min(config.train.batch_size, largest_batch)
            loop = replace(
                config.train, batch_size=size, train_image_tower=False, freeze_image_blocks=0, embed_images_once=True
            )
            return replace(config, data=data, train=loop)

        return methods.compare_methods(
            base, configure, methods=METHODS, seeds=seeds, out=out, held=held, kept="retrieval"
        )


def most_negatives(path: Path) -> int:
    """Negatives of the caption that has most.

    Raises:
        InputError: there is none at all.
    """
    counts = Counter(row.caption_id for row in read_negatives(path) if row.accepted)
    if not counts:
        raise InputError(
            f"{path}: the rules found nothing to change in these captions. They read English sentences such as "
            '"A brown dog runs beside a small child."; make negatives by a language model for other texts '
            "(degla negatives --llm)."
        )
    return max(counts.values())


def usable(captions: Path, images: Path, *, largest: int) -> list[CaptionRecord]:
    """Captions of pictures that can be decoded, of `largest` pictures at most, drawn from all; named below a link.

    Raises:
        InputError: see `read_captions` and `usable_rows`; or too few pictures are left.
    """
    given = list(read_captions(captions))
    names = sorted({row.image for row in given})
    if len(names) > largest:
        drawn = np.random.default_rng(0).choice(len(names), largest, replace=False)
        names = [names[number] for number in sorted(drawn)]
        log.info("%s taken", counted(largest, "of the pictures is", "of the pictures are"))
    chosen = set(names)
    rows = table_of([PairRow(row, (), ()) for row in given if row.image in chosen])
    numbers = usable_rows(rows, check_images(rows, images), bad_images="skip")
    kept = [row.caption for row in (rows if numbers is None else rows.select(numbers))]
    if (left := len({row.image for row in kept})) < LEAST:
        raise InputError(
            f"{captions}: captions of {counted(left, 'picture')} that can be used; a demo needs {LEAST} or more, to "
            "learn from and to ask about."
        )
    root = images.resolve()
    return [row.model_copy(update={"image": _below_link(row.image, root)}) for row in kept]


def _below_link(image: str, root: Path) -> str:
    """The image's path as seen from the demo's folder; one that does not lie in the images' folder stays."""
    path = Path(locate(image, root))
    return f"{_LINK}/{path.relative_to(root)}" if path.is_relative_to(root) and ".." not in path.parts else str(path)


def _link(images: Path, out: Path) -> None:
    """Pages show pictures of the folder that they lie in, so the images' folder is linked there."""
    link = out / _LINK
    try:
        if link.is_symlink():
            link.unlink()
        link.symlink_to(images.resolve(), target_is_directory=True)
    except OSError as error:
        raise InputError(f"{link}: cannot be made: {error.strerror}. Choose another --out.") from None


def split_by_image(rows: Sequence[CaptionRecord]) -> tuple[list[CaptionRecord], list[CaptionRecord]]:
    """Captions to learn from, and captions of a fifth of the pictures (of `LARGEST_HELD` at most) to be asked."""
    names = sorted({row.image for row in rows})
    order = np.random.default_rng(1).permutation(len(names))
    held = {names[number] for number in order[: min(LARGEST_HELD, len(names) // 5)]}
    return [row for row in rows if row.image not in held], [row for row in rows if row.image in held]
