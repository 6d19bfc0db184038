"""The whole pipeline on the embedded world: draw, make negatives, fine-tune by several recipes, evaluate, report."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from degla.config import CheckpointConfig, LoopConfig, TrackingConfig, TrainConfig
from degla.data.sources import read_captions
from degla.errors import InputError
from degla.evaluation.report import report
from degla.evaluation.results import save_result
from degla.evaluation.run import evaluate
from degla.model.average import average_weights
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.negatives.generate import generate
from degla.shelf import RECIPES
from degla.training.loop import train
from degla.world.draw import draw_benchmark, draw_pairs

log = logging.getLogger("degla.demo")

RULES = ("reshuffle_order", "swap_nouns", "swap_adjectives", "replace_adjectives", "replace_nouns")
METHODS: dict[str, float | None] = {"degla": 0.7, "ce_clip": None, "negclip": 0.5, "clip": None}
"""Recipes to compare, the longest first, with the share of the tuned weights in an average that is measured too."""


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
    """A recipe at the embedded model's size: its terms and their weights stay, the run becomes short and steep.

    A learning rate of 4e-4 and batches of 32 with 5 negatives suit a model of a few million parameters. The number of
    steps and the teacher's decay (the paper's own) were chosen on the world's validation scenes.
    """
    return replace(
        recipe,
        model="world",
        data=replace(recipe.data, negatives_per_caption=5 if recipe.data.negatives_per_caption else 0),
        optim=replace(recipe.optim, lr=4e-4, warmup_steps=20, weight_decay=0.1, clip_norm=1.0),
        train=LoopConfig(batch_size=32, steps=steps, seed=seed),
        checkpoint=CheckpointConfig(every_minutes=0, keep=1),
        tracking=TrackingConfig(every_steps=10, progress=False),
    )


@dataclass(frozen=True)
class Job:
    """One run of the demo: fine-tune by one recipe with one seed, then measure it and, where asked, its average."""

    method: str
    config: TrainConfig
    benchmark: Path
    results: Path
    share: float | None
    """Share of the tuned weights in the average with the base that is measured too; None for no average."""


def demo(out: Path, *, quick: bool = False, seeds: int = 1) -> dict[str, Any]:
    """Run the pipeline and write ``report.html``; returns the report's table.

    Args:
        out: folder for data, negatives, runs, results and the report; made anew, apart from what was drawn before.
        quick: a fraction of pairs, steps and items, to see it work.
        seeds: runs of each method, with training seeds 0 to `seeds` - 1.

    Raises:
        InputError: the folder cannot be written, or holds a demo of another size.
    """
    size = QUICK if quick else FULL
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
        summary = generate(read_captions(pairs.captions), rules=RULES, out=negatives, seed=0, progress=True)
        log.info("%.2f negatives a caption, of %d captions", summary.mean, summary.captions)
    jobs = []
    for seed, (method, share) in product(range(seeds), METHODS.items()):
        config = demo_config(getattr(RECIPES.load(method), method)(), steps=size.steps, seed=seed)
        data = replace(config.data, captions=pairs.captions, images=pairs.images, negatives=negatives)
        config = replace(config, data=data, out=out / "runs" / f"{method}-{seed}")
        jobs.append(Job(method, config, benchmark, out / "results", share))
    with _stage("fine-tuning and evaluating"):
        results = _run(jobs, base=(benchmark, out / "results"))
    table = report(results, out=out / "report.html", baseline="base", root=benchmark)
    log.info("%.0f s in all. Open %s", time.monotonic() - started, out / "report.html")
    return table


def _run(jobs: Sequence[Job], *, base: tuple[Path, Path]) -> list[Path]:
    """All jobs, one process a processor: side by side on one thread each they finish sooner than one after another."""
    workers = min(os.cpu_count() or 1, len(jobs) + 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        futures = [pool.submit(_measure_base, *base), *(pool.submit(_tune, job) for job in jobs)]
        try:
            _watch(jobs, futures)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        # The report shows methods in the order of their results: the base, then from plain to elaborate.
        return [path for future in (futures[0], *reversed(futures[1:])) for path in future.result()]


def _start_worker() -> None:
    torch.set_num_threads(1)
    logging.getLogger("degla").setLevel(logging.ERROR)


def _tune(job: Job) -> list[Path]:
    assert job.config.out is not None
    outcome = train(job.config)
    if not outcome.finished:
        return []
    tuned, seed = load_encoder(str(outcome.folder)), job.config.train.seed
    paths = [_measure(tuned, label=job.method, seed=seed, benchmark=job.benchmark, results=job.results)]
    if job.share is not None:
        averaged = average_weights(load_encoder("world"), tuned, share=job.share)
        label = f"{job.method} averaged {job.share:g}"
        paths.append(_measure(averaged, label=label, seed=seed, benchmark=job.benchmark, results=job.results))
    return paths


def _measure_base(benchmark: Path, results: Path) -> list[Path]:
    return [_measure(load_encoder("world"), label="base", seed=None, benchmark=benchmark, results=results)]


def _measure(encoder: Encoder, *, label: str, seed: int | None, benchmark: Path, results: Path) -> Path:
    path = results / f"{label.replace(' ', '-')}-{0 if seed is None else seed}.json"
    result = evaluate(encoder, benchmarks=["world"], root=benchmark, label=label, training_seed=seed, progress=False)
    save_result(result, path)
    return path


def _watch(jobs: Sequence[Job], futures: Sequence[Future[list[Path]]]) -> None:
    """Show how far every run is, read from its metrics, until all are done; raises what the first failure raised."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks = [
            bars.add_task(
                f"{job.method}, seed {job.config.train.seed}", total=job.config.train.steps, note="", start=False
            )
            for job in jobs
        ]
        said: set[int] = set()
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            for number, (job, task) in enumerate(zip(jobs, tasks, strict=True)):
                last = _last_metrics(job)
                if last and not bars.tasks[number].started:
                    bars.start_task(task)
                finished = futures[number + 1].done()
                if last and not finished:
                    evaluating = last["step"] == job.config.train.steps
                    note = (
                        "evaluating"
                        if evaluating
                        else f"loss {last['loss']:.3f}  {last['pairs_per_second']:.0f} pairs/s"
                    )
                    bars.update(task, completed=last["step"], note=note)
                elif finished and number not in said:
                    said.add(number)
                    bars.update(task, completed=job.config.train.steps, note="done")
                    bars.stop_task(task)
                    if not console.is_terminal:
                        log.info("%s, seed %d: done", job.method, job.config.train.seed)


def _last_metrics(job: Job) -> dict[str, Any] | None:
    path = Path(job.config.out or ".") / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return dict(json.loads(lines[-1])) if lines else None
    except (OSError, ValueError):
        return None  # Not there yet, or a line is being written.


def _prepare(out: Path) -> None:
    """Remove what an earlier demo made of runs and results, and nothing else."""
    try:
        out.mkdir(parents=True, exist_ok=True)
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
