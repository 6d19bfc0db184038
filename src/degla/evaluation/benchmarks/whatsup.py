"""What'sUp: left, right, on, under, in front and behind; two sets of photographs taken for it, plus COCO and GQA.

CLIP models score near chance, so a difference of two points is noise. Papers also report other protocols: one
preposition against its opposite (chance 50), the mean of the six parts.

Use when: spatial prepositions are in question and nothing else. Only the two sets of its own photographs balance all
four positions of each pair of objects.

Title:    What'sUp
Paper:    arXiv 2310.19785
Licence:  code MIT; annotations and photographs state none; images COCO (Flickr terms of each), GQA CC BY 4.0
Source:   https://github.com/amitakamath/whatsup_vlms (its README links the JSON files and images; GQA's images are
          Visual Genome's, by number)
Layout:   whatsup/{controlled_images,controlled_clevr}_dataset.json
          whatsup/{coco_qa,vg_qa}_{one,two}_obj.json
          whatsup/controlled_images/*.jpeg
          whatsup/controlled_clevr/*.jpeg
          coco/val2017/*.jpg
          vg/N.jpg
Citation: @inproceedings{kamath2023whatsup, title={What's ``up'' with vision-language models? Investigating their
          struggle with spatial reasoning}, author={Kamath, Amita and Hessel, Jack and Chang, Kai-Wei},
          booktitle={EMNLP}, year={2023}}
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, RootModel

from degla.errors import InputError
from degla.evaluation.annotations import Text, read_records
from degla.evaluation.benchmark import Average, Benchmark, Entries, Metric, described, parts_of
from degla.evaluation.forms import choice_question
from degla.records import Record

_CONTROLLED = {"controlled_a": ("controlled_images", 412), "controlled_b": ("controlled_clevr", 408)}
_TAKEN = {
    "coco_one": ("coco_qa_one_obj", 2247),
    "coco_two": ("coco_qa_two_obj", 440),
    "vg_one": ("vg_qa_one_obj", 1160),
    "vg_two": ("vg_qa_two_obj", 291),
}
_NAME = re.compile(r"(?P<first>[^_]+)_(?P<where>on|under|left_of|right_of|in-front_of|behind)_(?P<second>[^_]+)\.jpeg")
_PREPOSITIONS = ("left of", "right of", "above", "below", "in front of", "front of", "behind")


class _Controlled(Record):
    """A photograph taken for the benchmark, and one option per preposition, the true one first."""

    image_path: Text
    caption_options: Annotated[tuple[Text, ...], Field(min_length=4, max_length=4)]


class _Taken(RootModel[tuple[int | str, Text, Text]]):
    """Number of an image, a true caption and a false caption."""


def items(root: Path) -> Entries:
    """Read the six files; the file name of a controlled photograph gives its pair and set."""
    for part, (stem, _) in _CONTROLLED.items():
        file = root / "whatsup" / f"{stem}_dataset.json"
        for where, row in read_records(_Controlled, file, BENCHMARK):
            name = PurePosixPath(row.image_path).name
            match = _NAME.fullmatch(name)
            if match is None:
                raise InputError(
                    f"{where}: field 'image_path': {name!r} is not OBJECT_PREPOSITION_OBJECT.jpeg. Fetch it again."
                )
            objects = f"{match['first']}|{match['second']}"
            axis = "side" if match["where"] in ("left_of", "right_of") else "other"
            groups = {"set": objects, "pair": f"{objects}|{axis}", "preposition": match["where"].replace("_", " ")}
            image = f"whatsup/{stem}/{name}"
            yield choice_question(("whatsup", part, name), image, row.caption_options, right=0, group=groups)
    for part, (stem, _) in _TAKEN.items():
        file = root / "whatsup" / f"{stem}.json"
        for number, (where, record) in enumerate(read_records(_Taken, file, BENCHMARK)):
            image_number, true, false = record.root
            if part.startswith("coco") and not str(image_number).isdecimal():
                raise InputError(f"{where}: {str(image_number)[:40]!r} is not a COCO image number. Fetch it again.")
            path = f"coco/val2017/{int(image_number):012d}.jpg" if part.startswith("coco") else f"vg/{image_number}.jpg"
            group = {"preposition": _preposition(true)}
            yield choice_question(("whatsup", part, number), path, (true, false), right=0, group=group)


def _preposition(text: str) -> str:
    return next((words for words in _PREPOSITIONS if words in text), text.rstrip(".").rpartition(" ")[2])


_PER_PREPOSITION = Metric(name="per_preposition", group="preposition")

BENCHMARK = Benchmark(
    **described("whatsup"),
    # The released code takes the first of the best options, and the true one comes first.
    parts=(
        *parts_of(
            {name: n for name, (_, n) in _CONTROLLED.items()},
            "spatial",
            metrics=(
                Metric(),
                Metric(name="pairs", group="pair", whole=True, minimum=2),
                Metric(name="sets", group="set", whole=True, minimum=4),
                _PER_PREPOSITION,
            ),
            tie="lenient",
        ),
        *parts_of(
            {name: n for name, (_, n) in _TAKEN.items()}, "spatial", metrics=(Metric(), _PER_PREPOSITION), tie="lenient"
        ),
    ),
    averages=(
        Average(name="controlled", of=tuple(_CONTROLLED)),
        Average(name="coco", of=("coco_*",)),
        Average(name="vg", of=("vg_*",)),
        Average(name="pairs", of=tuple(_CONTROLLED), metric="pairs"),
        Average(name="sets", of=tuple(_CONTROLLED), metric="sets"),
        Average(name="mean6", of=(*_CONTROLLED, *_TAKEN)),
    ),
    headline={"composition": "mean6"},
    items=items,
    annotations=("whatsup/*.json",),
)
