"""Published classification data sets: `NAME.toml` says all about one, a user's folder of it enters, labels leave.

A `.toml` file holds class names and prompts with their source; `reading` reads the layout in which a data set is
published (and in which torchvision puts it), WebDataset archives or one folder a class.
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

METRICS = (Metric(name="top1", verdict="top1"), Metric(name="mean_per_class", verdict="top1", group="class"))
"""Of recognition; the first is a part's score."""


class DataSet(Record):
    """What is published about one data set.

    Attributes:
        name: of its file, and of its part of the benchmark.
        items: number of test images; None where no test split is published.
        metric: the CLIP paper's: share of right images, or its mean over classes.
        tie: what it is worth that two classes' similarities are equal.
        source: where a user gets the files.
        files: how they must lie in the data set's folder.
        annotations: those of them that say what is asked.
        names_from: where names and prompts were taken from.
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
        """How the files must lie under the benchmarks' root, one path a line."""
        return "\n".join(f"zeroshot/{self.name}/{file}" for file in self.files)

    @property
    def part(self) -> BenchmarkPart:
        """This data set as a part of the benchmark, the paper's metric first."""
        return BenchmarkPart(
            name=self.name,
            family="recognition",
            n=self.items,
            metrics=METRICS if self.metric == "top1" else METRICS[::-1],
            tie=self.tie,
            optional=True,
        )

    def label_of(self, key: str) -> int | None:
        """Number of the class that goes by this name on a disk: its own, or the one in prompts; None for no class."""
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
    """The data set of that name, one of `NAMES`."""
    file = resources.files("degla.evaluation.data_sets") / f"{name}.toml"
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    return validate(DataSet, {"name": name, **content}, where=f"data_sets/{name}.toml")


def plain(key: str) -> str:
    """A name without what differs between disks and prose: small letters and digits, one space between words."""
    return re.sub(r"[^a-z0-9]+", " ", key.lower()).strip()


@cache
def _labels(name: str) -> dict[str, int]:
    classes = data_set(name).classes
    keys = {plain(key): label for label, key in enumerate(classes)}
    # A name in prompts serves too, unless two classes share it, as in ImageNet.
    spoken = [plain(spoken) for spoken in classes.values()]
    return {text: label for label, text in enumerate(spoken) if spoken.count(text) == 1} | keys
