"""Captions a second of all rules on captions not seen before, then of each rule on captions already tagged."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from degla.data.sources import read_captions
from degla.negatives.generate import generate
from degla.negatives.phrases import parse
from degla.records import CaptionRecord
from degla.shelf import RULES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="any captions file")
    given = parser.parse_args()
    captions = list(read_captions(given.captions))
    parse(["A warm-up loads the tagger and its tables."])
    print(f"{'':<20} {'captions/s':>10}  accepted a caption")
    measure("all rules, cold", RULES.names(), captions)
    for name in RULES.names():
        measure(name, [name], captions)


def measure(title: str, rules: list[str], captions: list[CaptionRecord]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        summary = generate(captions, rules=rules, out=Path(folder) / "negatives.jsonl", seed=0, progress=False)
        rate = len(captions) / (time.perf_counter() - started)
    print(f"{title:<20} {rate:10.0f}  {summary.mean:.2f}")


if __name__ == "__main__":
    main()
