"""Published classification data sets, one `NAME.toml` each.

A `.toml` file has class names and prompts with their source; `reading` reads the layout in which a data set is
published (also torchvision's), WebDataset archives, or one folder per class.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import Field

from degla.evaluation.benchmark import BenchmarkPart, Metric
from degla.records import Record, validate

METRICS = (
    Metric(name="top1", verdict="top1"),
    Metric(name="mean_per_class", verdict="top1", group="class"),
    Metric(name="top5", verdict="top5"),
)
"""Metrics of recognition; the first is a part's score."""


class DataSet(Record):
    """A published data set.

    Attributes:
        name: of its file, and of its part of the benchmark.
        items: number of test images; None if no test split is published.
        metric: the CLIP paper's metric: accuracy, or its mean over classes.
        tie: what a tie between two classes' similarities is worth.
        source: where a user gets the files.
        files: their layout in the data set's folder.
        annotations: the files among them that define the questions.
        names_from: source of names and prompts.
        templates: prompts, each with one `{}`.
        classes: the data set's own name, or number, of each class to its name in a prompt, in the order of the labels.
    """

    name: str
    title: str
    items: int | None = None
    metric: Literal["top1", "mean_per_class"]
    tie: Literal["strict", "half"] = "strict"
    licence: str
    source: str
    files: tuple[str, ...] = Field(min_length=1)
    annotations: tuple[str, ...]
    names_from: str
    templates: tuple[str, ...] = Field(min_length=1)
    classes: dict[str, str] = Field(min_length=2)

    @property
    def layout(self) -> str:
        """Expected layout under the benchmarks' root, one path per line."""
        return "\n".join(f"zeroshot/{self.name}/{file}" for file in self.files)

    @property
    def part(self) -> BenchmarkPart:
        """This data set as a part of the benchmark, the paper's metric first."""
        return BenchmarkPart(
            name=self.name,
            family="recognition",
            n=self.items,
            metrics=tuple(sorted(METRICS, key=lambda metric: metric.name != self.metric)),
            tie=self.tie,
            optional=True,
        )

    def label_of(self, key: str) -> int | None:
        """Return the label of the class with this name on disk, its own or that in prompts; None if there is none."""
        return _labels(self.name).get(plain(key))


NAMES = (
    "cifar10",
    "cifar100",
    "food101",
    "pets",
    "flowers102",
    "sun397",
    "cars",
    "dtd",
    "caltech101",
    "aircraft",
    "imagenet",
)
"""The eleven data sets of arXiv 2504.16801, table 5, in its order."""


@cache
def data_set(name: str) -> DataSet:
    """Return the data set with this name, one of `NAMES`."""
    file = resources.files("degla.evaluation.data_sets") / f"{name}.toml"
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    return validate(DataSet, {"name": name, **content}, where=f"data_sets/{name}.toml")


def plain(key: str) -> str:
    """Normalise a name for comparison: lower-case letters and digits, one space between words."""
    return re.sub(r"[^a-z0-9]+", " ", key.lower()).strip()


@cache
def _labels(name: str) -> dict[str, int]:
    classes = data_set(name).classes
    keys = {plain(key): label for label, key in enumerate(classes)}
    # A name in prompts works too, unless two classes share it, as in ImageNet.
    spoken = [plain(spoken) for spoken in classes.values()]
    return {text: label for label, text in enumerate(spoken) if spoken.count(text) == 1} | keys
