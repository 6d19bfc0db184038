"""Winoground: 400 pairs of images and captions of the same words in another order; text, image and group score.

Title:    Winoground
Paper:    arXiv 2204.03162
Licence:  Meta research licence: no commercial use, no redistribution; images Getty
Source:   https://huggingface.co/datasets/facebook/winoground, after its conditions were accepted (data/examples.jsonl
          and data/images.zip)
Layout:   winoground/examples.jsonl
          winoground/images/ex_N_img_{0,1}.png
Citation: @inproceedings{thrush2022winoground, title={Winoground: Probing Vision and Language Models for
          Visio-Linguistic Compositionality}, author={Thrush, Tristan and Jiang, Ryan and Bartolo, Max and Singh,
          Amanpreet and Williams, Adina and Kiela, Douwe and Ross, Candace}, booktitle={CVPR}, year={2022}}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from degla.evaluation.annotations import published_row, read_lines
from degla.evaluation.benchmark import Average, Benchmark, BenchmarkPart, Entry, Metric, described
from degla.records import ItemImage, PairItem, Record

_COUNTS = {"object": 141, "relation": 233, "both": 26}
_METRICS = ("group", "text", "image")


class _Row(Record, extra="ignore"):
    """One line of examples.jsonl; what is left out here describes the swap more finely and goes to `meta`."""

    id: int = Field(ge=0)
    image_0: str = Field(min_length=1)
    image_1: str = Field(min_length=1)
    caption_0: str = Field(min_length=1)
    caption_1: str = Field(min_length=1)
    collapsed_tag: Literal["Object", "Relation", "Both"]


def items(root: Path) -> Iterator[Entry]:
    """Read examples.jsonl; a part is what the captions exchange (`collapsed_tag`)."""
    file = root / "winoground" / "examples.jsonl"
    for number, row in read_lines(file, BENCHMARK):
        read = published_row(_Row, row, where=f"{file} line {number}")
        part = read.collapsed_tag.lower()
        yield PairItem(
            id=f"winoground/{part}/{read.id}",
            benchmark="winoground",
            part=part,
            images=tuple(
                ItemImage(path=f"winoground/images/{_file_name(name)}") for name in (read.image_0, read.image_1)
            ),
            texts=(read.caption_0, read.caption_1),
            gold=((1, 0), (0, 1)),
            meta={key: value for key, value in row.items() if key not in _Row.model_fields},
        )


def _file_name(name: str) -> str:
    """examples.jsonl names images without the ending that the files have."""
    return name if name.endswith(".png") else f"{name}.png"


BENCHMARK = Benchmark(
    **described("winoground"),
    parts=tuple(
        BenchmarkPart(
            name=name,
            family="swap",
            n=n,
            metrics=tuple(Metric(name=metric, verdict=f"{metric}_ok") for metric in _METRICS),
        )
        for name, n in _COUNTS.items()
    ),
    # The published numbers are means over the 400 items.
    averages=tuple(Average(name=metric, of=tuple(_COUNTS), how="micro", metric=metric) for metric in _METRICS),
    headline={"composition": "group"},
    items=items,
    annotations=("winoground/examples.jsonl",),
)
