"""Prepare millions of rows: time and memory of the preparation, and of several processes that then start on them.

The first rows are also joined manually in memory and compared with the table: rows, digests, draws, order and an order
that starts in the middle. Exit status 1 if one differs.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import random
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from degla.verbs._arguments import at_least

WORDS = [
    f"{start}{end}" for start in ("ba", "do", "fe", "gri", "hol", "mu") for end in ("d", "lk", "nter", "re", "ss", "t")
]
FIRST = 10_000
"""Rows that are also joined manually."""


def write(folder: Path, *, captions: int, negatives: int, shuffled: bool) -> dict[str, Path]:
    """Write captions of made-up words, five per image, and their negatives; image files are hard links to a few."""
    chance = random.Random(0)
    files = {
        "captions": folder / "captions.jsonl",
        "negatives": folder / "negatives.jsonl",
        "images": folder / "images",
    }
    files["images"].mkdir()
    for number in range(-(-captions // 5)):
        # File systems limit the number of hard links per file.
        source = files["images"] / f"{number - number % 10_000:07d}.jpg"
        if number % 10_000:
            (files["images"] / f"{number:07d}.jpg").hardlink_to(source)
        else:
            source.write_bytes(b"\xff")

    # Drawn phrase by phrase, not word by word: making up texts is not what is measured.
    phrases = [" ".join(chance.choices(WORDS, k=5)) for _ in range(10_000)]

    def text() -> str:
        first, second = divmod(int(chance.random() * 100_000_000), 10_000)
        return f"A {phrases[first]} {phrases[second]}."

    with files["captions"].open("w") as stream, (folder / "first-captions.jsonl").open("w") as first:
        for number in range(captions):
            row = {
                "id": f"{number:09d}",
                "image": f"{number // 5:07d}.jpg",
                "text": text(),
                "image_id": f"{number // 5}",
            }
            line = json.dumps(row) + "\n"
            stream.write(line)
            if number < FIRST:
                first.write(line)
    order = list(range(captions))
    if shuffled:
        chance.shuffle(order)
    rules = ("swap_nouns", "replace_nouns", "replace_adjectives", "reshuffle_order", "swap_adjectives", "negation")
    with files["negatives"].open("w") as stream, (folder / "first-negatives.jsonl").open("w") as first:
        for number in order:
            for place in range(negatives):
                line = (
                    f'{{"caption_id": "{number:09d}", "rule": "{rules[place % 6]}", "kind": "object", '
                    f'"text": "{text()}", "source": "rules", "accepted": true, "reason": "", "draw": 0, '
                    '"form": "grammar"}\n'
                )
                stream.write(line)
                if number < FIRST:
                    first.write(line)
    return files


def held_bytes() -> tuple[int, int]:
    """Return this process's private memory, and the part of it that is not a copy of a file on disk."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    private = 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return private, 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def draw_table(path: Path, *, captions: int, negatives: int) -> None:
    """Write a table with that many rows directly, with texts drawn from a few."""
    import numpy as np
    import pyarrow as arrow

    from degla.data.table import NEGATIVES, ROWS, caption_schema, row_schema

    chance, schema = np.random.default_rng(0), row_schema(caption_schema(()), [f"rule {n}" for n in range(negatives)])
    texts = arrow.array(
        [f"A {' '.join(random.Random(n).choices(WORDS, k=9))}." for n in range(10_000)], schema.types[2]
    )

    def drawn(count: int) -> arrow.Array:
        return texts.take(arrow.array(chance.integers(0, len(texts), count)))

    with arrow.ipc.new_file(str(path), schema) as writer:
        for start in range(0, captions, ROWS):
            rows = np.arange(start, min(start + ROWS, captions))
            ends = arrow.array(np.arange(len(rows) + 1) * negatives)
            rules = np.tile(np.arange(negatives), len(rows))
            lists = [drawn(len(rules)), arrow.array(rules), arrow.nulls(len(rules), arrow.float64())]
            numbers = [arrow.array(value).cast(schema.types[0]) for value in (rows, rows // 5)]
            columns = [numbers[0], numbers[1], drawn(len(rows)), numbers[1]]
            columns += [arrow.LargeListArray.from_arrays(ends, values) for values in lists]
            writer.write_batch(arrow.record_batch([*columns, arrow.array(rows // 5)], schema))
    assert schema.names[-len(NEGATIVES) :] == NEGATIVES.names


def start(files: dict[str, Path], negatives: int, rank: int, count: int, out: str) -> None:
    """Do what a training process does before its model, and return its first batch of row numbers."""
    from degla.config.run import TrainConfig
    from degla.config.sections import DataConfig
    from degla.data.plan import BatchPlan
    from degla.data.table import PairTable
    from degla.losses.core import Processes
    from degla.training.rows import read_pairs

    config = None if "table" in files else TrainConfig(data=DataConfig(**files, negatives_per_caption=negatives))
    gc.collect()
    before, began = held_bytes(), time.monotonic()
    peak, ended = [0, 0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            peak[:] = map(max, peak, held_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    if config is None:
        rows = PairTable(files["table"], about={"rules": [f"rule {number}" for number in range(negatives)]})
    else:
        rows = read_pairs(config.pairs, seed=0, processes=Processes()).rows
    plan = BatchPlan(rows.groups(), batch_size=256 // count, world_size=count, rank=rank, duplicates="avoid")
    keys = next(plan.batches(0))
    [rows[index] for _, index in keys]
    took = time.monotonic() - began
    ended.set()
    watcher.join()
    row = {"rank": rank, "seconds": took, "processor": time.process_time(), "held": held_bytes()[0] - before[0],
           "peak": peak[0] - before[0], "memory": peak[1] - before[1], "rows": len(rows),
           "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}  # fmt: skip
    with Path(out).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def first_are_equal(files: dict[str, Path], negatives: int) -> bool:
    """Whether the table's first rows equal a join with lists and dictionaries in memory, and are trained on equally."""
    import numpy as np
    import open_clip
    import torch

    from degla.config.run import TrainConfig
    from degla.config.sections import DataConfig
    from degla.data.dataset import PairDataset, data_digests
    from degla.data.pairs import PairRow
    from degla.data.plan import BatchPlan
    from degla.data.table import table_of
    from degla.losses.core import Processes
    from degla.records import CaptionRecord
    from degla.training.rows import read_pairs

    folder = files["captions"].parent
    false: dict[str, list[dict[str, str]]] = {}
    for line in (folder / "first-negatives.jsonl").open():
        row = json.loads(line)
        false.setdefault(row["caption_id"], []).append(row)
    captions = [CaptionRecord(**json.loads(line)) for line in (folder / "first-captions.jsonl").open()]
    by_hand = [
        PairRow(one, *(tuple(row[name] for row in false[one.id]) for name in ("text", "rule"))) for one in captions
    ]
    config = TrainConfig(data=DataConfig(**files, negatives_per_caption=negatives))
    whole = read_pairs(config.pairs, seed=0, processes=Processes()).rows
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    few, first = (
        PairDataset(rows, folder=folder, transform=lambda *_: torch.zeros(1), tokenize=tokenize,
                    negatives_per_caption=negatives // 2, seed=0)
        for rows in (table_of(by_hand, ()), whole.select(np.arange(len(by_hand))))
    )  # fmt: skip
    few.features = first.features = lambda _: torch.zeros(1)
    found = {"rows": list(first.rows) == by_hand, "digests": data_digests(first.rows) == data_digests(few.rows)}

    def same(key: tuple[int, int]) -> bool:
        one, other = few[key], first[key]
        return one.id == other.id and one.group == other.group and all(
            torch.equal(getattr(one, name), getattr(other, name)) for name in ("caption", "negative", "valid", "rule")
        )  # fmt: skip

    found["draws of two epochs"] = all(same((epoch, row)) for epoch in (0, 1) for row in range(len(by_hand)))
    plans = [BatchPlan(data.groups, batch_size=256, duplicates="avoid") for data in (few, first)]
    orders = [[batch for epoch in (0, 1) for batch in plan.batches(epoch)] for plan in plans]
    found["order of two epochs"] = orders[0] == orders[1]
    middle = min(17, len(plans[0]) // 2)
    found["resume of the first rows"] = list(plans[1].batches(1, start=middle)) == orders[0][len(plans[0]) + middle :]
    groups = whole.groups()
    plan, parts = (
        BatchPlan(groups, batch_size=256, duplicates="avoid"),
        [BatchPlan(groups, batch_size=32, world_size=8, rank=rank, duplicates="avoid") for rank in range(8)],
    )
    middle = len(plan) // 2
    rest = list(plan.batches(0, start=middle))
    found["resume of all rows"] = rest == list(plan.batches(0))[middle:]
    shared = [key for each in parts for key in next(each.batches(0, start=middle))]
    found["order by eight processes"] = rest[0] == shared
    for name, equal in found.items():
        print(f"{name}: {'equal' if equal else 'DIFFER'}", flush=True)
    return all(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=at_least(1), default=3_000_000)
    parser.add_argument("--negatives", type=at_least(0), default=6, help="negatives per caption (6)")
    parser.add_argument("--processes", type=at_least(1), default=8)
    parser.add_argument("--shuffled", action="store_true", help="shuffle the negatives over the captions")
    parser.add_argument("--drawn", action="store_true", help="draw the table directly, and measure only the start")
    parser.add_argument("--folder", type=Path, help="folder for all files (default: a temporary one)")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="degla-rows-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DEGLA_CACHE"] = str(folder / "cache")
    print(f"{platform.machine()}, {os.cpu_count()} processors", flush=True)
    if given.drawn:
        files = {"table": folder / "rows.arrow"}
        draw_table(files["table"], captions=given.captions, negatives=given.negatives)
    else:
        files = write(folder, captions=given.captions, negatives=given.negatives, shuffled=given.shuffled)
    sizes = [f"{name} {path.stat().st_size / 1e6:.0f} MB" for name, path in files.items() if path.is_file()]
    print(", ".join(sizes), flush=True)
    context = multiprocessing.get_context("spawn")
    for title, count in (("preparation", 1), ("start", given.processes))[given.drawn :]:
        out = folder / f"{title}.jsonl"
        out.unlink(missing_ok=True)  # Processes append to it, and an earlier run may have left one in --folder.
        running = [
            context.Process(target=start, args=(files, given.negatives, rank, count, str(out))) for rank in range(count)
        ]
        for each in running:
            each.start()
        for each in running:
            each.join()
        if any(each.exitcode for each in running):
            sys.exit(f"{title}: a process failed; its error is above")
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        most = {name: max(row[name] for row in rows) for name in rows[0]}
        print(f"{title:<12} {len(rows)} processes, {most['rows']} rows; each at most {most['seconds']:.1f} s "
              f"({most['processor']:.1f} s of processor time), {most['peak'] / 1e6:.0f} MB private at the peak "
              f"({most['memory'] / 1e6:.0f} MB without file pages), "
              f"{most['held'] / 1e6:.0f} MB after, resident {most['resident'] / 1e6:.0f} MB", flush=True)  # fmt: skip
    if not given.drawn:
        held = sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())
        print(f"size of the prepared rows: {held / 1e6:.0f} MB")
    equal = given.drawn or first_are_equal(files, given.negatives)
    if given.folder is None:
        shutil.rmtree(folder)
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    from degla.cli import exit_status_of

    raise SystemExit(exit_status_of(main))
