"""Compare `degla evaluate` with the official loop, one item at a time, on all seven SugarCrepe parts with one model.

Both run here, on the same weights and photographs; their verdicts must agree item by item. The optimisations are
switched on one by one: each distinct image and text once, batches, no padding, shared prefixes once and the last block
only where it is read, oneDNN's linear layers where they are faster, decoding in more than one thread.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np
import open_clip
import torch
from PIL import Image

from degla.cli import exit_status_of
from degla.evaluation.benchmarks.sugarcrepe import BENCHMARK
from degla.evaluation.embed import Embedder
from degla.evaluation.questions import ask
from degla.evaluation.run import Evaluation
from degla.evaluation.verdicts import images_of, texts_of
from degla.model.encoder import Encoder
from degla.model.linear_kernel import measured, settle, used_on
from degla.model.load import load_encoder
from degla.progress import TaskProgress
from degla.verbs._arguments import at_least

NAMES = (
    "official loop",
    "+ each once",
    "+ batches",
    "+ trimmed texts",
    "+ nothing computed twice",
    "+ oneDNN",
    "+ parallel decoding",
    "evaluate, cold cache",
    "evaluate, warm cache",
)
BATCHED, COLD, WARM = NAMES.index("+ batches"), len(NAMES) - 2, len(NAMES) - 1


@dataclass(frozen=True)
class Step:
    """The optimisations that are switched on."""

    batches: bool = False
    trims: bool = False
    nothing_twice: bool = False
    kernel: bool = False
    parallel: bool = False

    @contextmanager
    def switched(self, encoder: Encoder) -> Iterator[None]:
        """Within the block, switch off the others."""
        could = encoder.trims, encoder.grow, encoder._encode_image
        encoder.trims = could[0] and self.trims
        if not self.nothing_twice:
            encoder.grow = encoder._encode_image = None
        settle(self.kernel and measured())
        try:
            yield
        finally:
            settle(measured())
            encoder.trims, encoder.grow, encoder._encode_image = could


STEPS = (
    Step(),
    Step(batches=True),
    Step(batches=True, trims=True),
    Step(batches=True, trims=True, nothing_twice=True),
    Step(batches=True, trims=True, nothing_twice=True, kernel=True),
    Step(batches=True, trims=True, nothing_twice=True, kernel=True, parallel=True),
)


@torch.no_grad()
def official(encoder: Encoder, root: Path) -> dict[str, bool]:
    """Run the official protocol as published: one item at a time, padded texts, no caching."""
    right = {}
    for part in BENCHMARK.parts:
        rows = json.loads((root / "sugarcrepe" / f"{part.name}.json").read_text(encoding="utf-8"))
        for key, row in rows.items():
            file = root / "coco" / "val2017" / row["filename"]
            if not file.is_file():
                continue
            with Image.open(file) as opened:
                pixels = encoder.transform(opened.convert("RGB")).unsqueeze(0)
            true = encoder.clip.encode_text(encoder.tokenize([row["caption"]]), normalize=True)
            false = encoder.clip.encode_text(encoder.tokenize([row["negative_caption"]]), normalize=True)
            picture = encoder.clip.encode_image(pixels, normalize=True)
            right[f"sugarcrepe/{part.name}/{key}"] = bool((picture @ true.T).item() > (picture @ false.T).item())
    return right


@dataclass(frozen=True)
class Spent:
    """Wall seconds, and processor seconds of all threads."""

    clock: float
    processor: float


def spent(work: Callable[[], Any]) -> tuple[Any, Spent]:
    """Return the result of the work, and the time it took."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, Spent(time.perf_counter() - clock, time.process_time() - processor)


def one_pair(encoder: Encoder, root: Path, *, images_per_batch: int, texts_per_batch: int) -> tuple[list[Spent], int]:
    """Return the time of each of `NAMES` and the number of items, running everything in sequence in this process."""
    right, took = spent(lambda: official(encoder, root))
    took_all = [took]

    def embedded(images: int, texts: int, workers: int) -> None:
        entries = ask(BENCHMARK, root, allow_missing=True).entries
        embedder = Embedder(
            encoder, root, images_per_batch=images, texts_per_batch=texts, workers=workers, progress=TaskProgress(False)
        )
        embedder.embed(images_of(entries), (text for entry in entries for text in texts_of(entry)))

    for step in STEPS:
        sizes = (images_per_batch, texts_per_batch) if step.batches else (1, 1)
        with step.switched(encoder):
            took_all.append(spent(partial(embedded, *sizes, workers=0 if step.parallel else 1))[1])
    cache: dict[str, Any] = {}
    for _ in range(2):
        result, took = spent(
            lambda: Evaluation(
                ["sugarcrepe"], root, allow_missing=True, progress=False, cache=cache,
                images_per_batch=images_per_batch, texts_per_batch=texts_per_batch,
            ).score(encoder)
        )  # fmt: skip
        took_all.append(took)
    differing = [
        item.id for item in result.items if not item.degenerate and item.ok["text_ok"] != float(right[item.id])
    ]
    if differing or len(result.items) != len(right):
        sys.exit(f"{len(differing)} of {len(right)} verdicts differ from those of the official loop: {differing[:5]}")
    return took_all, len(right)


def report(pairs: list[list[Spent]]) -> None:
    """Print medians over the pairs; shares are of the seconds saved from the official loop to the cold evaluation."""
    columns = list(zip(*pairs, strict=True))
    clock = [statistics.median(took.clock for took in column) for column in columns]
    processor = [statistics.median(took.processor for took in column) for column in columns]
    print(f"{'':26}{'seconds':>9}{'ratio':>8}{'processor s':>13}{'ratio':>8}{'step':>8}{'share of the gain':>20}")
    for number, name in enumerate(NAMES):
        ratio = statistics.median(pair[0].clock / pair[number].clock for pair in pairs)
        own = statistics.median(pair[0].processor / pair[number].processor for pair in pairs)
        line = f"{name:26}{clock[number]:9.2f}{ratio:8.1f}{processor[number]:13.2f}{own:8.1f}"
        if 0 < number <= COLD:
            saved = (processor[number - 1] - processor[number]) / (processor[0] - processor[COLD])
            line += f"{processor[number - 1] / processor[number]:8.2f}{saved:20.0%}"
        print(line)
    print("step and share of the gain are in processor seconds, which other load on the machine affects less")
    for number in (COLD, WARM):
        each = [pair[0].clock / pair[number].clock for pair in pairs]
        middle = statistics.median(each)
        batched = statistics.median(pair[BATCHED].clock / pair[number].clock for pair in pairs)
        print(
            f"{NAMES[number]}: ratio {middle:.1f} ({min(each):.1f} to {max(each):.1f}, {len(pairs)} pairs), "
            f"{batched:.1f} relative to plain batching"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", default=Path("../shared/data"), help="sugarcrepe/, coco/val2017/")
    parser.add_argument("--model", default="ViT-B-32-quickgelu:random", help="any model name, for example world")
    parser.add_argument("--runs", type=at_least(1), default=3, help="pairs of runs")
    parser.add_argument("--threads", type=at_least(1), default=os.cpu_count() or 1, help="threads of torch")
    for kind, number in (("images", Embedder.images_per_batch), ("texts", Embedder.texts_per_batch)):
        parser.add_argument(f"--{kind}-per-batch", type=at_least(0), default=number, help="0: degla's default")
    given = parser.parse_args()
    logging.getLogger("degla").setLevel(logging.ERROR)
    torch.set_num_threads(given.threads)
    encoder = load_encoder(given.model)
    entries = ask(BENCHMARK, given.root, allow_missing=True).entries
    images, texts = list(images_of(entries)), [text for entry in entries for text in texts_of(entry)]
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {given.threads} threads, load "
        f"{os.getloadavg()[0]:.1f}; Python {platform.python_version()}, torch {torch.__version__}, open_clip "
        f"{open_clip.__version__}, numpy {np.__version__}"
    )
    print(
        f"{given.model}, fp32: {len(entries)} items, {len(set(images))} images, {len(set(texts))} texts, "
        f"{given.images_per_batch} images, {given.texts_per_batch} texts per batch (0: degla's default), "
        f"linear layers: {used_on(encoder.device)}"
    )
    # The first calls include lazy loading, so they are not counted.
    with torch.no_grad(), Image.open(given.root / images[0].path) as opened:
        encoder.encode_images(encoder.transform(opened.convert("RGB")).unsqueeze(0))
        encoder.clip.encode_text(encoder.tokenize(texts[:1]))
    pairs = []
    for number in range(given.runs):
        seconds, items = one_pair(
            encoder, given.root, images_per_batch=given.images_per_batch, texts_per_batch=given.texts_per_batch
        )
        pairs.append(seconds)
        print(f"pair {number + 1}: {items} verdicts equal the official loop's, load {os.getloadavg()[0]:.1f}")
    report(pairs)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
