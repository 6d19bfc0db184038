"""Measure the base model on the demo's questions again: the results that ship in `src/degla/world/results`.

Usage: python tools/base_results.py. Needed when the world's model, its questions or their scoring change; a test
reports it.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from pathlib import Path

from degla.cli import exit_status_of
from degla.demo.world import BASE_RESULTS, FULL, QUICK, made_from
from degla.evaluation.results import save_result
from degla.evaluation.run import Evaluation
from degla.model.load import load_encoder
from degla.study.standings import BASE


def main() -> None:
    """Write the results."""
    BASE_RESULTS.mkdir(exist_ok=True)
    for size in (FULL, QUICK):
        with tempfile.TemporaryDirectory() as folder:
            benchmark = size.draw_questions(Path(folder))
            path = Path(folder) / "base-0.json"
            result = Evaluation(("world",), benchmark, progress=False).score(load_encoder("world"), label=BASE)
            items = save_result(result, path)
            shutil.copyfile(path, BASE_RESULTS / f"{size.base}.json")
            packed = gzip.compress(items.read_bytes(), mtime=0)
            (BASE_RESULTS / f"{size.base}.items.jsonl.gz").write_bytes(packed)
            (BASE_RESULTS / f"{size.base}.sha256").write_text(made_from(benchmark), encoding="ascii")
            print(size.base, len(result.items), "items,", len(packed), "bytes")


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
