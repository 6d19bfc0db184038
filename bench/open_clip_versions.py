"""Does another version of open_clip train the same? Losses of the same runs by the installed one and by another."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import degla

RUNS: dict[str, tuple[str, dict[str, object]]] = {
    "degla": ("degla", {}),
    "degla, adapters": ("degla", {"adapter.rank": 4}),
    "degla, no trimming": ("degla", {"train.trim": False}),
    "fsc_clip (patches and tokens)": ("fsc_clip", {}),
}


def train_all(folder: Path, data: Path, given: argparse.Namespace) -> None:
    """All runs with the version at hand, into a folder of its own."""
    import open_clip

    told = {"version": open_clip.__version__}
    for number, (recipe, changes) in enumerate(RUNS.values()):
        fields = {
            "model": given.model, "data.captions": data / "coco/annotations/captions_val2017.json",
            "data.images": data / "coco/val2017", "data.negatives": folder.parent / "negatives.jsonl",
            "out": folder / str(number), "optim.lr": 1e-4, "optim.warmup_steps": 5, "train.batch_size": 16,
            "train.steps": given.steps, "train.precision": "fp32", "tracking.every_steps": 1, "data.workers": 0,
        }  # fmt: skip
        degla.train(
            recipe, {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()} | changes
        )
    (folder / "version.json").write_text(json.dumps(told))


def losses(run: Path) -> list[float]:
    """The loss of every step."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--other", type=Path, help="folder that holds the other version's package open_clip", required=True
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="root that holds coco/")
    parser.add_argument("--model", default="world")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.into:
        train_all(given.into, given.data, given)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        degla.write_negatives(given.data / "coco/annotations/captions_val2017.json", folder / "negatives.jsonl")
        sides = (folder / "installed", folder / "other")
        for side in sides:
            side.mkdir()
            paths = [str(given.other.resolve())] if side.name == "other" else []
            environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
            words = [sys.executable, __file__, "--other", str(given.other), "--data", str(given.data)]
            words += ["--model", given.model, "--steps", str(given.steps), "--into", str(side)]
            subprocess.run(words, env=environment, check=True)
        versions = [json.loads((side / "version.json").read_text())["version"] for side in sides]
        print(f"open_clip {versions[0]} and {versions[1]}, {given.model}, {given.steps} steps of 16 pairs in float32")
        for number, run in enumerate(RUNS):
            mine, yours = (losses(side / str(number)) for side in sides)
            assert len(mine) == len(yours) == given.steps
            gap = max(abs(one - other) for one, other in zip(mine, yours, strict=True))
            print(f"{run:32} loss {mine[0]:.5f} to {mine[-1]:.5f}, largest difference {gap:.1e}")


if __name__ == "__main__":
    main()
