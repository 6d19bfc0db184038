"""The whole pipeline on the embedded world: draw, make negatives, fine-tune by several recipes, evaluate, report."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from degla.config import CheckpointConfig, LoopConfig, TrackingConfig, TrainConfig
from degla.data.sources import read_captions
from degla.errors import InputError
from degla.evaluation.report import report
from degla.evaluation.results import save_result
from degla.evaluation.run import evaluate
from degla.model.average import average_weights
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.model.teacher import TeacherConfig
from degla.negatives.generate import generate
from degla.shelf import RECIPES
from degla.training.loop import train
from degla.world.draw import draw_benchmark, draw_pairs

log = logging.getLogger("degla.demo")

RULES = ("reshuffle_order", "swap_nouns", "swap_adjectives", "replace_adjectives", "replace_nouns")
METHODS = ("clip", "negclip", "ce_clip", "degla")


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
    scenes=8000, captions_per_image=1, steps=300, items_per_part=1000, images_per_class=20, retrieval_images=500
)
QUICK = Size(scenes=1500, captions_per_image=1, steps=60, items_per_part=150, images_per_class=5, retrieval_images=100)


def demo_config(recipe: TrainConfig, *, steps: int, seed: int) -> TrainConfig:
    """A recipe at the embedded model's size: its terms and their weights stay, the run becomes short and steep.

    A learning rate of 4e-4 and batches of 32 with 5 negatives suit a model of a few million parameters; the teacher's
    decay keeps the number of half-lives that 0.9996 has over the paper's 8,085 steps.
    """
    return replace(
        recipe,
        model="world",
        data=replace(recipe.data, negatives_per_caption=5 if recipe.data.negatives_per_caption else 0),
        optim=replace(recipe.optim, lr=4e-4, warmup_steps=20, weight_decay=0.1, clip_norm=1.0),
        teacher=TeacherConfig(kind=recipe.teacher.kind, decay=0.9996 ** (8085 / 300)),
        train=LoopConfig(batch_size=32, steps=steps, seed=seed),
        checkpoint=CheckpointConfig(every_minutes=0, keep=1),
        tracking=TrackingConfig(every_steps=10),
    )


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
        summary = generate(
            read_captions(pairs.captions),
            rules=RULES,
            out=negatives,
            seed=0,
            workers=os.cpu_count() or 1,
            progress=True,
        )
        log.info("%.2f negatives a caption, of %d captions", summary.mean, summary.captions)

    results: list[Path] = []

    def measure(encoder: Encoder, *, label: str, seed: int | None) -> None:
        path = out / "results" / f"{label.replace(' ', '-')}-{0 if seed is None else seed}.json"
        result = evaluate(
            encoder, benchmarks=["world"], root=benchmark, label=label, training_seed=seed, progress=False
        )
        save_result(result, path)
        results.append(path)

    base = load_encoder("world")
    with _stage("evaluating the model as it is"):
        measure(base, label="base", seed=None)
    for seed in range(seeds):
        for method in METHODS:
            module = RECIPES.load(method)
            config = replace(
                demo_config(getattr(module, method)(), steps=size.steps, seed=seed),
                out=out / "runs" / f"{method}-{seed}",
            )
            config = replace(
                config, data=replace(config.data, captions=pairs.captions, images=pairs.images, negatives=negatives)
            )
            with _stage(f"fine-tuning {method}" + (f", seed {seed}" if seeds > 1 else "")):
                outcome = train(config)
                tuned = load_encoder(str(outcome.folder))
                measure(tuned, label=method, seed=seed)
            if method in ("negclip", "degla"):
                share = 0.5 if method == "negclip" else 0.7
                measure(average_weights(base, tuned, share=share), label=f"{method} averaged {share}", seed=seed)
    table = report(results, out=out / "report.html", baseline="base")
    log.info("%.0f s in all. Open %s", time.monotonic() - started, out / "report.html")
    return table


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
