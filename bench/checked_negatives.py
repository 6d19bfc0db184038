"""Does it matter what negatives a model is fine-tuned on? The embedded world, one recipe, several files of negatives.

    python bench/checked_negatives.py --arm rules=r.jsonl --arm "free, unchecked=w.jsonl:all" ... --out DIR --seeds 3

The files must be made from the same captions (``DIR/world/pairs-N/captions.jsonl``, drawn by ``--draw-only``). ``:all``
behind a file takes every text that it holds, accepted or refused, as an unchecked generator would.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from degla.demo import Job, _start_worker, _tune, demo_config
from degla.evaluation.report import report
from degla.evaluation.results import save_result
from degla.evaluation.run import evaluate
from degla.model.load import load_encoder
from degla.shelf import RECIPES
from degla.world.draw import draw_benchmark, draw_pairs


def _arm(word: str, folder: Path) -> tuple[str, Path]:
    """The label of an arm and the file that it trains on."""
    label, _, path = word.partition("=")
    name, _, everything = path.partition(":")
    if not everything:
        return label, Path(name)
    unchecked = folder / f"{label.replace(' ', '-').replace(',', '')}.jsonl"
    with Path(name).open(encoding="utf-8") as lines, unchecked.open("w", encoding="utf-8") as out:
        for line in lines:
            row = json.loads(line)
            if row["text"]:
                out.write(json.dumps(row | {"accepted": True, "reason": ""}) + "\n")
    return label, unchecked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", action="append", default=[], metavar="LABEL=FILE[:all]")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="degla")
    parser.add_argument("--draw-only", action="store_true", help="draw the captions to make negatives of, and stop")
    given = parser.parse_args()
    pairs = draw_pairs(given.out / "world" / f"pairs-{given.scenes}", count=given.scenes, captions_per_image=1)
    if given.draw_only:
        print(pairs.captions)
        return
    benchmark = draw_benchmark(given.out / "world" / "benchmark")
    results = given.out / "results"
    results.mkdir(parents=True, exist_ok=True)
    jobs = []
    for label, negatives in [_arm(word, given.out) for word in given.arm]:
        for seed in range(given.seeds):
            config = demo_config(getattr(RECIPES.load(given.recipe), given.recipe)(), steps=given.steps, seed=seed)
            data = replace(config.data, captions=pairs.captions, images=pairs.images, negatives=negatives)
            out = given.out / "runs" / f"{label.replace(' ', '-')}-{seed}"
            jobs.append(Job(label, replace(config, data=data, out=out), benchmark, results, None))
    base = results / "base-0.json"
    save_result(evaluate(load_encoder("world"), benchmarks=["world"], root=benchmark, label="base"), base)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        paths = [base, *(path for made in pool.map(_tune, jobs) for path in made)]
    table = report(paths, out=given.out / "report.html", baseline="base")
    (given.out / "table.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
