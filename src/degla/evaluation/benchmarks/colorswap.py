"""ColorSwap: 300 pairs of images and captions that use the same words with the colours swapped.

Use when: you want to know whether a model binds colours to objects, and nothing else. Both captions have the same words
(12 pairs differ in an article, a plural or a typo), so the text gives nothing away; of 300 pairs, a difference of a few
points is not certain.

Title:    ColorSwap
Paper:    arXiv 2402.04492
Licence:  MIT
Source:   https://github.com/Top34051/colorswap (test.json and images.zip), or
          huggingface.co/datasets/stanfordnlp/colorswap
Layout:   colorswap/test.json
          colorswap/images/*.png
Citation: @inproceedings{burapacheep2024colorswap, title={ColorSwap: A Color and Word Order Dataset for Multimodal
          Evaluation}, author={Burapacheep, Jirayu and Gaur, Ishan and Bhatia, Agam and Thrush, Tristan},
          booktitle={Findings of ACL}, year={2024}}
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from degla.evaluation.annotations import Text, read_records
from degla.evaluation.benchmark import Benchmark, BenchmarkPart, Entries, described
from degla.evaluation.forms import square_metrics, square_question
from degla.records import Record


class _Row(Record):
    """One pair."""

    id: int = Field(ge=0)
    caption_1: Text
    caption_2: Text
    image_1: Text
    image_2: Text
    image_source: str = ""
    caption_source: str = ""


def items(root: Path) -> Entries:
    """Read the test split, with captions as written; the ids are not contiguous."""
    for _, row in read_records(_Row, root / "colorswap" / "test.json", BENCHMARK):
        images = [f"colorswap/{name}" for name in (row.image_1, row.image_2)]
        about = {"image_source": row.image_source, "caption_source": row.caption_source}
        yield square_question(("colorswap", "test", row.id), images, (row.caption_1, row.caption_2), meta=about)


BENCHMARK = Benchmark(
    **described("colorswap"),
    parts=(BenchmarkPart(name="test", family="color", n=300, metrics=square_metrics()),),
    headline={"composition": "test"},
    items=items,
    annotations=("colorswap/test.json",),
)
