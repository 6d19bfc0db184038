"""A benchmark small enough to know every answer of, on the shelf for the length of a test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from degla.evaluation.benchmark import Average, Benchmark, BenchmarkPart, Classification, Entry, Metric, Retrieval
from degla.records import ItemImage, PairItem
from degla.shelf import Shelf

COLOURS = {f"{number}.png": (40 * number, 250 - 40 * number, 7 * number) for number in range(6)}


def small_items(root: Path) -> Iterator[Entry]:
    names = list(COLOURS)
    for number, name in enumerate(names):
        yield PairItem(
            id=f"small/pair/{number}",
            benchmark="small",
            part="pair",
            images=(ItemImage(path=name),),
            texts=(f"true {number}", f"false {number}"),
            gold=((1, 0),),
        )
    for number in (0, 2):
        yield PairItem(
            id=f"small/square/{number}",
            benchmark="small",
            part="square",
            images=(ItemImage(path=names[number]), ItemImage(path=names[number + 1])),
            texts=(f"true {number}", f"true {number + 1}"),
            gold=((1, 0), (0, 1)),
        )
    images = tuple(ItemImage(path=name) for name in names)
    yield Classification(
        benchmark="small",
        part="recognise",
        images=images,
        labels=tuple(range(6)),
        classes=tuple(map(str, range(6))),
        templates=("true {}", "really true {}"),
    )
    yield Retrieval(
        benchmark="small",
        part="find",
        images=images,
        texts=tuple(f"true {number}" for number in range(6)),
        owners=tuple((number,) for number in range(6)),
    )


SMALL = Benchmark(
    name="small",
    title="Small",
    paper="-",
    licence="-",
    source="-",
    layout="N.png",
    citation="",
    parts=(
        BenchmarkPart(name="pair", family="swap", n=6),
        BenchmarkPart(
            name="square",
            family="swap",
            metrics=tuple(Metric(name=key, verdict=key) for key in ("group_ok", "text_ok", "image_ok")),
        ),
        BenchmarkPart(
            name="recognise",
            family="recognition",
            metrics=(Metric("top1", "top1"), Metric("mean_per_class", "top1", group="class")),
        ),
        BenchmarkPart(
            name="find",
            family="retrieval",
            metrics=(Metric("r1", "image_to_text@1"), Metric("r1_text", "text_to_image@1")),
        ),
    ),
    items=small_items,
    annotations=("notes.json",),
    averages=(
        Average("composition", of=("pair", "square")),
        Average("composition.micro", of=("pair", "square"), how="micro"),
        Average("all", of=("composition", "recognise")),
    ),
    headline={"composition": "composition", "recognition": "recognise"},
)

TRUTH = {name: [f"true {number}", f"really true {number}"] for number, name in enumerate(COLOURS)}


@pytest.fixture
def small_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small benchmark's folder; `Evaluation(["small"], ...)` finds the benchmark."""
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    (tmp_path / "notes.json").write_text(json.dumps({}), encoding="utf-8")
    load = Shelf.load
    monkeypatch.setattr(
        Shelf,
        "load",
        lambda shelf, name: SimpleNamespace(BENCHMARK=SMALL) if name == "small" else load(shelf, name),
    )
    return tmp_path
