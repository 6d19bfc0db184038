"""Captions a second of each rule and of all together, one process, tagging and checks included."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from degla.data.sources import read_captions
from degla.negatives.generate import generate
from degla.negatives.phrases import parse
from degla.shelf import RULES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="any captions file")
    given = parser.parse_args()
    captions = list(read_captions(given.captions))
    parse(["A warm-up loads the tagger and its tables."])
    for rules in ([name] for name in RULES.names()), [RULES.names()]:
        for chosen in rules:
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                summary = generate(captions, rules=chosen, out=Path(folder) / "n.jsonl", seed=0, progress=False)
                rate = len(captions) / (time.perf_counter() - started)
            name = chosen[0] if len(chosen) == 1 else "all rules"
            print(f"{name:<20} {rate:8.0f} captions/s  {summary.mean:.2f} accepted a caption")


if __name__ == "__main__":
    main()
