"""How many pairs does the recipe `clip` train in the time in which open_clip's own trainer trains one?

The same weights, captions and pictures (noise) on both sides, which run in turns, each in a process of its own: one
step that is not counted, then some that are, with one thread, in fp32. Seconds are those of the processor, so that
other work matters less. Nothing is decoded. Losses of all steps are compared.
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


def batches(given: Namespace) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Pictures and captions of each step, the first included that is not counted."""
    rows = list(read_captions(given.captions))
    generator = torch.Generator().manual_seed(0)
    for step in range(given.steps + 1):
        texts = [rows[(step * given.batch_size + place) % len(rows)].text for place in range(given.batch_size)]
        yield torch.randn(given.batch_size, 3, given.pixels, given.pixels, generator=generator), texts


def measured(given: Namespace) -> TakenSteps:
    """Seconds and losses of each step of one side."""
    encoder = load_encoder(f"{given.model}:random")
    if given.side == "ours":
        return clip_steps(encoder, batches(given), precision="fp32", clock=time.process_time)
    return open_clip_steps(encoder, batches(given), number=given.steps + 1, precision="fp32", clock=time.process_time)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path, help="any captions file, for example COCO's captions_val2017.json")
    parser.add_argument("--model", default="ViT-B-32-quickgelu", help="of open_clip, with random weights")
    parser.add_argument("--pixels", type=int, default=224, help="that the model takes (224)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="that are counted, of a process (20)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["theirs", "ours"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.side:
        print(json.dumps(asdict(measured(given))))
        return
    next(read_captions(given.captions))  # What is wrong with the file is told once, not by each process.
    ratios: list[float] = []
    # Freed memory is kept by what loads a model of this package, which open_clip's trainer is measured without.
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
