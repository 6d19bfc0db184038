"""the embedded world: draw its data, pre-train its model"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("action", choices=["draw", "pretrain"], help="draw pairs and benchmark, or pre-train the model")
    verb.add_argument("--out", type=Path, required=True, help="folder to write to")
    verb.add_argument("--pairs", type=int, help="draw: training pairs (8000); pretrain: pairs seen")
    verb.add_argument("--seed", type=int, default=0, help="seed (0)")


def run(given: argparse.Namespace) -> int:
    if given.action == "pretrain":
        import torch

        from degla.world.pretrain import pretrain

        torch.set_num_threads(1)  # One is bit-reproducible.
        pretrain(given.out, seed=given.seed, **({"pairs": given.pairs} if given.pairs else {}))
        return 0
    from degla.world.draw import draw_benchmark, draw_pairs

    draw_pairs(given.out / "pairs", count=given.pairs or 8000, seed=given.seed)
    draw_benchmark(given.out / "benchmark", split="test", seed=given.seed)
    sys.stderr.write(f"written: {given.out}/pairs and {given.out}/benchmark\n")
    return 0
