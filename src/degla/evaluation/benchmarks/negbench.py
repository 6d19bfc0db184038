"""NegBench: multiple choice of what is and is not in an image, and retrieval by captions that name an absent object.

Compared with each other, the four options tell which of them is true ("options compared" beside the score); a model
that scores one text at a time, as CLIP does, cannot compare them, a language model that reads all four can.

Known defects are kept, as published: remarks of the language model that rephrased stand inside some options (42 items
of COCO, 38 of VOC2007) and captions, one negated caption is empty, some negate nothing; what is called absent may be
there unlabelled. COCO has up to six questions an image, which the intervals take into account.

Title:    NegBench
Paper:    arXiv 2501.09425
Licence:  annotations MIT (captions COCO, CC BY 4.0); images COCO val2017 and VOC2007, Flickr terms of each image
Source:   https://github.com/m1k2zoo/negbench (its README links the CSV files; those of before March 2025 are others),
          cocodataset.org (val2017), host.robots.ox.ac.uk/pascal/VOC/voc2007 (the test split)
Layout:   negbench/images/COCO_val_mcq_llama3.1_rephrased.csv
          negbench/images/VOC2007_mcq_llama3.1_rephrased.csv
          negbench/images/COCO_val_retrieval.csv
          negbench/images/COCO_val_negated_retrieval_llama3.1_rephrased_affneg_true.csv   each of the four may lack
          coco/val2017/*.jpg
          voc2007/JPEGImages/*.jpg
Citation: @inproceedings{alhamoud2025vision, title={Vision-Language Models Do Not Understand Negation}, author={
          Alhamoud, Kumail and Alshammari, Shaden and Tian, Yonglong and Li, Guohao and Torr, Philip and Kim, Yoon and
          Ghassemi, Marzyeh}, booktitle={CVPR}, year={2025}}
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

logger = logging.getLogger(__name__)
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
"""Part, its file, where its images lie, and how many items each template has."""
_TEMPLATES = ("positive", "negative", "hybrid")
_BY_TEMPLATE = tuple(
    Metric(name=one, group="template", exclude=frozenset(other for other in _TEMPLATES if other != one))
    for one in _TEMPLATES
)
"""What the true option says: two things are there, one is not, one is and another is not."""
_RETRIEVALS = {
    "coco": "COCO_val_retrieval.csv",
    "coco_negated": "COCO_val_negated_retrieval_llama3.1_rephrased_affneg_true.csv",
}
_IMAGES, _CAPTIONS = 5000, 25014
_RECALL = tuple(Metric(name=f"text_to_image@{k}", verdict=f"text_to_image@{k}") for k in (5, 1, 10))


class _Choice(Record):
    """One question: four options of which one is true."""

    image_path: Text
    correct_answer: int = Field(ge=0, le=3)
    caption_0: Text
    caption_1: Text
    caption_2: Text
    caption_3: Text
    correct_answer_template: Literal["positive", "negative", "hybrid"]


class _Captions(Record, extra="ignore"):
    """One image with a list of captions in a cell."""

    filepath: Text
    captions: str


def items(root: Path) -> Entries:
    """Read the files that are there; of an image's path only the name is used, the rest is a cluster's."""
    folder = root / _FOLDER
    files = [*(file for file, _, _ in _CHOICES.values()), *_RETRIEVALS.values()]
    if not any((folder / file).exists() for file in files):
        raise InputError(f"{folder}: holds none of {', '.join(files)}. {where_to_get(BENCHMARK)}")
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
            f"{file}: has {dict(counts)} answers of each template, the published file {templates}. Get it again from "
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
            logger.warning("%s: a caption of %s is empty; it is asked as it is, as published.", where, row.filepath)
        pairs += [(f"coco/val2017/{PurePosixPath(row.filepath).name}", text) for text in captions]
    if images == _IMAGES and len(pairs) != _CAPTIONS:
        raise InputError(
            f"{file}: {counted(len(pairs), 'caption')} of {counted(images, 'image')}, the published file has "
            f"{_CAPTIONS:,}. Get it again from {BENCHMARK.source}."
        )
    return Retrieval.of_pairs("negbench", f"retrieval/{name}", pairs, merged=False, where=file)


BENCHMARK = Benchmark(
    **described("negbench"),
    # The released code takes the first of the best options; in both files of images that is the true one.
    parts=(
        *parts_of(
            {f"mcq/{name}": sum(templates.values()) for name, (_, _, templates) in _CHOICES.items()},
            "negation",
            metrics=(Metric(), *_BY_TEMPLATE),
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
