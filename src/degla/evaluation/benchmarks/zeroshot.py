"""Zero-shot classification of any image folders: what a model recognises without having been trained for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from degla.errors import InputError
from degla.evaluation.benchmarks import Average, Benchmark, Entry, Metric, Part
from degla.evaluation.class_folders import read_class_folder


def items(root: Path) -> Iterator[Entry]:
    """One classification for each folder in `root/zeroshot`, in the order of their names."""
    folder = root / "zeroshot"
    parts = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not parts:
        raise InputError(f"{folder}: no data set there. It must hold\n{BENCHMARK.layout}")
    for part in parts:
        yield read_class_folder(part, root=root, benchmark="zeroshot", part=part.name)


BENCHMARK = Benchmark(
    name="zeroshot",
    title="Zero-shot classification",
    paper="arXiv 2103.00020, section 3.1",
    licence="of the data sets that the user brings",
    source="the user's own folders; class names and prompts of 26 data sets: openai/CLIP, data/prompts.md (MIT)",
    layout="\n".join(
        (
            "zeroshot/DATASET/CLASS/*.jpg",
            'zeroshot/DATASET/classes.json  optional: {"classes": {"CLASS": "name"}, "templates": ["{}."]}',
        )
    ),
    citation=(
        "@inproceedings{radford2021learning, title={Learning Transferable Visual Models From Natural Language "
        "Supervision}, author={Radford, Alec and Kim, Jong Wook and others}, booktitle={ICML}, year={2021}}"
    ),
    parts=(
        Part(
            name="*",
            family="recognition",
            metrics=(
                Metric(name="top1", verdict="top1"),
                Metric(name="mean_per_class", verdict="top1", group="class"),
            ),
        ),
    ),
    averages=(
        Average(name="mean", of=("*",)),
        Average(name="mean.per_class", of=("*",), metric="mean_per_class"),
    ),
    headline={"recognition": "mean"},
    items=items,
    annotations=("zeroshot/*/classes.json",),
)
