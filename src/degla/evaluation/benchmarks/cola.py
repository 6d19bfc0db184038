"""COLA, multi-object: 210 pairs of Visual Genome images whose captions swap the attributes of two objects.

Use when: you want to know whether a model binds attributes to the right object in photographs. The text gives nothing
away; of 210 pairs, a difference of a few points is not certain.

Title:    COLA (multi-object)
Paper:    arXiv 2305.03689
Licence:  annotations MIT; images of Visual Genome, CC BY 4.0
Source:   https://github.com/arijitray1993/COLA (data/*.json) and visualgenome.org or GQA (images by number)
Layout:   cola/COLA_multiobjects_matching_benchmark.json
          vg/N.jpg  Visual Genome, both parts in one folder, or GQA's images
Citation: @inproceedings{ray2023cola, title={COLA: A Benchmark for Compositional Text-to-image Retrieval}, author={Ray,
          Arijit and Radenovic, Filip and Dubey, Abhimanyu and Plummer, Bryan A. and Krishna, Ranjay and Saenko, Kate},
          booktitle={NeurIPS Datasets and Benchmarks}, year={2023}}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, RootModel

from degla.evaluation.annotations import Text, read_records
from degla.evaluation.benchmark import Benchmark, BenchmarkPart, Entries, described
from degla.evaluation.forms import square_metrics, square_question

_Address = Annotated[str, Field(pattern=r"^https?://[^ ]+/\d+\.jpg$")]


class _Row(RootModel[tuple[_Address, Text, _Address, Text]]):
    """URL and caption of the first image, URL and caption of the second."""


def items(root: Path) -> Entries:
    """Read the one file; of an image's URL only the file name, Visual Genome's number, is used.

    An image is in up to 15 pairs, as their first or second. Pairs that share one, also through others, are drawn
    together.
    """
    file = root / "cola" / "COLA_multiobjects_matching_benchmark.json"
    rows = [row.root for _, row in read_records(_Row, file, BENCHMARK)]
    pairs = [[f"vg/{address.rpartition('/')[2]}" for address in row[::2]] for row in rows]
    joined: dict[str, int] = {}
    for number, pair in enumerate(pairs):
        own = {joined.setdefault(path, number) for path in pair}
        joined |= {path: min(own) for path, other in joined.items() if other in own}
    for index, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        group = {"image": pairs[joined[pair[0]]][0]}
        yield square_question(("cola", "multi_object", index), pair, row[1::2], group=group)


BENCHMARK = Benchmark(
    **described("cola"),
    parts=(
        BenchmarkPart(
            name="multi_object",
            family="attribute",
            n=210,
            # The published number: for each caption, the right image ranks first. Text and group are extras.
            metrics=square_metrics("image", "text", "group"),
        ),
    ),
    headline={"composition": "multi_object"},
    items=items,
    annotations=("cola/COLA_multiobjects_matching_benchmark.json",),
)
