"""Check that recipes train a sigmoid-loss model: loss, scale and bias of a small random SigLIP over a few steps.

Exit status 1 if a run that is resumed from its middle differs.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import degla
from bench.families import FAMILIES, make_model
from degla.cli import exit_status_of
from degla.model.load import load_encoder
from degla.verbs._arguments import at_least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="root that contains coco/")
    parser.add_argument("--steps", type=at_least(1), default=20)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    captions = given.data / "coco/annotations/captions_val2017.json"
    equal = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        degla.write_negatives(captions, folder / "negatives.jsonl")
        model = make_model(folder / "siglip", FAMILIES["SigLIP"])
        print("| recipe | loss | scale | bias | resumed from the middle |\n|---|---|---|---|---|")
        for recipe in ("clip", "negclip", "degla"):
            fields = {
                "model": str(model), "data.captions": str(captions), "data.images": str(given.data / "coco/val2017"),
                "data.negatives": str(folder / "negatives.jsonl"), "out": str(folder / recipe), "optim.lr": 3e-3,
                "optim.warmup_steps": 2, "train.batch_size": 16, "train.steps": given.steps,
                "train.precision": "fp32", "tracking.every_steps": 1, "checkpoint.every_steps": given.steps // 2,
                "checkpoint.every_minutes": 0, "checkpoint.keep": 0, "data.workers": 0,
            }  # fmt: skip
            whole = degla.train(recipe, fields)
            lines = (folder / recipe / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            rows = [row for row in map(json.loads, lines) if "loss" in row]
            expected = load_encoder(str(whole.folder)).fingerprint
            (whole.folder / "state.json").unlink()
            again = load_encoder(str(degla.train(recipe, fields, resume=True).folder)).fingerprint
            told = [f"{rows[0][key]:.4f} to {rows[-1][key]:.4f}" for key in ("loss", "scale", "bias")]
            equal.append(again == expected)
            told += ["bit-equal" if equal[-1] else "DIFFERS"]
            print(f"| `{recipe}` |", " | ".join(told), "|", flush=True)
    sys.exit(0 if all(equal) else 1)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
