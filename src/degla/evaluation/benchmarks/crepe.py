"""CREPE, productivity: Visual Genome regions with captions of 4 to 12 parts against many false ones.

The false captions come from templates and can be recognised without the image; "negate" rewards a model that dislikes
the word "not". Compare the scores with their floors.

Use when: long captions are in question, and one wrong detail among many right ones. Read the three parts beside their
floors.

Title:    CREPE (productivity)
Paper:    arXiv 2212.07796
Licence:  annotations state none; images of Visual Genome, CC BY 4.0
Source:   https://github.com/RAIVNLab/CREPE (data/prod_hard_negatives.zip); images: visualgenome.org
Layout:   crepe/{atom,swap,negate}/prod_vg_hard_negs_{atom,swap,negate}_complexity_N.csv
          vg/N.jpg  Visual Genome, both parts in one folder
Citation: @inproceedings{ma2023crepe, title={CREPE: Can Vision-Language Foundation Models Reason Compositionally?},
          author={Ma, Zixian and Hong, Jerry and Gul, Mustafa Omer and Gandhi, Mona and Gao, Irena and Krishna, Ranjay},
          booktitle={CVPR}, year={2023}}
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field

from degla.data.formats.csv import list_in_cell
from degla.errors import InputError
from degla.evaluation.annotations import Text, find_files, read_records
from degla.evaluation.benchmark import Average, Benchmark, Entries, Metric, described, image_question, parts_of
from degla.records import ItemImage, Record

_COUNTS = {"atom": 17698, "swap": 7405, "negate": 17303}


class _Row(Record, extra="ignore"):
    """One region, in pixels, with its caption and a cell that lists the false ones."""

    image_id: int = Field(ge=0)
    caption: Text
    hard_negs: str
    x: int
    y: int
    width: int = Field(ge=1)
    height: int = Field(ge=1)


def items(root: Path) -> Entries:
    """Read the tables of each kind in order of complexity."""
    for kind in _COUNTS:
        files = find_files(root, (f"crepe/{kind}/prod_vg_hard_negs_{kind}_complexity_*.csv",), BENCHMARK)
        for complexity, file in sorted((_complexity(file), file) for file in files):
            for number, (where, row) in enumerate(read_records(_Row, file, BENCHMARK)):
                false = list_in_cell(row.hard_negs, column="hard_negs", where=where)
                if not false or not all(text.strip() for text in false):
                    raise InputError(f"{where}: field 'hard_negs' has no text, or an empty one. Fetch it again.")
                image = ItemImage(path=f"vg/{row.image_id}.jpg", crop=(row.x, row.y, row.width, row.height))
                place, group = ("crepe", kind, f"{complexity}/{number}"), {"complexity": str(complexity)}
                yield image_question(place, image, [row.caption], false, group=group)


def _complexity(file: Path) -> int:
    match = re.search(r"_([0-9]{1,3})$", file.stem)
    if match is None:
        raise InputError(f"{file}: the file name must end in the complexity, as in complexity_4.csv.")
    return int(match[1])


BENCHMARK = Benchmark(
    **described("crepe"),
    # In the released code the true caption comes first, and its sort leaves the order of ties open.
    parts=parts_of(
        _COUNTS,
        metrics=(
            Metric(name="recall@1"),
            *(Metric(name=f"recall@{k}", verdict=f"text_ok@{k}") for k in (3, 5, 10)),
            Metric(name="per_complexity", group="complexity"),
        ),
        tie="lenient",
    ),
    averages=(Average(name="mean3", of=tuple(_COUNTS)),),
    headline={"composition": "mean3"},
    items=items,
    floors=("longer text",),
    annotations=("crepe/*/*.csv",),
)
