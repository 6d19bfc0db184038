"""VL-CheckList's format: captions against copies with a replaced object, attribute or relation, in the user's files.

Use when: you compare with TSVLC and other papers that report it, and still have its images. Its wrong words are drawn
at random and often implausible, so read it beside its floors.

Title:    VL-CheckList
Paper:    arXiv 2207.00221
Licence:  annotations state none; images of Visual Genome CC BY 4.0, SWiG, HAKE (its PIC images are gone)
Source:   https://github.com/om-ai-lab/VL-CheckList (data/); images: visualgenome.org, github.com/allenai/swig,
          github.com/DirtyHarryLYL/HAKE
Layout:   vl_checklist/{Attribute,Object,Relation}/**/*.json   each path contains vg, vaw, swig or hake
          vg/N.jpg                 Visual Genome, both parts in one folder
          swig/images_512/*.jpg
          hake/...                 by the paths in the files
Citation: @article{zhao2022vlchecklist, title={VL-CheckList: Evaluating Pre-trained Vision-Language Models with
          Objects, Attributes and Relations}, author={Zhao, Tiancheng and Zhang, Tianqi and Zhu, Mingwei and Shen,
          Haozhan and Lee, Kyusong and Lu, Xiaopeng and Yin, Jianwei}, journal={arXiv:2207.00221}, year={2022}}
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, RootModel

from degla.errors import InputError
from degla.evaluation.annotations import Text, published_row, read_table, where_to_get
from degla.evaluation.benchmark import Average, Benchmark, BenchmarkPart, Entries, described, image_question
from degla.records import Record

_FAMILIES = ("attribute", "object", "relation")
_CORPORA = {"vg": "vg", "vaw": "vg", "swig": "swig/images_512", "hake": "hake"}
_Texts = Annotated[tuple[Text, ...], Field(min_length=1)]


class _Captions(Record):
    POS: _Texts
    NEG: _Texts


class _Row(RootModel[tuple[Text, _Captions]]):
    """An image's path in its corpus, and its captions."""


def items(root: Path) -> Entries:
    """Read every file under `vl_checklist`; a part is a file's path without its extension, in lower case."""
    folder = root / "vl_checklist"
    files = sorted(folder.rglob("*.json"))
    if not files:
        raise InputError(f"{folder}: no files found. {where_to_get(BENCHMARK)}")
    for file in files:
        part = file.relative_to(folder).with_suffix("").as_posix().lower()
        if part.split("/")[0] not in _FAMILIES:
            raise InputError(f"{file}: must be in one of the folders {', '.join(_FAMILIES)} of {folder}.")
        images = _image_folder(file, part)
        for index, (where, row) in enumerate(read_table(file, BENCHMARK)):
            image, captions = published_row(_Row, row, where=where).root
            path = _image_path(images, image)
            # SWiG's objects have three wordings of each caption; the released code uses the first.
            yield image_question(("vl_checklist", part, index), path, captions.POS[:1], captions.NEG[:1])


def _image_folder(file: Path, part: str) -> str:
    for word in re.split(r"[/_]", part):
        if word in _CORPORA:
            return _CORPORA[word]
    raise InputError(f"{file}: the path must name the images' corpus: one of {', '.join(_CORPORA)}.")


def _image_path(folder: str, name: str) -> str:
    """Visual Genome's two parts share one folder here, and so do SWiG's images; HAKE keeps its folders."""
    return f"{folder}/{name if folder == 'hake' else name.rpartition('/')[2]}"


BENCHMARK = Benchmark(
    **described("vl_checklist"),
    parts=tuple(BenchmarkPart(name=f"{family}/*", family=family, optional=True) for family in _FAMILIES),
    # Means over the files of a family, then over the families; papers differ in which files they use.
    averages=(
        *(Average(name=family, of=(f"{family}/*",)) for family in _FAMILIES),
        Average(name="mean3", of=_FAMILIES),
    ),
    headline={"composition": "mean3"},
    items=items,
    annotations=("vl_checklist/**/*.json",),
)
