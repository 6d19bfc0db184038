"""Half-truths: a short true text against the same text with one wrong detail, made from any captions by our own rules.

After CS-CLIP (arXiv 2602.23906), whose texts were written by a language model; these are made by grammar
(`negatives.units`), so the two sets of numbers are not comparable. Each caption gives at most one question per kind of
detail: a second object ("a dog" against "a dog and a red sofa"), and what the first object does or where it is ("a dog"
against "a dog under a sofa"). The text with the right detail is scored too: "contrast" is what other benchmarks ask,
right detail against wrong detail. A half-truth is always the longer text, so length gives it away: see the floors.

Use when: you have captioned images of your own domain but no benchmark of it, or a model ranks a caption with a wrong
addition above a shorter true one. It needs no new images or texts.

Title:    Half-truths
Paper:    none: degla's own, after arXiv 2602.23906
Licence:  that of the captions
Source:   your own captions, in any format that degla negatives reads, for example COCO's (cocodataset.org)
Layout:   half_truths/captions.*   captions that the model was not trained on
          half_truths/images/*     the folder that image paths are relative to; without it, the root
"""

from __future__ import annotations

from pathlib import Path

from degla.errors import InputError
from degla.evaluation.annotations import image_namer
from degla.evaluation.benchmark import Average, Benchmark, Entries, Metric, described, image_question, parts_of
from degla.records import CaptionRecord

_FOLDER = "half_truths"
_KINDS = ("thing", "relation")
Detail = tuple[str, str, str]
"""Texts with the right detail, with none, and with a wrong one."""


def items(root: Path) -> Entries:
    """Read the captions and make the questions its grammar allows; equal captions give the same texts."""
    folder = root / _FOLDER
    file = next(iter(sorted(folder.glob("captions*"))), None)
    if file is None:
        raise InputError(
            f"{folder}: no captions found. Needed: {BENCHMARK.source}. Expected layout:\n{BENCHMARK.layout}"
        )
    from degla.data.sources import read_captions
    from degla.negatives.units import with_units

    image_name = image_namer(file, root=root, folder=_FOLDER)
    for caption in with_units(read_captions(file), seed=0):
        for kind, (whole, short, half) in zip(_KINDS, (_second_thing(caption), _relation(caption)), strict=True):
            if short:
                place = ("half_truths", kind, caption.id)
                yield image_question(place, image_name(caption.image), [whole, short], [half])


_NONE: Detail = ("", "", "")


def _second_thing(caption: CaptionRecord) -> Detail:
    """The first object, and a later one that has a foil."""
    things = [unit for unit in caption.units if unit.kind == "thing"]
    for unit in things[1:]:
        if unit.foils and unit.text != things[0].text:
            short = things[0].text
            return f"{short} and {unit.text}", short, f"{short} and {unit.foils[0]}"
    return _NONE


def _relation(caption: CaptionRecord) -> Detail:
    """An object that both a relation and its foil begin with."""
    for unit in caption.units:
        if unit.kind == "relation":
            for thing in caption.concepts:
                foil = next((foil for foil in unit.foils if foil.startswith(f"{thing} ")), None)
                if foil is not None and unit.text.startswith(f"{thing} "):
                    return unit.text, thing, foil
    return _NONE


BENCHMARK = Benchmark(
    **described("half_truths"),
    parts=parts_of(
        dict.fromkeys(_KINDS),
        "half-truth",
        metrics=(
            Metric(name="half_truth", verdict="text_ok.2"),
            Metric(name="contrast", verdict="text_ok.1"),
            Metric(name="both"),
        ),
        optional=True,
    ),
    averages=(
        Average(name="half_truth", of=("*",)),
        Average(name="contrast", of=("*",), metric="contrast"),
        Average(name="both", of=("*",), metric="both"),
    ),
    headline={"composition": "half_truth"},
    items=items,
    annotations=(f"{_FOLDER}/captions*",),
)
