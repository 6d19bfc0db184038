"""VisMin: 2,084 pairs of images that differ in one object, attribute, count or relation, with a caption of each.

On "relation" CLIP models score far below chance: both captions and both images are nearly alike to them, so one of each
always wins. In "object" and "attribute" the first image is a photograph and the second an edit of it: a model that can
tell edits from photographs has an advantage in the image score.

Use when: a model must tell nearly equal images and texts apart, in both directions, by object, attribute, count and
position. Images come inside its files.

Title:    VisMin
Paper:    arXiv 2407.16772
Licence:  CC BY 4.0
Source:   https://huggingface.co/datasets/mair-lab/vismin-bench (the Arrow files of its test split)
Layout:   vismin/*.arrow, or vismin/*.parquet   images are read from inside the files
Citation: @inproceedings{awal2024vismin, title={VisMin: Visual Minimal-Change Understanding}, author={Awal, Rabiul and
          Ahmadi, Saba and Zhang, Le and Agrawal, Aishwarya}, booktitle={NeurIPS}, year={2024}}
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from degla.evaluation.annotations import Text, find_files, read_records
from degla.evaluation.benchmark import Average, Benchmark, Entries, described, parts_of
from degla.evaluation.forms import SQUARE, square_metrics, square_question
from degla.records import Record

_COUNTS = {"object": 579, "attribute": 294, "counting": 589, "relation": 622}


class _Row(Record, extra="ignore"):
    """One pair; the question columns are not used."""

    id: str | int
    image_0: str
    text_0: Text
    image_1: str
    text_1: Text
    category: Literal["object", "attribute", "counting", "relation"]


def items(root: Path) -> Entries:
    """Read every row of the split; each category is a part."""
    for file in find_files(root, ("vismin/*.arrow", "vismin/*.parquet"), BENCHMARK):
        for _, row in read_records(_Row, file, BENCHMARK):
            images = [f"vismin/{name}" for name in (row.image_0, row.image_1)]
            yield square_question(("vismin", row.category, row.id), images, (row.text_0, row.text_1))


BENCHMARK = Benchmark(
    **described("vismin"),
    parts=parts_of(_COUNTS, metrics=square_metrics()),
    averages=(
        *(Average(name=metric, of=tuple(_COUNTS), metric=metric) for metric in SQUARE),
        *(Average(name=f"{metric}.micro", of=tuple(_COUNTS), metric=metric, how="micro") for metric in SQUARE),
        # The mean of the twelve numbers of a row of the paper's table.
        Average(name="mean12", of=SQUARE),
    ),
    headline={"composition": "group"},
    items=items,
    annotations=("vismin/*.arrow", "vismin/*.parquet"),
)
