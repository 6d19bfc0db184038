"""Made-up results of five methods and three seeds, with the shape that the embedded world's have."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmark import Benchmark
from degla.evaluation.in_print import published_tables
from degla.evaluation.results import save_result
from degla.evaluation.verdicts import Judged
from degla.results import BenchmarkResult, ItemVerdict, ModelProvenance, PartResult, Result
from degla.shelf import BENCHMARKS

LEVELS = {
    "clip (no training)": (0.60, 0.55, 0.62, 0.78),
    "fine-tuned clip": (0.61, 0.56, 0.64, 0.74),
    "negclip": (0.70, 0.67, 0.92, 0.60),
    "ce-clip": (0.73, 0.70, 0.94, 0.45),
    "degla": (0.72, 0.69, 0.93, 0.70),
}
_FAMILY_LEVEL = {"swap": 1, "order": 2, "recognition": 3, "retrieval": 3}


def draw_result(
    label: str, levels: tuple[float, ...], training_seed: int | None, *, benchmark: Benchmark, n: int = 60
) -> Result:
    """One result whose items are right with the given probabilities (composition, swap, order, recognition)."""
    generator = np.random.default_rng([zlib.crc32(label.encode()), training_seed or 0])
    # A method's seeds differ by more than their items do.
    shift = generator.normal(0, 0.012, 4)
    judged = []
    for part in benchmark.parts:
        which = _FAMILY_LEVEL.get(part.family, 0)
        level = min(0.98, max(0.02, levels[which] + shift[which]))
        for number in range(n):
            ok = {metric.verdict: float(generator.random() < level) for metric in part.metrics}
            judged.append(
                Judged(
                    ItemVerdict(
                        id=f"{benchmark.name}/{part.name}/{number}",
                        benchmark=benchmark.name,
                        part=part.name,
                        image=f"images/{part.name.split('/')[0]}/{number}.png",
                        group={"class": str(number % 5)},
                        ok=ok,
                        ties={key: int(label.startswith("clip") and number % 20 == 0) for key in ok},
                        margin=0.1,
                    ),
                    dict.fromkeys(ok, 0.1 if which == 3 else 0.5),
                )
            )
    scores = aggregate(benchmark, judged)
    parts = tuple(
        PartResult(name=name, family=benchmark.part(name).family, tie="strict", scores=values)
        for name, values in scores.parts.items()
    )
    result = BenchmarkResult(
        name=benchmark.name,
        title=benchmark.title,
        paper=benchmark.paper,
        licence=benchmark.licence,
        annotation_sha256={},
        items_sha256="a" * 64,
        text_solvable={},
        parts=parts,
        averages=scores.averages,
        headline=dict(benchmark.headline),
    )
    return Result(
        image_reading="upright",
        model=ModelProvenance(
            name=f"runs/{label}", label=label, fingerprint="0" * 64, activation="quick_gelu", precision="fp32"
        ),
        training_seed=training_seed,
        date="2026-01-02T03:04:05+00:00",
        versions={"degla": "0.1.0", "torch": "2.13", "open_clip": "3.3", "python": "3.11"},
        benchmarks=(result,),
        items=tuple(row.verdict for row in judged),
    )


def write_results(folder: Path, *, name: str = "world", n: int = 60) -> list[Path]:
    """The untrained model once, every other method with three seeds."""
    benchmark = BENCHMARKS.load(name).BENCHMARK
    paths = []
    for label, levels in LEVELS.items():
        for seed in (None,) if "no training" in label else (0, 1, 2):
            path = folder / f"{label.replace(' ', '-')}-{seed}.json"
            save_result(draw_result(label, levels, seed, benchmark=benchmark, n=n), path)
            paths.append(path)
    return paths


def published_scores(benchmark: str) -> dict[str, dict[str, float]]:
    """A benchmark's scores in print, from 0 to 1: "model, source" to name of part or average to value.

    Args:
        benchmark: name on the shelf; one without scores in print gives an empty dict.
    """
    return {
        f"{row.model}, {table.source}": {name: percent / 100 for name, percent in (row.scores | row.averages).items()}
        for table in published_tables()
        if table.benchmark == benchmark
        for row in table.row
    }
