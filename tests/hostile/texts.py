"""Kinds of files without weights and pictures: captions, negatives, results, plans, examples, annotations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from degla.data.extras import read_classes
from degla.data.sources import read_captions, read_negatives
from degla.evaluation.archives import labelled_members
from degla.evaluation.results import load_result
from degla.files import LineFile
from degla.negatives.examples import read_examples
from degla.negatives.files.pack import pack as pack_negatives
from degla.negatives.files.pack import read_manifest, read_outcomes
from degla.negatives.llm import Reply, RequestKey
from degla.negatives.report.sheet import count_verdicts
from degla.negatives.review import Draft
from degla.negatives.run.output import format_line, read_replies
from degla.records import read_jsonl, write_jsonl
from degla.shelf import BENCHMARKS
from degla.study.plan import read_plan
from tests.evaluation.made_up import write_results
from tests.evaluation.published_layouts import write_tar
from tests.hostile.trials import Kind

TEXTS = [f"A {size} dog, number {number}, on a \"{thing}\"." for number, (size, thing) in enumerate(
    (size, thing) for size in ("small", "größer", "old") for thing in ("mat", "bench", "car")
)]  # fmt: skip
ROWS = [{"id": f"c{n}", "image": f"{n}.png", "text": text, "image_id": str(n)} for n, text in enumerate(TEXTS)]
NEGATIVES = [
    {
        "caption_id": f"c{n}", "rule": "swap_nouns", "kind": "order", "text": text[::-1], "source": "rules",
        "accepted": True, "reason": "", "draw": 0, "form": "grammar", "score": -1.5 - n,
    }
    for n, text in enumerate(TEXTS)
]  # fmt: skip
PLAN = """title: A plan
world: {scenes: 100, items_per_part: 40}
set: {train.steps: 20, optim.lr: 1.0e-4}
arms:
  - recipe: negclip
  - {recipe: clip, label: plain, train.steps: 10}
seeds: 2
"""
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
PLAN_TOML = """title = "A plan"
seeds = [0, 1]
[world]
scenes = 100
[set]
"train.steps" = 20
[[arms]]
recipe = "negclip"
"""


def dumped(records: Iterable[Any]) -> list[Any]:
    return [record.model_dump() for record in records]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def text_kinds(folder: Path) -> list[Kind]:
    return [*_captions(folder), *_negatives(folder), *_results(folder), *_others(folder), *_benchmarks(folder)]


def _captions(folder: Path) -> list[Kind]:
    import pyarrow
    import pyarrow.parquet

    coco = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(9)],
        "annotations": [{"id": 100 + n, "image_id": n, "caption": text} for n, text in enumerate(TEXTS)],
    }
    published = [{"image_id": n, "original": text, "enhanced": [text[::-1]]} for n, text in enumerate(TEXTS)]
    table = [",".join(ROWS[0]), *(",".join('"' + v.replace('"', '""') + '"' for v in row.values()) for row in ROWS)]
    tabs = "\n".join(line.replace('","', '"\t"') for line in table[1:])
    files = {
        "captions coco": (write(folder / "coco.json", json.dumps(coco)), "json"),
        "captions degla json": (write(folder / "published.json", json.dumps(published)), "json"),
        "captions jsonl": (write(folder / "captions.jsonl", lines(ROWS)), "jsonl"),
        "captions csv": (write(folder / "captions.csv", "\n".join(table) + "\n"), "text"),
        "captions tsv": (write(folder / "captions.tsv", "\t".join(ROWS[0]) + "\n" + tabs + "\n"), "text"),
    }
    parquet = folder / "captions.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), parquet)
    files["captions parquet"] = (parquet, "bytes")
    return [
        *(Kind(name, file, _reading(read_captions, file), form) for name, (file, form) in files.items()),
        *_dataset(folder / "dataset"),
    ]


def _reading(read: Callable[[Path], Iterable[Any]], file: Path) -> Callable[[], Any]:
    return lambda: dumped(read(file))


def _dataset(folder: Path) -> list[Kind]:
    try:
        import datasets
    except ImportError:
        return []
    from degla.data.formats import datasets as format

    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS).save_to_disk(str(folder))

    def read() -> Any:
        format._opened.cache_clear()
        return dumped(read_captions(folder))

    return [
        Kind("captions datasets, arrow", next(folder.glob("*.arrow")), read, "bytes"),
        Kind("captions datasets, state", folder / "state.json", read, "json"),
        Kind("captions datasets, info", folder / "dataset_info.json", read, "json"),
    ]


def _negatives(folder: Path) -> list[Kind]:
    rows = write(folder / "negatives.jsonl", lines(NEGATIVES))
    journal = folder / "negatives.jsonl.replies.jsonl"
    replies = [
        Reply(RequestKey(f"c{n}", "swap_nouns", 0), "answered", text=text, counts={"x": n + 1})
        for n, text in enumerate(TEXTS)
    ]
    write(journal, "".join(format_line("write", reply) for reply in replies))
    manifest = write(
        folder / "negatives.jsonl.manifest.json", json.dumps({"captions": 9, "rules": ["swap_nouns"], "seed": 0})
    )
    packed = folder / "negatives.parquet"
    pack_negatives(read_negatives(rows), packed, source=rows)
    cells = "\n".join(["id,neg_caption\nc1,\"['A cat.', 'A cow.']\"", "c2,\"['A mat on a dog.']\""]) + "\n"
    table = write(folder / "negatives.csv", cells)
    loose = write(folder / "j" / "n.jsonl", lines(NEGATIVES))
    counted = write(folder / "j" / "n.jsonl.replies.jsonl", journal.read_bytes())

    def replay() -> Any:
        with LineFile(journal) as file:
            return read_replies(file)

    return [
        Kind("negatives jsonl", loose, _reading(read_negatives, loose), "jsonl"),
        Kind("negatives parquet", packed, lambda: (dumped(read_negatives(packed)), read_manifest(packed)), "bytes"),
        Kind("negatives csv", table, _reading(read_negatives, table), "text"),
        Kind("negatives journal", journal, replay, "jsonl"),
        Kind("negatives journal, counted", counted, lambda: read_outcomes(loose), "jsonl"),
        Kind("negatives manifest", manifest, lambda: read_manifest(rows), "json"),
    ]


def _results(folder: Path) -> list[Kind]:
    (folder / "results").mkdir()
    path = write_results(folder / "results", n=4)[0]
    items = path.with_name(f"{path.stem}.items.jsonl")

    def read() -> Any:
        result = load_result(path, items=True)
        return result.model_dump(exclude={"sha256", "items_file_sha256"}), dumped(result.items)

    return [Kind("results", path, read, "json", exact=True), Kind("results, items", items, read, "jsonl", exact=True)]


def _others(folder: Path) -> list[Kind]:
    plan, toml = write(folder / "plan.yaml", PLAN), write(folder / "plan.toml", PLAN_TOML)
    examples = write(
        folder / "swap_nouns.yaml",
        "rule: swap_nouns\nexamples:\n"
        + "".join(f"- caption: A dog {n}.\n  negative: 'A cat {n}.'\n" for n in range(5)),
    )
    sheet = write(
        folder / "sheet.tsv",
        "id\trule\tcaption\tnegative\tdifferent\tplausible\tnote\n"
        + "".join(f"{n}\tswap_nouns\tA dog {n}.\tA cat {n}.\ty\tn\tfine\n" for n in range(5)),
    )
    drafts = folder / "drafts.jsonl"
    write_jsonl(drafts, [Draft(rule="swap_nouns", caption=text, negative=text[::-1], accepted=True) for text in TEXTS])
    classes = write(folder / "classes.json", json.dumps({"classes": ["dog", "cat", "old man"]}))
    return [
        Kind("study plan yaml", plan, lambda: read_plan(plan), "text"),
        Kind("study plan toml", toml, lambda: read_plan(toml), "text"),
        Kind("examples yaml", examples, lambda: read_examples(examples, rule="swap_nouns"), "text"),
        Kind("readings tsv", sheet, lambda: count_verdicts([sheet]), "text"),
        Kind("drafts jsonl", drafts, _reading(lambda path: read_jsonl(Draft, path), drafts), "jsonl"),
        Kind("classes json", classes, lambda: read_classes(classes), "json"),
    ]


def _benchmarks(root: Path) -> list[Kind]:
    crepe = {
        str(n): {"filename": f"{n}.jpg", "caption": text, "negative_caption": text[::-1]}
        for n, text in enumerate(TEXTS)
    }
    for part in ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj"):
        write(root / "sugarcrepe" / f"{part}.json", json.dumps(crepe))
    images = {"tag": "", "collapsed_tag": "Object"}
    pairs = [
        {"id": n, "image_0": f"{n}a", "image_1": f"{n}b", "caption_0": text, "caption_1": text[::-1], **images}
        for n, text in enumerate(TEXTS)
    ]
    winoground = write(root / "winoground" / "examples.jsonl", lines(pairs))
    own = write(root / "retrieval" / "captions.jsonl", lines(ROWS))
    tar = root / "tars" / "0.tar"
    tar.parent.mkdir()
    write_tar(
        tar, {f"{n}.{end}": b"%d" % (n % 3) if end == "cls" else b"picture" for n in range(4) for end in ("png", "cls")}
    )

    def items(name: str) -> Callable[[], Any]:
        return lambda: dumped(BENCHMARKS.load(name).BENCHMARK.items(root))

    return [
        Kind("annotations sugarcrepe", root / "sugarcrepe" / "add_obj.json", items("sugarcrepe"), "json"),
        Kind("annotations winoground", winoground, items("winoground"), "jsonl"),
        Kind("captions of a retrieval", own, items("retrieval"), "jsonl"),
        Kind("tar of a data set", tar, lambda: list(labelled_members(tar)), "bytes"),
    ]
