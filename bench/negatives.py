"""Captions per processor second, and memory: of the rules, and of the pipeline with a scripted language model.

``negatives.py CAPTIONS`` measures the rules on the captions of the file, without a model: first all together, with
tagging, then each on the tagged captions. ``--pipeline 100000`` repeats the captions up to that number with distinct
ids and uses a model that answers immediately from a table. Repeated texts are tagged once (the pipeline caches them),
so the figure covers requests, checks, journal, order and rows; ``--distinct`` gives every caption its own text, so the
figure includes tagging.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from degla.cli import exit_status_of
from degla.data.sources import read_captions
from degla.negatives.generate import NegativesSettings, generate
from degla.negatives.grammar.phrases import parse
from degla.negatives.llm import Request
from degla.negatives.llm.scripted import ScriptedModel
from degla.negatives.rule import MOST_CANDIDATES, load_rule
from degla.records import CaptionRecord
from degla.shelf import RULES
from degla.verbs._arguments import at_least

PAPER = ("reshuffle_order", "swap_nouns", "swap_adjectives", "replace_adjectives", "replace_nouns")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="any captions file")
    parser.add_argument("--pipeline", type=at_least(1), metavar="N", help="number of captions for the pipeline")
    parser.add_argument("--rules", nargs="+", default=PAPER, help="rules of the pipeline (the paper's five)")
    parser.add_argument("--distinct", action="store_true", help="give every caption its own text")
    given = parser.parse_args()
    parse(["A warm-up loads the tagger and its tables."])
    if given.pipeline:
        measure_pipeline(given.captions, given.pipeline, given.rules, distinct=given.distinct)
        return
    captions = list(read_captions(given.captions))
    print(f"{'captions per processor second':>31}  accepted per caption")
    measure("all rules, cold", RULES.names(), captions)
    for name in RULES.names():
        measure(name, [name], captions)


def measure(title: str, rules: list[str], captions: list[CaptionRecord]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        summary = generate(captions, NegativesSettings(rules, 0), out=Path(folder) / "negatives.jsonl", progress=False)
        rate = len(captions) / (time.process_time() - started)
    print(f"{title:<20} {rate:10.0f}  {summary.mean:18.2f}")


def measure_pipeline(path: Path, count: int, rules: list[str], *, distinct: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "captions.jsonl"
        captions = list(read_captions(path))[:count]
        texts = repeat_captions(captions, count, source, distinct=distinct)
        table = answers(list(dict.fromkeys(record.text for record in captions)), rules)
        model = ScriptedModel(partial(answer, table), capacity=64)
        watch = MemoryWatch()
        cpu, started = time.process_time(), time.perf_counter()
        settings = NegativesSettings(rules, 0)
        summary = generate(
            partial(stream, source), settings, out=Path(folder) / "out.jsonl", model=model, progress=False
        )
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(f"{count:,} captions, {texts:,} texts, {len(rules)} rules, {summary.replies.attempts:,} requests")
    rate = summary.replies.attempts / cpu
    print(f"{count / cpu:,.0f} captions, {rate:,.0f} requests per processor second; {seconds:.0f} s wall")
    print(f"{summary.mean:.2f} negatives per caption, {summary.share_accepted:.0%} of the rows accepted")
    print("largest memory in MB in each tenth:", " ".join(f"{megabytes:.0f}" for megabytes in watch.tenths()))
    print(f"peak: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def repeat_captions(captions: list[CaptionRecord], count: int, out: Path, *, distinct: bool) -> int:
    """Write the captions repeatedly with distinct ids and images; return the number of distinct texts."""
    texts = set()
    with out.open("w", encoding="utf-8") as stream:
        for number in range(count):
            record = captions[number % len(captions)]
            turn = number // len(captions)
            text = f"{record.text.rstrip('. ')} on day {turn}" if distinct else record.text
            texts.add(text)
            row = {"id": f"{number}", "image": record.image, "text": text, "image_id": f"{record.image_id}-{turn}"}
            stream.write(json.dumps(row) + "\n")
    return len(texts)


def stream(path: Path) -> Iterator[CaptionRecord]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield CaptionRecord.model_validate_json(line)


def answers(texts: list[str], rules: list[str]) -> dict[tuple[str, str], str]:
    """Return the grammar's best negative, or the text itself, for every text, without its full stop, and rule."""
    from degla.negatives.run.dialogue import draw_rng

    found = {}
    for caption in parse(texts):
        for name in rules:
            candidates = load_rule(name).propose(caption, draw_rng(0, caption.text, name), MOST_CANDIDATES)
            found[caption.text.rstrip(". "), name] = candidates[0] if candidates else caption.text
    return found


def answer(table: dict[tuple[str, str], str], request: Request) -> str | None:
    if request.form != "write":
        return None
    base, day, turn = request.caption.partition(" on day ")
    found = table.get((base.rstrip(". "), request.key.rule))
    return None if found is None else found.rstrip(". ") + day + turn if day else found


class MemoryWatch:
    """Record the memory of this process ten times per second."""

    def __init__(self) -> None:
        self._seen: list[float] = []
        threading.Thread(target=self._look, daemon=True).start()

    def tenths(self) -> list[float]:
        return [float(part.max()) for part in np.array_split(self._seen, 10) if len(part)]

    def _look(self) -> None:
        while True:
            pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
            self._seen.append(pages * resource.getpagesize() / 2**20)
            time.sleep(0.1)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
