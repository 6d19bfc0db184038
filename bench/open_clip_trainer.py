"""How many pairs does the recipe `clip` train in the time open_clip's own trainer needs for one?

Both sides use the same weights, captions and images (noise) and alternate, each in a separate process: one warm-up
step, then the counted steps, with one thread, in fp32. Reports processor seconds, so other load matters less. Nothing
is decoded. Losses of all steps are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from degla.cli import exit_status_of
from degla.data.sources import read_captions
from degla.model.heap import KEPT
from degla.model.load import load_encoder
from degla.speed.whole_steps import TakenSteps, clip_steps, open_clip_steps
from degla.verbs._arguments import at_least


def batches(given: Namespace) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Return images and captions of each step, including the warm-up step."""
    rows = list(read_captions(given.captions))
    generator = torch.Generator().manual_seed(0)
    for step in range(given.steps + 1):
        texts = [rows[(step * given.batch_size + place) % len(rows)].text for place in range(given.batch_size)]
        yield torch.randn(given.batch_size, 3, given.pixels, given.pixels, generator=generator), texts


def measured(given: Namespace) -> TakenSteps:
    """Return seconds and losses of each step of one side."""
    encoder = load_encoder(f"{given.model}:random")
    if given.side == "ours":
        return clip_steps(encoder, batches(given), precision="fp32", clock=time.process_time)
    return open_clip_steps(encoder, batches(given), number=given.steps + 1, precision="fp32", clock=time.process_time)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path, help="any captions file, for example COCO's captions_val2017.json")
    parser.add_argument("--model", default="ViT-B-32-quickgelu", help="open_clip model, with random weights")
    parser.add_argument("--pixels", type=at_least(1), default=224, help="side of the model's input (224)")
    parser.add_argument("--batch-size", type=at_least(1), default=32)
    parser.add_argument("--steps", type=at_least(1), default=20, help="counted steps per process (20)")
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument("--side", choices=["theirs", "ours"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.side:
        print(json.dumps(asdict(measured(given))))
        return
    next(read_captions(given.captions))  # Errors in the file are reported once, not by each process.
    ratios: list[float] = []
    # Loading a model of this package keeps freed memory; open_clip's trainer is measured without that.
    environments = {"theirs": os.environ | {KEPT: "0"}, "ours": os.environ}
    print(f"{platform.machine()}, {given.model}, {given.steps} steps of {given.batch_size} pairs, one thread, fp32")
    for number in range(given.rounds):
        found = {}
        for side, environment in environments.items():
            words = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            found[side] = json.loads(done.stdout.splitlines()[-1])
        one, other = (statistics.median(found[side]["seconds"][1:]) for side in environments)
        ratios.append(one / other)
        pairs = zip(found["theirs"]["losses"], found["ours"]["losses"], strict=True)
        gap = max(abs(left - right) / abs(left) for left, right in pairs)
        rates = (given.batch_size / seconds for seconds in (one, other))
        told = "open_clip {:.2f}, degla {:.2f} pairs a second of the processor".format(*rates)
        print(f"round {number + 1}: {told}, x {one / other:.2f}; losses within {gap:.1e}", flush=True)
    print(f"median x {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
