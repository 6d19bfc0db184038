"""Winoground: 400 pairs of images and captions with the same words in different order; text, image and group score.

Use when: you want the hardest pairs, written by people, whose two captions have the same words (nearly so in 24 pairs).
Some also need common sense or sharp eyes; of 400 pairs, a difference of a few points is not certain.

Title:    Winoground
Paper:    arXiv 2204.03162
Licence:  Meta research licence: no commercial use, no redistribution; images Getty
Source:   https://huggingface.co/datasets/facebook/winoground, after accepting its conditions (data/examples.jsonl
          and data/images.zip)
Layout:   winoground/examples.jsonl
          winoground/images/ex_N_img_{0,1}.png
Citation: @inproceedings{thrush2022winoground, title={Winoground: Probing Vision and Language Models for
          Visio-Linguistic Compositionality}, author={Thrush, Tristan and Jiang, Ryan and Bartolo, Max and Singh,
          Amanpreet and Williams, Adina and Kiela, Douwe and Ross, Candace}, booktitle={CVPR}, year={2022}}
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from degla.evaluation.annotations import Text, read_records
from degla.evaluation.benchmark import Average, Benchmark, Entries, described, parts_of
from degla.evaluation.forms import SQUARE, square_metrics, square_question
from degla.records import Record

_COUNTS = {"object": 141, "relation": 233, "both": 26}


class _Row(Record, extra="allow"):
    """One line of examples.jsonl; the other fields describe the swap in more detail and go to `meta`."""

    id: int = Field(ge=0)
    image_0: Text
    image_1: Text
    caption_0: Text
    caption_1: Text
    collapsed_tag: Literal["Object", "Relation", "Both"]


def items(root: Path) -> Entries:
    """Read examples.jsonl; a part is what the captions swap (`collapsed_tag`)."""
    file = root / "winoground" / "examples.jsonl"
    for _, row in read_records(_Row, file, BENCHMARK):
        # The table names images without the extension that the files have.
        images = [f"winoground/images/{name.removesuffix('.png')}.png" for name in (row.image_0, row.image_1)]
        place = ("winoground", row.collapsed_tag.lower(), row.id)
        yield square_question(place, images, (row.caption_0, row.caption_1), meta=row.model_extra)


BENCHMARK = Benchmark(
    **described("winoground"),
    parts=parts_of(_COUNTS, "swap", metrics=square_metrics()),
    # The published numbers are means over the 400 items.
    averages=tuple(Average(name=metric, of=tuple(_COUNTS), how="micro", metric=metric) for metric in SQUARE),
    headline={"composition": "group"},
    items=items,
    annotations=("winoground/examples.jsonl",),
)
