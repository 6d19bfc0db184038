"""Zero-shot classification: what a model recognises without training for it.

The paper's eleven data sets have their own class names and prompts; any other folder is a data set of the user's.

Use when: a model was fine-tuned: it shows what it no longer recognises. A gain in composition that costs several points
here is a trade, not a gain.
"""

from __future__ import annotations

from pathlib import Path

from degla.errors import InputError
from degla.evaluation.benchmark import Average, Benchmark, BenchmarkPart, Entries
from degla.evaluation.data_sets import METRICS, NAMES, data_set
from degla.evaluation.data_sets.reading import read_data_set, subfolders


def items(root: Path) -> Entries:
    """One classification for each folder in `root/zeroshot`: the published ones in their order, then the user's own."""
    folder = root / "zeroshot"
    there = [path.name for path in subfolders(folder)]
    if not there:
        raise InputError(f"{folder}: no data sets found. Expected layout:\n{BENCHMARK.layout}")
    for name in [*(name for name in NAMES if name in there), *(name for name in there if name not in NAMES)]:
        yield read_data_set(folder / name, root=root)


_PUBLISHED = tuple(data_set(name) for name in NAMES)

BENCHMARK = Benchmark(
    name="zeroshot",
    title="Zero-shot classification",
    paper="arXiv 2103.00020, section 3.1",
    licence="; ".join([*(f"{about.title}: {about.licence}" for about in _PUBLISHED), "your own data sets: theirs"]),
    source="\n".join(f"{about.name}: {about.source}" for about in _PUBLISHED),
    layout="\n".join(
        (
            *(about.layout for about in _PUBLISHED),
            "zeroshot/NAME/{test,val}/CLASS/*.jpg    instead of any of these layouts: one folder per class",
            "zeroshot/NAME/train/CLASS/*.jpg         optional: training images of linear probes",
            "zeroshot/NAME/{test/,}*.tar             or WebDataset: x.jpg, x.cls; optional: classnames.txt and",
            "                                        zeroshot_classification_templates.txt beside them",
            "zeroshot/DATASET/CLASS/*.jpg            your own, under any other name",
            'zeroshot/DATASET/classes.json           optional: {"classes": {"CLASS": "name"}, "templates": ["{}."]}',
        )
    ),
    citation=(
        "@inproceedings{radford2021learning, title={Learning Transferable Visual Models From Natural Language "
        "Supervision}, author={Radford, Alec and Kim, Jong Wook and others}, booktitle={ICML}, year={2021}}"
    ),
    parts=(*(about.part for about in _PUBLISHED), BenchmarkPart(name="*", family="recognition", metrics=METRICS)),
    averages=(
        # Of the eleven, each by the paper's metric; then of whatever data sets exist.
        Average(name="mean", of=NAMES),
        Average(name="mean.there", of=("*",)),
        Average(name="mean.there.top1", of=("*",), metric="top1"),
        Average(name="mean.there.per_class", of=("*",), metric="mean_per_class"),
    ),
    headline={"recognition": "mean.there"},
    items=items,
    annotations=(
        *(f"zeroshot/{about.name}/{file}" for about in _PUBLISHED for file in about.annotations),
        "zeroshot/*/classes.json",
        "zeroshot/*/classnames.txt",
        "zeroshot/*/zeroshot_classification_templates.txt",
    ),
)
