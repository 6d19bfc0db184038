"""Peak memory and time of scoring retrieval in both directions: 25,000 captions x 5,000 images of 512 dimensions.

Run it as a separate process: the figure is the peak resident set of the process, which can never decrease. Only scoring
is measured; generated rows replace a model's embeddings.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time

import numpy as np

from degla.cli import exit_status_of
from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmark import Retrieval
from degla.evaluation.benchmarks.retrieval import BENCHMARK
from degla.evaluation.embed import EmbeddedItems
from degla.evaluation.scoring import unit_rows
from degla.evaluation.verdicts import judge
from degla.records import ItemImage
from degla.verbs._arguments import at_least


def peak_bytes() -> int:
    """Return the peak resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=at_least(1), default=25_000)
    parser.add_argument("--images", type=at_least(1), default=5_000)
    parser.add_argument("--dimensions", type=at_least(1), default=512)
    parser.add_argument("--limit", type=float, default=2.0, help="GB (10^9 bytes); more is exit status 1")
    given = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"Python {platform.python_version()}, numpy {np.__version__}, OMP_NUM_THREADS={os.getenv('OMP_NUM_THREADS')}")
    print(f"{given.texts} texts x {given.images} images x {given.dimensions} dimensions; seconds and peak so far:")
    started = time.perf_counter()

    def say(step: str) -> None:
        print(f"{step:34}{time.perf_counter() - started:8.1f} s{peak_bytes() / 1e9:8.2f} GB", flush=True)

    say("after imports")
    generator = np.random.default_rng(0)
    pictures = unit_rows(generator.normal(size=(given.images, given.dimensions)).astype(np.float32))
    owners = np.arange(given.texts) % given.images
    noise = generator.standard_normal((given.texts, given.dimensions), dtype=np.float32)
    captions = unit_rows(pictures[owners] + noise * np.float32(0.3))
    # Some captions are the same for two images, as in real files: they must tie.
    repeated = given.texts // 100
    captions[-repeated:] = captions[:repeated]
    entry = Retrieval(
        benchmark="retrieval",
        part="captions/made",
        images=tuple(ItemImage(path=f"{number}.jpg") for number in range(given.images)),
        texts=tuple(f"caption {number}" for number in range(given.texts)),
        owners=tuple((int(owner),) for owner in owners),
    )
    embeddings = EmbeddedItems(
        pictures,
        {image: number for number, image in enumerate(entry.images)},
        captions,
        {text: number for number, text in enumerate(entry.texts)},
    )
    say("made rows")
    judged = judge(BENCHMARK, [entry], embeddings)
    say("ranked both ways, verdicts")
    scores = aggregate(BENCHMARK, judged)
    say("scores with intervals")
    for score in scores.parts["captions/made"][:2]:
        print(f"{score.metric}: {score.value:.4f}, n {score.n}, ties {score.ties}, chance {score.chance:.5f}")
    whole = 4 * given.texts * given.images
    print(f"the full similarity matrix would take {whole / 1e9:.2f} GB per direction")
    return int(peak_bytes() > given.limit * 1e9)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
