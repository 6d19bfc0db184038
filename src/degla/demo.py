"""The whole pipeline on the embedded world: draw, make negatives, fine-tune by several recipes, evaluate, report."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from degla.config.run import TrainConfig, recipe_config
from degla.config.sections import CheckpointConfig, TrackingConfig
from degla.data.sources import read_captions
from degla.errors import DeglaError, InputError
from degla.evaluation.report import report
from degla.locks import Lock, lock
from degla.negatives.generate import NegativesSettings, generate
from degla.shelf import PUBLISHED_RULES
from degla.study.standings import BASE
from degla.study.tuning import Job, JobResult, Measure, tune
from degla.study.watch import Watch
from degla.study.workers import Ended, run_jobs
from degla.world.draw import draw_benchmark, draw_pairs

log = logging.getLogger("degla.demo")

RULES = PUBLISHED_RULES
METHODS: dict[str, float | None] = {"degla_plus": None, "degla": 0.7, "ce_clip": None, "negclip": 0.5, "clip": None}
"""Recipes to compare, from elaborate to plain, with the share of the tuned weights in an average that is measured
too."""

_RATE = 4e-4
"""Learning rate for a model of a few million parameters, where a recipe says 1e-6 for one of full size."""


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


FULL = Size(
    scenes=8000, captions_per_image=1, steps=500, items_per_part=1000, images_per_class=20, retrieval_images=500
)
QUICK = Size(scenes=1500, captions_per_image=1, steps=60, items_per_part=150, images_per_class=5, retrieval_images=100)


def demo_config(recipe: TrainConfig, *, steps: int, seed: int) -> TrainConfig:
    """A recipe at the embedded model's size: its losses and their weights stay, the run becomes short and steep.

    Learning rates keep their ratios; batches are of 32 pairs with 5 negatives. The number of steps and the teacher's
    decay (the paper's own) were chosen on the world's validation scenes.
    """
    return replace(
        recipe,
        model="world",
        data=replace(recipe.data, negatives_per_caption=5 if recipe.data.negatives_per_caption else 0),
        optim=replace(
            recipe.optim, lr=_RATE * (recipe.optim.lr / 1e-6), warmup_steps=20, weight_decay=0.1, clip_norm=1.0
        ),
        train=replace(recipe.train, batch_size=32, steps=steps, seed=seed),
        checkpoint=CheckpointConfig(every_minutes=0, keep=1),
        tracking=TrackingConfig(every_steps=10, progress=False),
    )


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
    _prepare(out)
    with _stage("drawing the world"):
        pairs = draw_pairs(
            out / "world" / f"pairs-{size.scenes}", count=size.scenes, captions_per_image=size.captions_per_image
        )
        benchmark = draw_benchmark(
            out / "world" / f"benchmark-{size.items_per_part}",
            items_per_part=size.items_per_part,
            images_per_class=size.images_per_class,
            retrieval_images=size.retrieval_images,
        )
    negatives = out / f"negatives-{size.scenes}.jsonl"
    with _stage("making hard negatives"):
        summary = generate(read_captions(pairs.captions), NegativesSettings(RULES, seed=0), out=negatives)
        log.info("%.2f negatives a caption, of %d captions", summary.mean, summary.captions)
    base = Job(
        label=BASE, base="world", config=None, inputs={},
        measures=(Measure(BASE, 1.0, out / "results" / "base-0.json"),),
        benchmarks=("world",), root=benchmark, questions="", resume=False,
    )  # fmt: skip
    jobs = [base]
    for seed, (method, share) in product(range(seeds), METHODS.items()):
        config = demo_config(recipe_config(method), steps=size.steps, seed=seed)
        data = replace(config.data, captions=pairs.captions, images=pairs.images, negatives=negatives)
        config = replace(config, data=data, out=out / "runs" / f"{method}-{seed}")
        measures = [Measure(method, 1.0, out / "results" / f"{method}-{seed}.json")]
        if share is not None:
            name = f"{method} averaged {share:g}"
            measures.append(Measure(name, share, out / "results" / f"{name.replace(' ', '-')}-{seed}.json"))
        jobs.append(replace(base, label=method, config=config, measures=tuple(measures)))
    with _stage("fine-tuning and evaluating"):
        results = _run(jobs, held)
    table = report(results, out=out / "report.html", baseline=BASE, root=benchmark)
    for note in table["told"]:
        log.info(note)
    log.info("%.0f s in all. Open %s", time.monotonic() - started, out / "report.html")
    return table


def _run(jobs: list[Job], held: Lock) -> list[Path]:
    """All jobs, one process a processor: side by side on one thread each they finish sooner than one after another."""

    def stop_at_failure(number: int, end: Ended[JobResult]) -> None:
        if end.error:
            raise DeglaError(f"{jobs[number].title}: {end.error}\n{end.details}".rstrip())

    with Watch(jobs, log=log, when_ended=stop_at_failure) as watch:
        ends, signal = run_jobs(tune, jobs, processes=os.cpu_count() or 1, watcher=watch, held=held)
    if signal:
        raise DeglaError(f"stopped by {signal}.")
    done = [end.value for end in ends if end is not None and end.value is not None]
    # The report shows methods in the order of their results: the base, then from plain to elaborate.
    return [path for value in (done[0], *reversed(done[1:])) for path in value.paths]


def _prepare(out: Path) -> None:
    """Remove what an earlier demo made of runs and results, and nothing else."""
    try:
        for name in ("runs", "results"):
            if (out / name).exists():
                shutil.rmtree(out / name)
        (out / "results").mkdir()
    except OSError as error:
        raise InputError(f"{out}: the demo's folder cannot be written: {error.strerror}.") from None


@contextmanager
def _stage(name: str) -> Iterator[None]:
    log.info("%s ...", name)
    started = time.monotonic()
    yield
    log.info("%s: %.1f s", name, time.monotonic() - started)
