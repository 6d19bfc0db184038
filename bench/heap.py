"""Measure how keeping freed memory (`degla.model.heap`) affects time and memory of a forward pass and a training step.

Each measurement runs in a separate process, with and without it alternating; random weights, noise images.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import open_clip
import timm
import torch
from safetensors.torch import save_file

from degla.cli import exit_status_of
from degla.losses.core import Processes
from degla.model.heap import KEPT
from degla.model.load import load_encoder
from degla.speed.machine import device_name, peak_memory
from degla.speed.workload import Workload, make_batch
from degla.training.build import build_trainer, open_accelerator
from degla.verbs._arguments import at_least

EFFICIENTNET = "tf_efficientnet_lite2"
MODELS = ("ViT-B-32-quickgelu:random", "RN50-quickgelu:random", EFFICIENTNET)


def make_efficientnet(folder: Path) -> Path:
    """Write an open_clip folder: a timm tower with the text tower of ViT-B/32."""
    vision = {"timm_model_name": EFFICIENTNET, "timm_pool": "avg", "timm_proj": "linear", "image_size": 260}
    text = open_clip.get_model_config("ViT-B-32")["text_cfg"]
    config = {"embed_dim": 512, "vision_cfg": vision, "text_cfg": text, "custom_text": True}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 260}}))
    torch.manual_seed(0)
    clip = open_clip.CustomTextCLIP(512, vision, text)
    weights = {name: value.contiguous().clone() for name, value in clip.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def work(given: argparse.Namespace) -> Callable[[], Any]:
    """Return the repeated work: a forward pass of the image tower, or a step of the recipe `degla`."""
    encoder = load_encoder(given.model)
    workload = Workload(model=given.model, batch_size=given.batch_size, negatives=4)
    batch = make_batch(workload, encoder, precision="fp32")
    if given.work == "forward":
        return torch.no_grad()(lambda: encoder.encode_images(batch.image))
    config = workload.config("fp32")
    trainer = build_trainer(config, open_accelerator(config), encoder, Processes(), rules=1, steps=1000)
    numbers = iter(range(1000))
    return lambda: trainer.step(batch, step=next(numbers))


def child(given: argparse.Namespace) -> None:
    """Print time, memory and pages of one process as JSON."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    once = work(given)
    once()
    rows = []
    for _ in range(given.times):
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
        once()
        after = resource.getrusage(resource.RUSAGE_SELF)
        rows.append((time.process_time() - start, after.ru_stime - before.ru_stime, after.ru_minflt - before.ru_minflt))
    seconds, system, pages = (statistics.median(column) for column in zip(*rows, strict=True))
    memory = peak_memory(torch.device("cpu"))
    print(json.dumps({"seconds": seconds, "system": system, "pages": pages, "memory": memory}))


def measure(model: str, kind: str, given: argparse.Namespace, *, kept: bool) -> dict[str, float]:
    """Return the figures of a separate process."""
    words = [sys.executable, __file__, "--model", model, "--work", kind, "--times", str(given.times)]
    words += ["--batch-size", str(given.batch_size)]
    environment = os.environ | {KEPT: "1" if kept else "0"}
    done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batch-size", type=at_least(1), default=8)
    parser.add_argument("--rounds", type=at_least(1), default=3, help="pairs of processes")
    parser.add_argument("--times", type=at_least(1), default=5, help="repetitions per process; the median counts")
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.model:
        child(given)
        return
    print(f"{device_name(torch.device('cpu')).partition(',')[0]}, one thread, torch {torch.__version__}, timm "
          f"{timm.__version__}; {given.batch_size} images, fp32; processor milliseconds per image\n")  # fmt: skip
    print("| model | work | returned (system part) | kept | ratio | pages | memory |\n|" + "---|" * 7)
    with tempfile.TemporaryDirectory() as name:
        folder = make_efficientnet(Path(name) / "efficientnet")
        for model in given.only:
            for kind in ("forward", "step"):
                pairs = []
                for number in range(given.rounds):
                    order = (True, False) if number % 2 else (False, True)
                    place = str(folder) if model == EFFICIENTNET else model
                    found = {kept: measure(place, kind, given, kept=kept) for kept in order}
                    pairs.append((found[False], found[True]))
                print(row(model, kind, pairs, given.batch_size), flush=True)


def row(model: str, kind: str, pairs: list[tuple[dict[str, float], dict[str, float]]], pictures: int) -> str:
    """Return a line of the table: medians over the pairs."""

    def middle(side: int, field: str) -> float:
        return statistics.median(pair[side][field] for pair in pairs)

    def ratios(field: str) -> list[float]:
        return [before[field] / after[field] for before, after in pairs]

    given_back, system, kept = (
        1000 * value / pictures for value in (middle(0, "seconds"), middle(0, "system"), middle(1, "seconds"))
    )
    faster, more = ratios("seconds"), statistics.median(1 / value for value in ratios("memory"))
    return (
        f"| {model} | {kind} | {given_back:.1f} ({system:.1f}) | {kept:.1f} | {statistics.median(faster):.2f} "
        f"({min(faster):.2f} to {max(faster):.2f}) | {middle(0, 'pages'):,.0f} to {middle(1, 'pages'):,.0f} | "
        f"{middle(0, 'memory') / 2**20:,.0f} to {middle(1, 'memory') / 2**20:,.0f} MiB ({100 * (more - 1):+.0f} %) |"
    )


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
