"""BiVLC: 2,933 pairs of SugarCrepe with a generated image for the false caption; text and image retrieval.

Generated images can be told from photographs, so a model may prefer one kind whatever the text says. For that reason
the four single directions are reported as well.

Use when: a text must also find its image, which `sugarcrepe` does not ask. Compare the single directions before you
read the group score: the false captions' images are generated.

Title:    BiVLC
Paper:    arXiv 2406.09952
Licence:  MIT; photographs COCO val2017, Flickr terms of each image
Source:   https://huggingface.co/datasets/imirandam/BiVLC (the Parquet files of its test split)
Layout:   bivlc/*.parquet   images are read from inside the files
Citation: @inproceedings{miranda2024bivlc, title={BiVLC: Extending Vision-Language Compositionality Evaluation with
          Text-to-Image Retrieval}, author={Miranda, Imanol and Salaberria, Ander and Agirre, Eneko and Azkune, Gorka},
          booktitle={NeurIPS Datasets and Benchmarks}, year={2024}}
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

from degla.evaluation.annotations import Text, find_files, read_records
from degla.evaluation.benchmark import Average, Benchmark, Entries, Metric, described, parts_of
from degla.evaluation.forms import SQUARE, square_metrics, square_question
from degla.records import Record

_COUNTS = {
    "replace_obj": 1200,
    "replace_att": 437,
    "replace_rel": 462,
    "swap_obj": 81,
    "swap_att": 278,
    "add_obj": 399,
    "add_att": 76,
}
_FAMILIES = ("replace", "swap", "add")
_DIRECTIONS = (
    Metric(name="texts_of_photograph", verdict="text_ok.1"),
    Metric(name="texts_of_generated", verdict="text_ok.2"),
    Metric(name="images_of_caption", verdict="image_ok.1"),
    Metric(name="images_of_negative", verdict="image_ok.2"),
)


class _Row(Record):
    """One pair; rows have no id, so the row number serves as one."""

    image: str
    caption: Text
    negative_caption: Text
    negative_image: str
    type: str
    subtype: str


def items(root: Path) -> Entries:
    """Read every row of the split; the parts are SugarCrepe's."""
    numbers = count()
    for file in find_files(root, ("bivlc/*.parquet", "bivlc/*.arrow"), BENCHMARK):
        for _, row in read_records(_Row, file, BENCHMARK):
            images = [f"bivlc/{name}" for name in (row.image, row.negative_image)]
            place = ("bivlc", f"{row.type}_{row.subtype}", next(numbers))
            yield square_question(place, images, (row.caption, row.negative_caption))


BENCHMARK = Benchmark(
    **described("bivlc"),
    parts=parts_of(_COUNTS, metrics=(*square_metrics(), *_DIRECTIONS)),
    averages=(
        *(Average(name=metric, of=tuple(_COUNTS), how="micro", metric=metric) for metric in SQUARE),
        *(Average(name=way.name, of=tuple(_COUNTS), how="micro", metric=way.name) for way in _DIRECTIONS),
        *(Average(name=family, of=(f"{family}_*",), how="micro", metric="group") for family in _FAMILIES),
    ),
    headline={"composition": "group", "swap": "swap"},
    items=items,
    annotations=("bivlc/*.parquet", "bivlc/*.arrow"),
)
