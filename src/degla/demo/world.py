"""The demo on the embedded world: generate data and negatives, fine-tune with several recipes, evaluate, report.

The base model's scores ship with the package, so that the first page, with its scores and mistakes, is ready at once.
`tools/base_results.py` measures them again.
"""

from __future__ import annotations

import gzip
import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from degla.config.run import TrainConfig, recipe_config
from degla.demo import methods
from degla.errors import DeglaError
from degla.evaluation.benchmark import COLUMNS
from degla.evaluation.image_files import thumbnail
from degla.evaluation.results import load_result
from degla.evaluation.terminal import named_scores
from degla.files import write_text
from degla.pages.page import Grid, Page, Part, Raw, Section
from degla.pages.table import Table
from degla.pages.words import UNKNOWN, counted, interval, percent, signed_cosine
from degla.records import PairItem, read_jsonl
from degla.results import ItemVerdict, Result
from degla.stopping import WORKERS, end_with_parent
from degla.study.materials import digest_of, digest_questions
from degla.study.tuning import tune
from degla.world import world_model_folder
from degla.world.draw import draw_benchmark, draw_pairs

log = logging.getLogger("degla.demo")

BASE_RESULTS: Final = world_model_folder().parent / "results"
"""The base model's results on the demo's questions: for each size a result, its items, and a digest of their inputs."""


_SHOWN = ("order", "swap_noun", "swap_adjective", "swap_phrase", "replace_relation", "replace_noun")
"""Kinds of questions whose mistakes the first page shows."""
_SHOWN_OF_EACH = 2
_NAMES = (
    "`id`: only words of the training pairs; `ood`: at least one other word. Names without a slash are averages; "
    "`neutral` excludes parts that can be answered from the texts only, and `composition.id.neutral` is what the "
    "report calls composition."
)


@dataclass(frozen=True)
class Size:
    """Amounts of data and training steps of a demo."""

    scenes: int
    """Training scenes."""
    steps: int
    """Optimiser steps per method."""
    items_per_part: int
    """Benchmark items per compositional part."""
    images_per_class: int
    """Images per class of the recognition domains."""
    retrieval_images: int
    """Images per retrieval part."""
    base: str = ""
    """Name of the shipped results of the base model on these questions; "" if there are none."""

    def draw_questions(self, folder: Path) -> Path:
        """Generate the benchmark in a folder below `folder`, and return its path."""
        return draw_benchmark(
            folder / f"benchmark-{self.items_per_part}",
            items_per_part=self.items_per_part,
            images_per_class=self.images_per_class,
            retrieval_images=self.retrieval_images,
        )


# One epoch, so that all methods finish in minutes on two CPUs.
FULL = Size(scenes=4096, steps=128, items_per_part=400, images_per_class=10, retrieval_images=250, base="full")
QUICK = Size(scenes=768, steps=24, items_per_part=100, images_per_class=5, retrieval_images=100, base="quick")


def demo(out: Path, *, quick: bool = False, seeds: int = 1) -> dict[str, Any]:
    """Run the pipeline, write ``report.html``, and return the report's table.

    Args:
        out: folder for data, negatives, runs, results and the report. Generated data is reused, the rest replaced.
        quick: use a fraction of the pairs, steps and items, as a preview.
        seeds: runs per method, with training seeds 0 to `seeds` - 1.

    Raises:
        InputError: the folder cannot be written, or another process is writing it.
        DeglaError: a run failed.
        StoppedError: a signal stopped the demo.
    """
    size = QUICK if quick else FULL
    with methods.whole_demo(out) as folder_lock:
        methods.clear(out)
        root = out / methods.DRAWN / f"benchmark-{size.items_per_part}"
        base = methods.base_job("world", ("world",), root=root, out=out)
        with ProcessPoolExecutor(1, mp_context=WORKERS, initializer=end_with_parent) as pool:
            with methods.stage("generating the benchmark"):
                drawing = pool.submit(
                    draw_pairs, out / methods.DRAWN / f"pairs-{size.scenes}", count=size.scenes, captions_per_image=1
                )
                size.draw_questions(out / methods.DRAWN)
                start = base.measures[0].path
                if not _take_base_result(size, root, start):
                    tune(base)
                show_base(load_result(start, items=True), root, out / "base.html")
            with methods.stage("generating the training pairs"):
                try:
                    pairs = drawing.result()
                except BrokenProcessPool:
                    raise DeglaError(
                        "the process that draws the training pairs was killed. Run the same command again; if memory "
                        "ran out, with --quick."
                    ) from None
        negatives = out / f"negatives-{size.scenes}.jsonl"
        with methods.stage("generating hard negatives"):
            summary = methods.make_negatives(pairs.captions, negatives, words="lexicon")
            log.info("%.2f negatives per caption for %s", summary.mean, counted(summary.captions, "caption"))

        def configure(method: str, seed: int) -> TrainConfig:
            config = methods.demo_config(recipe_config(method), steps=size.steps, seed=seed)
            data = replace(config.data, captions=pairs.captions, images=pairs.images, negatives=negatives)
            # Half precision is no faster for such a small model, and not every CPU supports it.
            return replace(config, data=data, train=replace(config.train, precision="fp32"))

        return methods.compare_methods(
            base, configure, methods=methods.METHODS, seeds=seeds, out=out, folder_lock=folder_lock
        )


def made_from(benchmark: Path) -> str:
    """Return a digest of the base model's files and of the questions."""
    return f"{digest_of(world_model_folder(), {})} {digest_questions(('world',), benchmark)}\n"


def _take_base_result(size: Size, benchmark: Path, path: Path) -> bool:
    """Copy the shipped result of the base model to `path` if it is for these weights and questions; return whether."""
    source = BASE_RESULTS / size.base
    if not size.base or source.with_suffix(".sha256").read_text(encoding="ascii") != made_from(benchmark):
        return False
    items = gzip.decompress(source.with_suffix(".items.jsonl.gz").read_bytes())
    path.with_suffix(".items.jsonl").write_bytes(items)
    shutil.copyfile(source.with_suffix(".json"), path)
    return True


def show_base(result: Result, benchmark: Path, out: Path) -> None:
    """Write the first page, and log the scores that the methods should change."""
    scores = named_scores(result)
    lines = [f"{name} {percent(scores[name])}" for name in COLUMNS if name in scores]
    log.info("base model: %s %%. To see its mistakes, open %s", ", ".join(lines), out)
    (entry,) = result.benchmarks
    rows = []
    for score in (*entry.averages, *(part.scores[0] for part in entry.parts)):
        ends = UNKNOWN if score.interval is None else interval(score.interval.low, score.interval.high)
        rows.append([score.name, percent(score.value), ends, percent(score.chance)])
    page = Page(
        "The base model: scores and mistakes",
        [
            Section("Worst mistakes", [*_mistakes(result, benchmark)]),
            Section("Scores", [Table(["part", "score", "95 %", "chance"], rows), _NAMES]),
        ],
        lead=[
            "A small CLIP, pre-trained on the embedded world. It recognises objects, but is no better than chance "
            "where the true and the false text differ only in word order. Hard negatives should teach it that; "
            "`report.html` beside this page will show what each method gained and what it forgot. All scores are in "
            "percent."
        ],
        tab="degla demo: the base model",
    )
    write_text(out, page.html())


def _mistakes(result: Result, benchmark: Path) -> Iterator[Part | str]:
    """Yield the items of each kind whose false text leads by the most."""
    questions = {item.id: item for item in read_jsonl(PairItem, benchmark / "items.jsonl")}
    cards = []
    for kind in _SHOWN:
        wrong = [(row.margin, row) for row in result.items if row.part == f"id/{kind}" and (row.margin or 0.0) < 0]
        for _, row in sorted(wrong, key=itemgetter(0))[:_SHOWN_OF_EACH]:
            cards.append(_card(row, questions[row.id], benchmark))
    yield Grid(cards)
    yield (
        "The items of each kind whose false text leads by the most: ✓ the true text, ✗ the false text, which the model "
        "finds more similar to the image. The number is the true text's lead, a difference of cosines."
    )


def _card(row: ItemVerdict, item: PairItem, benchmark: Path) -> Raw:
    assert row.margin is not None
    true, false = (
        Markup('<p><span class="{}">{}</span> {}</p>').format(*each)
        for each in zip(("up", "down"), "✓✗", item.texts, strict=True)
    )
    about = Markup('<p class="soft">{}, {}</p>').format(
        row.part.partition("/")[2].replace("_", " "), signed_cosine(row.margin)
    )
    image = Markup('<img src="{}" alt="{}">').format(thumbnail(item.images[0], root=benchmark) or "", row.id)
    return Raw(Markup('<div class="card item">{}<div>{}{}{}</div></div>').format(image, true, false, about))
