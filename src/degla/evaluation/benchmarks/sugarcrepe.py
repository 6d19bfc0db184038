"""SugarCrepe: 7,511 fluent false captions of COCO photographs, made by replacing, swapping and adding.

Use when: you report one benchmark of composition: most papers since 2023 have it. Trust its swap parts most; text
alone, without the image, answers its add parts and most of the others.

Title:    SugarCrepe
Paper:    arXiv 2306.14610
Licence:  annotations MIT; images COCO val2017, Flickr terms of each image
Source:   https://github.com/RAIVNLab/sugar-crepe (data/*.json) and https://cocodataset.org (val2017)
Layout:   sugarcrepe/{replace_obj,replace_att,replace_rel,swap_obj,swap_att,add_obj,add_att}.json
          coco/val2017/*.jpg
Citation: @inproceedings{hsieh2023sugarcrepe, title={SugarCrepe: Fixing Hackable Benchmarks for Vision-Language
          Compositionality}, author={Hsieh, Cheng-Yu and Zhang, Jieyu and Ma, Zixian and Kembhavi, Aniruddha and
          Krishna, Ranjay}, booktitle={NeurIPS Datasets and Benchmarks}, year={2023}}
"""

from __future__ import annotations

from pathlib import Path

from degla.evaluation.annotations import Text, published_row, read_object
from degla.evaluation.benchmark import Average, Benchmark, Entries, described, image_question, parts_of
from degla.records import Record

_COUNTS = {
    "replace_obj": 1652,
    "replace_att": 788,
    "replace_rel": 1406,
    "swap_obj": 245,
    "swap_att": 666,
    "add_obj": 2062,
    "add_att": 692,
}
_FAMILIES = ("replace", "swap", "add")


class _Row(Record):
    """One entry of an annotation file."""

    filename: Text
    caption: Text
    negative_caption: Text


def items(root: Path) -> Entries:
    """Read the seven files; keys need not be contiguous (swap_obj lacks "108" since 2023-11)."""
    for part in _COUNTS:
        file = root / "sugarcrepe" / f"{part}.json"
        for key, row in read_object(file, BENCHMARK).items():
            record = published_row(_Row, row, where=f"{file} item {key!r}")
            image = f"coco/val2017/{record.filename}"
            yield image_question(("sugarcrepe", part, key), image, [record.caption], [record.negative_caption])


BENCHMARK = Benchmark(
    **described("sugarcrepe"),
    parts=parts_of(_COUNTS),
    averages=(
        *(Average(name=f"{family}.macro", of=(f"{family}_*",)) for family in _FAMILIES),
        *(Average(name=f"{family}.micro", of=(f"{family}_*",), how="micro") for family in _FAMILIES),
        Average(name="macro3", of=tuple(f"{family}.micro" for family in _FAMILIES)),
        Average(name="macro7", of=tuple(_COUNTS)),
        Average(name="micro", of=tuple(_COUNTS), how="micro"),
    ),
    headline={"composition": "macro7", "swap": "swap.macro"},
    items=items,
    annotations=("sugarcrepe/*.json",),
)
