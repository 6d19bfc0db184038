"""The demo on the embedded world: draw, make negatives, fine-tune by several recipes, evaluate, report.

What the base model scores ships with the package, so that the first page is there at once: its numbers, and pictures of
what it gets wrong. `tools/base_results.py` measures it again.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from degla.config.run import recipe_config
from degla.data.sources import read_captions
from degla.demo import methods
from degla.demo.base_page import show_base
from degla.evaluation.report import report
from degla.evaluation.results import load_result
from degla.locks import Lock, lock
from degla.negatives.generate import NegativesSettings, generate
from degla.stopping import end_with_parent
from degla.study.jobs import Job, Measure
from degla.study.materials import digest_of, digest_questions
from degla.study.standings import BASE
from degla.study.tuning import tune
from degla.world import world_model_folder
from degla.world.draw import draw_benchmark, draw_pairs

log = logging.getLogger("degla.demo")

BASE_RESULTS: Final = world_model_folder().parent / "results"
"""What the base scores on the demo's questions: for each size a result, its items, and what both were made from."""


@dataclass(frozen=True)
class Size:
    """How much of everything a demo does."""

    scenes: int
    """Training scenes."""
    captions_per_image: int
    """Captions of a scene, each with its own negatives."""
    steps: int
    """Optimiser steps of each method."""
    items_per_part: int
    """Benchmark items of each compositional part."""
    images_per_class: int
    """Images of each class of the recognition domains."""
    retrieval_images: int
    """Images of each retrieval part."""
    base: str = ""
    """Name of the shipped results of the base on these questions; "" where there are none."""

    def draw_questions(self, folder: Path) -> Path:
        """The benchmark in a folder below this one."""
        return draw_benchmark(
            folder / f"benchmark-{self.items_per_part}",
            items_per_part=self.items_per_part,
            images_per_class=self.images_per_class,
            retrieval_images=self.retrieval_images,
        )


# One look at every pair, so that all methods are done in minutes on two processors.
FULL = Size(
    scenes=4096, captions_per_image=1, steps=128, items_per_part=400, images_per_class=10, retrieval_images=250,
    base="full",
)  # fmt: skip
QUICK = Size(
    scenes=1152, captions_per_image=1, steps=36, items_per_part=100, images_per_class=5, retrieval_images=100,
    base="quick",
)  # fmt: skip


def demo(out: Path, *, quick: bool = False, seeds: int = 1) -> dict[str, Any]:
    """Run the pipeline and write ``report.html``; returns the report's table.

    Args:
        out: folder for data, negatives, runs, results and the report; made anew, apart from what was drawn before.
        quick: a fraction of pairs, steps and items, to see it work.
        seeds: runs of each method, with training seeds 0 to `seeds` - 1.

    Raises:
        InputError: the folder cannot be written, is being written by another process, or holds a demo of another size.
        DeglaError: a run failed, or a signal stopped the demo.
    """
    with lock(out) as held:
        return _demo(out, QUICK if quick else FULL, seeds=seeds, held=held)


def _demo(out: Path, size: Size, *, seeds: int, held: Lock) -> dict[str, Any]:
    started = time.monotonic()
    methods.clear(out)
    processes = os.cpu_count() or 1
    base = Job(
        label=BASE, base="world", config=None, inputs={},
        measures=(Measure(BASE, 1.0, out / "results" / "base-0.json"),),
        benchmarks=("world",), root=out / "world" / f"benchmark-{size.items_per_part}", questions="", resume=False,
    )  # fmt: skip
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        with methods.stage("drawing the questions"):
            drawing = pool.submit(
                draw_pairs, out / "world" / f"pairs-{size.scenes}", count=size.scenes,
                captions_per_image=size.captions_per_image,
            )  # fmt: skip
            benchmark = size.draw_questions(out / "world")
            if not _take_base_result(size, benchmark, base.measures[0].path):
                tune(base)
            show_base(load_result(base.measures[0].path, items=True), benchmark, out / "base.html")
        with methods.stage("drawing the pairs"):
            pairs = drawing.result()
    negatives = out / f"negatives-{size.scenes}.jsonl"
    with methods.stage("making hard negatives"):
        summary = generate(
            read_captions(pairs.captions), NegativesSettings(methods.RULES, seed=0), out=negatives, workers=processes
        )
        log.info("%.2f negatives a caption, of %d captions", summary.mean, summary.captions)
    configs = {}
    for seed, method in product(range(seeds), methods.METHODS):
        config = methods.demo_config(recipe_config(method), steps=size.steps, seed=seed)
        data = replace(config.data, captions=pairs.captions, images=pairs.images, negatives=negatives)
        configs[method, seed] = replace(config, data=data)
    jobs = methods.runs_of(base, methods.METHODS, configs, out=out)
    with methods.stage("fine-tuning and evaluating"):
        results = methods.run_jobs(jobs, held, processes=processes)
    table = report([base.measures[0].path, *results], out=out / "report.html", baseline=BASE, root=benchmark)
    for note in table["told"]:
        log.info(note)
    methods.log_changes(base.measures[0].path, results)
    log.info("%.0f s in all. Open %s", time.monotonic() - started, out / "report.html")
    return table


def made_from(benchmark: Path) -> str:
    """Digest of the base's files and of the questions."""
    return f"{digest_of(world_model_folder(), {})} {digest_questions(('world',), benchmark)}\n"


def _take_base_result(size: Size, benchmark: Path, path: Path) -> bool:
    """Whether the shipped result of the base is of these weights and questions; it is copied to `path` then."""
    source = BASE_RESULTS / size.base
    if not size.base or source.with_suffix(".sha256").read_text(encoding="ascii") != made_from(benchmark):
        return False
    items = gzip.decompress(source.with_suffix(".items.jsonl.gz").read_bytes())
    path.with_suffix(".items.jsonl").write_bytes(items)
    shutil.copyfile(source.with_suffix(".json"), path)
    return True
