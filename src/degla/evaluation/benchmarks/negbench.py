"""NegBench: multiple choice of what is and is not in an image, and retrieval by captions that name an absent object.

Comparing the four options with each other reveals which one is true (floor "options compared"). A model that scores one
text at a time, such as CLIP, cannot compare them; a language model that reads all four can.

Known defects are kept as published: some options (42 items of COCO, 38 of VOC2007) and captions contain remarks of the
language model that rephrased them, one negated caption is empty, and some negate nothing. An object that is called
absent may be present but unlabelled. COCO has up to six questions per image; the intervals account for this.

Use when: captions or queries say what is not there. Report the three kinds of true options apart: models that choose
affirmative texts do well on one of them.

Title:    NegBench
Paper:    arXiv 2501.09425
Licence:  annotations MIT (captions COCO, CC BY 4.0); images COCO val2017 and VOC2007, Flickr terms of each image
Source:   https://github.com/m1k2zoo/negbench (its README links the CSV files; those before March 2025 differ),
          cocodataset.org (val2017), host.robots.ox.ac.uk/pascal/VOC/voc2007 (the test split)
Layout:   negbench/images/COCO_val_mcq_llama3.1_rephrased.csv
          negbench/images/VOC2007_mcq_llama3.1_rephrased.csv
          negbench/images/COCO_val_retrieval.csv
          negbench/images/COCO_val_negated_retrieval_llama3.1_rephrased_affneg_true.csv   each of the four is optional
          coco/val2017/*.jpg
          voc2007/JPEGImages/*.jpg
Citation: @inproceedings{alhamoud2025vision, title={Vision-Language Models Do Not Understand Negation},
          author={Alhamoud, Kumail and Alshammari, Shaden and Tian, Yonglong and Li, Guohao and Torr, Philip and Kim,
          Yoon and Ghassemi, Marzyeh}, booktitle={CVPR}, year={2025}}
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from degla.data.formats.csv import list_in_cell
from degla.errors import InputError
from degla.evaluation.annotations import Text, read_records, where_to_get
from degla.evaluation.benchmark import Average, Benchmark, Entries, Metric, Retrieval, described, parts_of
from degla.evaluation.forms import choice_question
from degla.pages.words import counted
from degla.records import Record

log = logging.getLogger(__name__)
_FOLDER = "negbench/images"
_CHOICES = {
    "coco": (
        "COCO_val_mcq_llama3.1_rephrased.csv",
        "coco/val2017",
        {"positive": 2032, "negative": 1870, "hybrid": 2012},
    ),
    "voc2007": (
        "VOC2007_mcq_llama3.1_rephrased.csv",
        "voc2007/JPEGImages",
        {"positive": 682, "negative": 2121, "hybrid": 2228},
    ),
}
"""Part to its file, the folder of its images, and the number of items per template."""
_TEMPLATES = ("positive", "negative", "hybrid")
_BY_TEMPLATE = tuple(
    Metric(name=one, group="template", exclude=frozenset(other for other in _TEMPLATES if other != one))
    for one in _TEMPLATES
)
"""What the true option says: two objects are present, one is absent, or one is present and another absent."""
_MISTAKES = tuple(
    Metric(name=f"answered_{one}", verdict=f"mistake.{place}", lower=True)
    for place, one in enumerate(("hybrid", "positive", "negative"), start=2)
)
"""What is answered instead of the true option, which is first in both files: the second option calls the present object
absent and the absent one present, the third calls the absent one present, and the fourth the present one absent."""
_RETRIEVALS = {
    "coco": "COCO_val_retrieval.csv",
    "coco_negated": "COCO_val_negated_retrieval_llama3.1_rephrased_affneg_true.csv",
}
_IMAGES, _CAPTIONS = 5000, 25014
_RECALL = tuple(Metric(name=f"text_to_image@{k}", verdict=f"text_to_image@{k}") for k in (5, 1, 10))


class _Choice(Record):
    """One question: four options, one of them true."""

    image_path: Text
    correct_answer: int = Field(ge=0, le=3)
    caption_0: Text
    caption_1: Text
    caption_2: Text
    caption_3: Text
    correct_answer_template: Literal["positive", "negative", "hybrid"]


class _Captions(Record, extra="ignore"):
    """One image with a cell that lists its captions."""

    filepath: Text
    captions: str


def items(root: Path) -> Entries:
    """Read the files that exist; only the name of an image's path is used, the rest is specific to a cluster."""
    folder = root / _FOLDER
    files = [*(file for file, _, _ in _CHOICES.values()), *_RETRIEVALS.values()]
    if not any((folder / file).exists() for file in files):
        raise InputError(f"{folder}: none of {', '.join(files)} found. {where_to_get(BENCHMARK)}")
    for name, (file, _, _) in _CHOICES.items():
        if (folder / file).exists():
            yield from _choices(name, folder / file)
    for name, file in _RETRIEVALS.items():
        if (folder / file).exists():
            yield _retrieval(name, folder / file)


def _choices(name: str, file: Path) -> Entries:
    _, images, templates = _CHOICES[name]
    rows = [row for _, row in read_records(_Choice, file, BENCHMARK)]
    counts = Counter(row.correct_answer_template for row in rows)
    if len(rows) == sum(templates.values()) and counts != templates:
        raise InputError(
            f"{file}: answers per template are {dict(counts)}, in the published file {templates}. Get it again from "
            f"{BENCHMARK.source}."
        )
    for number, row in enumerate(rows):
        image = f"{images}/{PurePosixPath(row.image_path).name}"
        options = (row.caption_0, row.caption_1, row.caption_2, row.caption_3)
        group = {"template": row.correct_answer_template}
        yield choice_question(
            ("negbench", f"mcq/{name}", number), image, options, right=row.correct_answer, group=group
        )


def _retrieval(name: str, file: Path) -> Retrieval:
    pairs: list[tuple[str, str]] = []
    images = 0
    for where, row in read_records(_Captions, file, BENCHMARK):
        images += 1
        captions = list_in_cell(row.captions, column="captions", where=where)
        if not all(text.strip() for text in captions):
            log.warning("%s: a caption of %s is empty; it is scored as published.", where, row.filepath)
        pairs += [(f"coco/val2017/{PurePosixPath(row.filepath).name}", text) for text in captions]
    if images == _IMAGES and len(pairs) != _CAPTIONS:
        raise InputError(
            f"{file}: has {counted(len(pairs), 'caption')} of {counted(images, 'image')}, but the published file has "
            f"{_CAPTIONS:,}. Get it again from {BENCHMARK.source}."
        )
    return Retrieval.of_pairs("negbench", f"retrieval/{name}", pairs, merged=False, where=file)


BENCHMARK = Benchmark(
    **described("negbench"),
    # The released code takes the first of the best options; in both image files that is the true one.
    parts=(
        *parts_of(
            {f"mcq/{name}": sum(templates.values()) for name, (_, _, templates) in _CHOICES.items()},
            "negation",
            metrics=(Metric(), *_BY_TEMPLATE, *_MISTAKES),
            tie="lenient",
            optional=True,
        ),
        *parts_of(
            {f"retrieval/{name}": _IMAGES for name in _RETRIEVALS},
            "retrieval",
            metrics=_RECALL,
            tie="lenient",
            optional=True,
        ),
    ),
    averages=(Average(name="mcq", of=tuple(f"mcq/{name}" for name in _CHOICES)),),
    headline={"composition": "mcq/coco", "retrieval": "retrieval/coco_negated"},
    items=items,
    floors=("longer text", "options compared"),
    annotations=(f"{_FOLDER}/*.csv",),
)
