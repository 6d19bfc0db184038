"""Do other versions of open_clip, and models from transformers, train identically and as fast?

Runs the same training with the installed open_clip, with another version, and from the same weights in a transformers
folder, and compares the losses of every step. With --rounds, compares processor time of the first two instead, in
alternating runs: for every step the minimum over rounds counts, because other load only ever adds time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import degla
from degla.cli import exit_status_of
from degla.errors import InputError
from degla.training.step import Trainer
from degla.verbs._arguments import at_least

RUNS: dict[str, tuple[str, dict[str, object]]] = {
    "degla": ("degla", {}),
    "degla, adapters": ("degla", {"adapter.rank": 4}),
    "degla, no trimming": ("degla", {"train.trim": False}),
    "fsc_clip (patches and tokens)": ("fsc_clip", {}),
}
SIDES = ("installed", "other", "transformers")


def train(run: str, model: str, out: Path, given: argparse.Namespace, steps: int) -> None:
    """Do one run with this process's version."""
    recipe, changes = RUNS[run]
    fields = {
        "model": model, "data.captions": str(given.data / "coco/annotations/captions_val2017.json"),
        "data.images": str(given.data / "coco/val2017"), "data.negatives": str(given.into / "negatives.jsonl"),
        "out": str(out), "optim.lr": 1e-4, "optim.warmup_steps": 5, "train.batch_size": 16, "train.steps": steps,
        "train.precision": "fp32", "tracking.every_steps": 1, "data.workers": 0,
    }  # fmt: skip
    degla.train(recipe, fields | changes)


def child(given: argparse.Namespace) -> None:
    """Do all runs of one side, or time one of them; print the measurements."""
    import open_clip

    folder = given.into / given.side
    if given.timed:
        with tempfile.TemporaryDirectory() as name:
            train("degla", given.model, Path(name) / "warm", given, 3)
            seconds = time_steps()
            train("degla", given.model, Path(name) / "timed", given, given.steps)
            print(json.dumps(seconds))
        return
    for number, run in enumerate(RUNS):
        train(run, given.model, folder / str(number), given, given.steps)
    print(json.dumps(open_clip.__version__))


def time_steps() -> list[float]:
    """Return a list to which every training step from now on appends its processor seconds."""
    seconds: list[float] = []
    step = Trainer.step

    def timed(*words: Any, **named: Any) -> Any:
        start = time.process_time()
        values = step(*words, **named)
        seconds.append(time.process_time() - start)
        return values

    Trainer.step = timed  # type: ignore[method-assign]
    return seconds


def losses(run: Path) -> list[float]:
    """Return the loss of every step."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def run_side(side: str, model: str, folder: Path, given: argparse.Namespace, *more: str) -> Any:
    """Return what a child process of that side prints."""
    paths = [str(given.other.resolve())] if side == "other" else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, __file__, "--other", str(given.other), "--data", str(given.data), "--side", side]
    words += ["--model", model, "--steps", str(given.steps), "--into", str(folder), *more]
    return json.loads(
        subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--other", type=Path, help="folder that contains the other version's package open_clip", required=True
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="root that contains coco/")
    parser.add_argument("--model", default="world")
    parser.add_argument("--steps", type=at_least(1), default=20)
    parser.add_argument("--rounds", type=at_least(0), default=0, help="alternating pairs of timed runs of degla")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--timed", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.into:
        child(given)
        return
    if not (given.other / "open_clip" / "__init__.py").is_file():
        raise InputError(f"--other {given.other}: contains no package open_clip, so nothing would be compared.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        degla.write_negatives(given.data / "coco/annotations/captions_val2017.json", folder / "negatives.jsonl")
        if given.rounds:
            compare_times(folder, given)
        else:
            compare_losses(folder, given)


def compare_losses(folder: Path, given: argparse.Namespace) -> None:
    """Print how much the losses of the steps differ, run by run."""
    from degla.export.run import export

    start = export(given.model, to="transformers", out=folder / "start").folder
    models = {side: str(start) if side == "transformers" else given.model for side in SIDES}
    versions = [run_side(side, models[side], folder, given) for side in SIDES]
    print(f"open_clip {versions[0]} and {versions[1]}, and a transformers folder with the former; "
          f"{given.model}, {given.steps} steps of 16 pairs in float32")  # fmt: skip
    for number, run in enumerate(RUNS):
        first, *others = (losses(folder / side / str(number)) for side in SIDES)
        assert all(len(each) == given.steps for each in (first, *others))
        gaps = [max(abs(one - two) for one, two in zip(first, each, strict=True)) for each in others]
        print(f"{run:32} loss {first[0]:.5f} to {first[-1]:.5f}, largest difference {gaps[0]:.1e} with the other "
              f"version, {gaps[1]:.1e} from transformers", flush=True)  # fmt: skip


def compare_times(folder: Path, given: argparse.Namespace) -> None:
    """Print the processor time of the steps with both versions, in alternating order, and their ratio."""
    rounds: dict[str, list[list[float]]] = {side: [] for side in SIDES[:2]}
    for number in range(given.rounds):
        for side in SIDES[:2] if number % 2 else SIDES[1::-1]:
            rounds[side].append(run_side(side, given.model, folder, given, "--timed"))
        first, other = (sum(rounds[side][-1]) for side in SIDES[:2])
        print(f"round {number + 1}: {first:.2f} s and {other:.2f} s of processor time, {other / first:.3f}", flush=True)
    first, other = (sum(map(min, zip(*rounds[side], strict=True))) for side in SIDES[:2])
    print(f"minimum of {given.rounds} rounds for each of {given.steps} steps: {first:.2f} s with the installed version "
          f"and {other:.2f} s with the other, {other / first:.3f}")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
