"""MMVP-VLM: 135 pairs of images that CLIP finds alike, in nine visual patterns; which image matches a statement.

"a photo of" precedes each statement, as in the published numbers; the parts raw/... are without it.

Use when: you want to know whether an image tower sees orientation, state, count and other patterns that CLIP misses. Of
135 pairs, only large differences are certain.

Title:    MMVP-VLM
Paper:    arXiv 2401.06209
Licence:  MIT
Source:   https://huggingface.co/datasets/MMVP/MMVP_VLM (Questions.csv and the folder of images)
Layout:   mmvp_vlm/Questions.csv
          mmvp_vlm/MLLM_VLM Images/TYPE/N.jpg
Citation: @inproceedings{tong2024eyes, title={Eyes Wide Shut? Exploring the Visual Shortcomings of Multimodal LLMs},
          author={Tong, Shengbang and Liu, Zhuang and Zhai, Yuexiang and Ma, Yi and LeCun, Yann and Xie, Saining},
          booktitle={CVPR}, year={2024}}
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from degla.errors import InputError
from degla.evaluation.annotations import read_records
from degla.evaluation.benchmark import Average, Benchmark, BenchmarkPart, Entries, described
from degla.evaluation.forms import square_metrics, square_question
from degla.records import Record
from degla.shelf import did_you_mean

_PATTERNS = {
    "Orientation": "orientation",
    "Presence": "presence",
    "State": "state",
    "Quantity": "quantity",
    "Spatial": "spatial",
    "Color": "color",
    "Structural Character": "structure",
    "Text": "writing",
    "Camera Perspective": "perspective",
}
_PREFIX = "a photo of "
_RAW = "raw"
"""Prefix of the parts whose statements are scored without the official prompt."""
_METRICS = ("image", "text", "group")
"""All strict. In the official script, which asks whether a softmax over both images exceeds 1/2, a tie is image 2."""


class _Row(Record):
    """One statement about one image; two consecutive rows are a pair."""

    number: int = Field(alias="Question ID", ge=1)
    pattern: str = Field(alias="Type")
    statement: str = Field(alias="Statement", min_length=1)


def items(root: Path) -> Entries:
    """Read Questions.csv; the type of a pair's first row is its pattern and the folder of both images."""
    file = root / "mmvp_vlm" / "Questions.csv"
    rows = list(read_records(_Row, file, BENCHMARK))
    for at in range(0, len(rows), 2):
        pair = rows[at : at + 2]
        where, first = pair[0]
        numbers = [row.number for _, row in pair]
        if len(pair) < 2 or first.number % 2 == 0 or numbers[1] != first.number + 1:
            raise InputError(
                f"{where}: rows {numbers} are not a pair of an odd number and the next. Fetch the file again."
            )
        if first.pattern not in _PATTERNS:
            raise InputError(
                f"{where}: field 'Type': unknown pattern {first.pattern!r}.{did_you_mean(first.pattern, _PATTERNS)} "
                f"Known: {', '.join(_PATTERNS)}."
            )
        images = [f"mmvp_vlm/MLLM_VLM Images/{first.pattern}/{number}.jpg" for number in numbers]
        for beginning, prefix in (("", _PREFIX), (f"{_RAW}/", "")):
            part = beginning + _PATTERNS[first.pattern]
            texts = [prefix + row.statement for _, row in pair]
            yield square_question(("mmvp_vlm", part, numbers[0]), images, texts)


BENCHMARK = Benchmark(
    **described("mmvp_vlm"),
    parts=tuple(
        BenchmarkPart(name=beginning + name, family=name, n=15, metrics=square_metrics(*_METRICS))
        for beginning in ("", f"{_RAW}/")
        for name in _PATTERNS.values()
    ),
    # The published number is "image"; other papers print "group" under the benchmark's name.
    averages=tuple(
        Average(
            name=f"{_RAW}.{metric}" if beginning else metric,
            of=tuple(beginning + name for name in _PATTERNS.values()),
            how="micro",
            metric=metric,
        )
        for beginning in ("", f"{_RAW}/")
        for metric in _METRICS
    ),
    headline={"composition": "image"},
    items=items,
    annotations=("mmvp_vlm/Questions.csv",),
)
