"""SugarCrepe++: two true captions against a false one, scored with the image and with the texts only; 4,757 items.

Use when: you want to know whether a model takes a paraphrase for what it is, with the image and, without, in the text
tower alone.

Title:    SugarCrepe++
Paper:    arXiv 2406.11171
Licence:  annotations CC BY 4.0; images COCO val2017, Flickr terms of each image
Source:   https://github.com/Sri-Harsha/scpp (data/*.json) and https://cocodataset.org (val2017)
Layout:   sugarcrepe_pp/{replace_obj,replace_att,replace_rel,swap_obj,swap_att}.json
          coco/val2017/*.jpg  (the text-only parts need none)
Citation: @inproceedings{dumpala2024sugarcrepe, title={SUGARCREPE++ Dataset: Vision-Language Model Sensitivity to
          Semantic and Lexical Alterations}, author={Dumpala, Sri Harsha and Jaiswal, Aman and Sastry, Chandramouli and
          Milios, Evangelos and Oore, Sageev and Sajjad, Hassan}, booktitle={NeurIPS Datasets and Benchmarks},
          year={2024}}
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from degla.evaluation.annotations import Text, read_records
from degla.evaluation.benchmark import Average, Benchmark, Entries, Metric, described, pair_question, parts_of
from degla.records import Record

_COUNTS = {"replace_obj": 1652, "replace_att": 788, "replace_rel": 1406, "swap_obj": 245, "swap_att": 666}
_TEXT_ONLY = "text_only"


class _Row(Record):
    """One entry of an annotation file; the captions are edited, so this is not SugarCrepe with an extra column."""

    id: int = Field(ge=0)
    filename: Text
    caption: Text
    caption2: Text
    negative_caption: Text


def items(root: Path) -> Entries:
    """Read the five files: each row gives a question about the image (ITT) and one about the texts only (TOT)."""
    for part in _COUNTS:
        file = root / "sugarcrepe_pp" / f"{part}.json"
        for _, row in read_records(_Row, file, BENCHMARK):
            image = f"coco/val2017/{row.filename}"
            texts, gold = (row.caption, row.caption2, row.negative_caption), ((1, 1, 0),)
            yield pair_question(("sugarcrepe_pp", part, row.id), [image], texts, gold)
            place = ("sugarcrepe_pp", f"{_TEXT_ONLY}/{part}", row.id)
            yield pair_question(place, [], texts, gold, group={"image": image})


BENCHMARK = Benchmark(
    **described("sugarcrepe_pp"),
    parts=(
        *parts_of(
            _COUNTS,
            metrics=(
                Metric(name="image_to_text"),
                Metric(name="caption", verdict="text_ok.1"),
                Metric(name="caption2", verdict="text_ok.2"),
                Metric(name="brittleness", verdict="brittle", lower=True),
            ),
        ),
        *parts_of(
            {f"{_TEXT_ONLY}/{name}": n for name, n in _COUNTS.items()},
            _TEXT_ONLY,
            metrics=(Metric(name=_TEXT_ONLY, verdict="text_only_ok"),),
        ),
    ),
    # The paper prints only the five numbers; these averages are ours.
    averages=(
        Average(name="replace.macro", of=("replace_*",)),
        Average(name="swap.macro", of=("swap_*",)),
        Average(name="macro5", of=tuple(_COUNTS)),
        Average(name="micro", of=tuple(_COUNTS), how="micro"),
        Average(name=f"{_TEXT_ONLY}.macro5", of=tuple(f"{_TEXT_ONLY}/{name}" for name in _COUNTS)),
        Average(name=f"{_TEXT_ONLY}.micro", of=tuple(f"{_TEXT_ONLY}/{name}" for name in _COUNTS), how="micro"),
    ),
    headline={"composition": "macro5", "swap": "swap.macro"},
    items=items,
    annotations=("sugarcrepe_pp/*.json",),
)
