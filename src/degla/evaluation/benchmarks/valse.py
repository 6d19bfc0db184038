"""VALSE: captions against foils, one linguistic phenomenon per file; 7,702 of 8,782 items are valid and scored.

The numbers of its parts are those of the files; two of three people must have chosen the caption for an item to be
scored.

Use when: you want to know which phenomenon a model fails at: existence, plurals, counting, relations, actions or
coreference. Read the parts; the mean hides that text alone answers some of them.

Title:    VALSE
Paper:    arXiv 2112.07566
Licence:  annotations MIT; images of Visual Genome (CC BY 4.0), COCO (Flickr terms of each image), SWiG, VisDial
Source:   https://github.com/Heidelberg-NLP/VALSE (data/*.json); images: visualgenome.org (Visual7W's own archive is
          gone, its v7w_N.jpg is Visual Genome's N.jpg), cocodataset.org, github.com/allenai/swig, visualdialog.org
Layout:   valse/{existence,plurals,counting-hard,counting-small-quant,counting-adversarial,relations,\
action-replacement,actant-swap,coreference-standard,coreference-hard,foil-it}.json
          vg/N.jpg                        Visual Genome, both parts in one folder (existence, counting)
          coco/val2017/*.jpg              plurals, relations
          coco/{train2014,val2014}/*.jpg  coreference-standard, foil-it
          swig/images_512/*.jpg           actions
          visdial/val2018/*.jpg           coreference-hard
Citation: @inproceedings{parcalabescu2022valse, title={VALSE: A Task-Independent Benchmark for Vision and Language
          Models Centered on Linguistic Phenomena}, author={Parcalabescu, Letitia and Cafagna, Michele and Muradjan,
          Lilitta and Frank, Anette and Calixto, Iacer and Gatt, Albert}, booktitle={ACL}, year={2022}}
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from degla.errors import InputError
from degla.evaluation.annotations import Text, published_row, read_object
from degla.evaluation.benchmark import Average, Benchmark, BenchmarkPart, Entries, Metric, described, image_question
from degla.records import Record

_PIECES = {
    "existence": ("existence", 534),
    "plurals": ("plurality", 1000),
    "counting-hard": ("counting", 1000),
    "counting-small-quant": ("counting", 1000),
    "counting-adversarial": ("counting", 756),
    "relations": ("relation", 614),
    "action-replacement": ("action", 779),
    "actant-swap": ("action", 1042),
    "coreference-standard": ("coreference", 916),
    "coreference-hard": ("coreference", 141),
    "foil-it": ("noun", 1000),
}
_VALID_VOTES = 2
_FOLDERS = (
    ("v7w_", "vg/"),
    ("COCO_train2014_", "coco/train2014/"),
    ("COCO_val2014_", "coco/val2014/"),
    ("VisualDialog_val2018_", "visdial/val2018/"),
)


class _Votes(Record):
    """How many of three annotators chose the caption, the foil or neither as true of the image."""

    caption: int = Field(ge=0)
    foil: int = Field(ge=0)
    other: int = Field(ge=0)


class _Row(Record, extra="ignore"):
    """The fields used of an entry; the others differ between files and go to `meta` unchanged."""

    dataset: str
    image_file: Text
    caption: Text
    foil: Text
    mturk: _Votes


def items(root: Path) -> Entries:
    """Read the eleven files; keys are unique only within a file."""
    for piece in _PIECES:
        file = root / "valse" / f"{piece}.json"
        for key, row in read_object(file, BENCHMARK).items():
            where = f"{file} item {key!r}"
            record = published_row(_Row, row, where=where)
            keep = record.mturk.caption >= _VALID_VOTES
            reason = "" if keep else f"only {record.mturk.caption} of 3 people chose the caption"
            meta = {name: value for name, value in row.items() if name not in ("image_file", "caption", "foil")}
            place, image = ("valse", piece, key), _image_path(record, where)
            yield image_question(place, image, [record.caption], [record.foil], keep=keep, reason=reason, meta=meta)


def _image_path(row: _Row, where: str) -> str:
    """Path of an image: by the prefix of its name, else by the data set (COCO 2017 and SWiG name files alike)."""
    for beginning, folder in _FOLDERS:
        if row.image_file.startswith(beginning):
            # Visual7W took its images from Visual Genome and prefixed the number with v7w_.
            return folder + (row.image_file.removeprefix(beginning) if beginning == "v7w_" else row.image_file)
    if row.dataset in ("coco2017", "coco_2017"):
        return f"coco/val2017/{row.image_file}"
    if row.dataset == "SWiG":
        return f"swig/images_512/{row.image_file}"
    raise InputError(
        f"{where}: field 'dataset': {row.dataset!r} with image {row.image_file!r} is not Visual7W, COCO, SWiG or "
        "VisDial. Fetch the file again."
    )


_ACTIONS = ("action-replacement", "actant-swap")
_COREFERENCE = ("coreference-standard", "coreference-hard")
_PHENOMENA = {
    "counting": ("counting-hard", "counting-small-quant", "counting-adversarial"),
    "actions": _ACTIONS,
    "coreference": _COREFERENCE,
}
"""Phenomena with several files."""

BENCHMARK = Benchmark(
    **described("valse"),
    parts=tuple(
        BenchmarkPart(name=name, family=family, n=n, metrics=(Metric(chance=0.5),))
        for name, (family, n) in _PIECES.items()
    ),
    averages=(
        *(Average(name=name, of=of) for name, of in _PHENOMENA.items()),
        # The average in the tables of CE-CLIP and DeGLA: counting enters three times.
        Average(name="mean11", of=tuple(_PIECES)),
        # The plain mean of the nine columns that those tables print.
        Average(
            name="mean9",
            of=("existence", "plurals", "counting", "relations", *_ACTIONS, *_COREFERENCE, "foil-it"),
        ),
        Average(
            name="mean7", of=("existence", "plurals", "counting", "relations", "actions", "coreference", "foil-it")
        ),
        # The same seven, each phenomenon a mean over its items; gives vl_compo's 67.6 for OpenAI ViT-B/32.
        *(Average(name=f"{name}.micro", of=of, how="micro") for name, of in _PHENOMENA.items()),
        Average(
            name="mean7.micro",
            of=(
                *("existence", "plurals", "counting.micro", "relations"),
                *("actions.micro", "coreference.micro", "foil-it"),
            ),
        ),
        Average(name="micro", of=tuple(_PIECES), how="micro"),
    ),
    headline={"composition": "mean11"},
    items=items,
    annotations=("valse/*.json",),
)
