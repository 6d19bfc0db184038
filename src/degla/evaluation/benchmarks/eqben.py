"""EqBen: pairs of slightly different images, mostly frames of one video, each with its caption; seven sources.

Neighbouring frames of Action Genome often look alike to people too. Do not mix numbers on the full set with numbers on
the published 10 % subset; degla reads whichever annotation file exists.

Use when: models are compared by fine changes between two images. The full set needs about 100 GB of images; the
published tenth answers most questions.

Title:    EqBen
Paper:    arXiv 2303.14465
Licence:  Apache 2.0; frames of Action Genome, YouCook2 and GEBC under their own terms
Source:   https://github.com/Wangt-CN/EqBen (its README links the images, the annotations and the 10 % subset)
Layout:   eqben/all_select.json                      the full set, or
          eqben/eqben_subset_10percent_final.json    the published 10 % subset
          eqben/eqbenag/..., eqben/eqbenyoucook2/*.npy, ...   images, by the paths in the annotation file
Citation: @inproceedings{wang2023equivariant, title={Equivariant Similarity for Vision-Language Foundation Models},
          author={Wang, Tan and Lin, Kevin and Li, Linjie and Lin, Chung-Ching and Yang, Zhengyuan and Zhang, Hanwang
          and Liu, Zicheng and Wang, Lijuan}, booktitle={ICCV}, year={2023}}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from degla.errors import InputError
from degla.evaluation.annotations import Text, find_files, read_records
from degla.evaluation.benchmark import Average, Benchmark, Entries, described, parts_of
from degla.evaluation.forms import square_metrics, square_question
from degla.records import Record

_COUNTS = {
    "eqbenag": 195872,
    "eqbenyoucook2": 45849,
    "eqbengebc": 1814,
    "eqbenkubric_loc": 2000,
    "eqbenkubric_attr": 2000,
    "eqbenkubric_cnt": 2000,
    "eqbensd": 1513,
}
_WHOLE, _TENTH = "eqben/all_select.json", "eqben/eqben_subset_10percent_final.json"


def _first(value: object) -> object:
    """Action Genome has lists of captions; the first counts."""
    return value[0] if isinstance(value, list) and value else value


_Caption = Annotated[str, BeforeValidator(_first), Field(min_length=1)]


class _Row(Record, extra="ignore"):
    """One pair."""

    image0: Text
    image1: Text
    caption0: _Caption
    caption1: _Caption


def items(root: Path) -> Entries:
    """Read the one annotation file that exists; the folder that a path begins with is the part."""
    (file, *_) = find_files(root, (_WHOLE, _TENTH), BENCHMARK)
    beginning = "tenth/" if file.name == Path(_TENTH).name else ""
    for number, (where, row) in enumerate(read_records(_Row, file, BENCHMARK)):
        parts = row.image0.split("/")
        # Kubric's three sets have a folder each, or one folder with three subfolders.
        part = next((name for name in ("/".join(parts[:1]), "_".join(parts[:2])) if name in _COUNTS), None)
        if part is None:
            raise InputError(
                f"{where}: field 'image0': {row.image0!r} starts with none of {', '.join(_COUNTS)}. Fetch it again."
            )
        images = [_there(root, f"eqben/{name}") for name in (row.image0, row.image1)]
        yield square_question(("eqben", beginning + part, number), images, (row.caption0, row.caption1))


def _there(root: Path, path: str) -> str:
    """The light version's name of an image, where only that exists."""
    light = f"{path.removesuffix('.png')}.jpg"
    return light if path.endswith(".png") and not (root / path).exists() and (root / light).exists() else path


_KUBRIC = ("eqbenkubric_loc", "eqbenkubric_attr", "eqbenkubric_cnt")

BENCHMARK = Benchmark(
    **described("eqben"),
    parts=parts_of(
        _COUNTS | {f"tenth/{name}": None for name in _COUNTS}, "minimal", metrics=square_metrics(), optional=True
    ),
    averages=(
        Average(name="kubric", of=_KUBRIC),
        Average(name="mean5", of=("eqbenag", "eqbenyoucook2", "eqbengebc", "eqbensd", "kubric")),
        # The same of the set that is there, which may be the tenth.
        Average(name="kubric.there", of=tuple(f"*{name}" for name in _KUBRIC)),
        Average(name="mean5.there", of=("*eqbenag", "*eqbenyoucook2", "*eqbengebc", "*eqbensd", "kubric.there")),
    ),
    headline={"composition": "mean5.there"},
    items=items,
    annotations=(_WHOLE, _TENTH),
)
