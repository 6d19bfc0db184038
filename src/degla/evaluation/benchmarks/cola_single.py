"""COLA, single object: rank the images that show a phrase such as "square white plate" above those that nearly do.

Mean average precision over the phrases, each among the images that match one of its words ("hard"). The share of right
images differs from phrase to phrase, so chance is not 1/320.

Use when: images are to be searched by an object with several attributes. The score is a mean average precision, so
compare it only with itself.

Title:    COLA (single object)
Paper:    arXiv 2305.03689
Licence:  annotations MIT; images of GQA (Visual Genome, CC BY 4.0), CLEVR (CC BY 4.0) and PACO (COCO)
Source:   https://github.com/arijitray1993/COLA (data/*.json) and the images of GQA, CLEVR and PACO
Layout:   cola/COLA_singleobjects_benchmark_{GQA,CLEVR,PACO}.json   each optional
          vg/N.jpg
          clevr/*.png
          paco/*.jpg
Citation: @inproceedings{ray2023cola, title={COLA: A Benchmark for Compositional Text-to-image Retrieval}, author={Ray,
          Arijit and Radenovic, Filip and Dubey, Abhimanyu and Plummer, Bryan A. and Krishna, Ranjay and Saenko, Kate},
          booktitle={NeurIPS Datasets and Benchmarks}, year={2023}}
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field

from degla.errors import InputError
from degla.evaluation.annotations import Text, published_row, read_annotation, where_to_get
from degla.evaluation.benchmark import Average, Benchmark, Entries, Metric, described, pair_question, parts_of
from degla.pages.words import counted
from degla.parse import parse_json
from degla.records import Record

_FOLDERS = {"gqa": "vg", "clevr": "clevr", "paco": "paco"}


class _Image(Record):
    """One image: the phrases that are true of it, and those for which it is a hard image."""

    file: Text
    label: tuple[Literal[0, 1], ...]
    hard: tuple[Literal[0, 1], ...]


class _File(Record, extra="ignore"):
    labels: tuple[Text, ...] = Field(min_length=1)
    data: tuple[Any, ...] = Field(min_length=1)


def items(root: Path) -> Entries:
    """Read the files that exist; phrases without both a right and a wrong image among the hard ones are skipped."""
    files = {part: root / "cola" / f"COLA_singleobjects_benchmark_{part.upper()}.json" for part in _FOLDERS}
    there = {part: file for part, file in files.items() if file.exists()}
    if not there:
        names = ", ".join(file.name for file in files.values())
        raise InputError(f"{root / 'cola'}: none of {names} found. {where_to_get(BENCHMARK)}")
    for part, file in there.items():
        phrases, images = _read(file)
        for number, phrase in enumerate(phrases):
            hard = [image for image in images if image.hard[number]]
            gold = tuple((image.label[number],) for image in hard)
            if (1,) in gold and (0,) in gold:
                paths = [f"{_FOLDERS[part]}/{PurePosixPath(image.file).name}" for image in hard]
                yield pair_question(("cola_single", part, number), paths, [phrase], gold)


def _read(file: Path) -> tuple[tuple[str, ...], list[_Image]]:
    content = parse_json(read_annotation(file, BENCHMARK), where=str(file), remedy="Fetch the file again.")
    if isinstance(content, list):  # As the released code reads it; its README describes an object.
        content = dict(zip(("labels", "data"), content, strict=False))
    whole = published_row(_File, content, where=str(file))
    images = []
    for index, row in enumerate(whole.data):
        where = f"{file} image {index}"
        # PACO's rows have no dictionary of the image's contents; in the others it comes second.
        cells = row if isinstance(row, list) else []
        fields = {"file": cells[0], "label": cells[-2], "hard": cells[-1]} if len(cells) in (3, 4) else {}
        image = published_row(_Image, fields, where=where)
        if not len(image.label) == len(image.hard) == len(whole.labels):
            raise InputError(
                f"{where}: {counted(len(image.label), 'label')} and {counted(len(image.hard), 'hard-image flag')} "
                f"for {counted(len(whole.labels), 'phrase')}. Fetch the file again."
            )
        images.append(image)
    return whole.labels, images


_PRECISION = (Metric(name="average_precision", verdict="average_precision"),)

BENCHMARK = Benchmark(
    **described("cola_single"),
    parts=parts_of(dict.fromkeys(_FOLDERS), "attribute", metrics=_PRECISION, optional=True),
    averages=(Average(name="mean", of=("*",)),),
    headline={"composition": "mean"},
    items=items,
    annotations=("cola/COLA_singleobjects_benchmark_*.json",),
)
