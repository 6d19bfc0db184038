"""SPEC: size, position, existence and count in composed scenes that differ in one detail; choice of texts and images.

The scenes are cut-outs on white, far from photographs; the authors' fine-tuned models were trained on scenes from the
same generator. Some papers score all captions of an object against each other under the same name.

Use when: one skill is in question: absolute or relative size or position, existence, or count. Gains need not carry
over to photographs.

Title:    SPEC
Paper:    arXiv 2312.00081
Licence:  Apache 2.0 (data); the code states none
Source:   https://huggingface.co/datasets/wjpoom/SPEC (data.zip)
Layout:   spec/{absolute_size,relative_size,absolute_spatial,relative_spatial,existence,count}/image2text.json
          spec/{absolute_size,relative_size,absolute_spatial,relative_spatial,existence,count}/text2image.json
          spec/SUBSET/...   images, by the paths in the files
Citation: @inproceedings{peng2024synthesize, title={Synthesize, Diagnose, and Optimize: Towards Fine-Grained
          Vision-Language Understanding}, author={Peng, Wujian and Xie, Sicheng and You, Zuyao and Lan, Shiyi and Wu,
          Zuxuan}, booktitle={CVPR}, year={2024}}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from degla.evaluation.annotations import Text, read_records
from degla.evaluation.benchmark import Average, Benchmark, BenchmarkPart, Entries, Metric, described
from degla.evaluation.forms import choice_question, image_choice_question
from degla.records import Record

_COUNTS = {
    "absolute_size": 1500,
    "relative_size": 1500,
    "absolute_spatial": 4500,
    "relative_spatial": 2000,
    "existence": 1000,
    "count": 4500,
}
_FAMILIES = {"existence": "existence", "count": "count"}


class _Row(Record):
    """An image with texts, or a text with images; `label` says which of them is right."""

    query: Text
    keys: Annotated[tuple[Text, ...], Field(min_length=2)]
    label: int = Field(ge=0)

    @model_validator(mode="after")
    def _label_is_one(self) -> _Row:
        if self.label >= len(self.keys):
            raise ValueError(f"label {self.label} is out of range for {len(self.keys)} keys")
        return self


def items(root: Path) -> Entries:
    """Read both files of each subset; the image of a question names its scene."""
    for subset in _COUNTS:
        folder = root / "spec" / subset
        for number, (_, row) in enumerate(read_records(_Row, folder / "image2text.json", BENCHMARK)):
            image = f"spec/{subset}/{row.query}"
            yield choice_question(("spec", f"i2t/{subset}", number), image, row.keys, right=row.label)
        for number, (_, row) in enumerate(read_records(_Row, folder / "text2image.json", BENCHMARK)):
            images = [f"spec/{subset}/{name}" for name in row.keys]
            yield image_choice_question(("spec", f"t2i/{subset}", number), row.query, images, right=row.label)


BENCHMARK = Benchmark(
    **described("spec"),
    # The released code takes the first of the best, wherever the right one is: a tie is worth a half.
    parts=tuple(
        BenchmarkPart(name=f"{way}/{name}", family=_FAMILIES.get(name, "spatial"), n=n, tie="half", metrics=(metric,))
        for way, metric in (("i2t", Metric()), ("t2i", Metric(verdict="image_ok")))
        for name, n in _COUNTS.items()
    ),
    averages=(
        Average(name="i2t", of=("i2t/*",)),
        Average(name="t2i", of=("t2i/*",)),
        Average(name="mean", of=("i2t", "t2i")),
    ),
    headline={"composition": "mean"},
    items=items,
    annotations=("spec/*/*.json",),
)
