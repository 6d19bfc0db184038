"""Hard positives: does a caption's paraphrase beat the hard negative, as the caption does? 56,191 triples.

The replaced words are few (31 attributes, 28 relations) and some are rare, so a score reflects word frequency as much
as meaning; the mean over replacements is reported beside the mean over items.

Use when: a model was trained with hard negatives: it shows whether every change of the text now counts as false, also a
harmless one.

Title:    Hard positives
Paper:    arXiv 2409.17958
Licence:  annotations state none; images of Visual Genome, CC BY 4.0
Source:   https://github.com/amitakamath/hard_positives (data/ and swapped_data/); images: visualgenome.org
Layout:   hard_positives/{data,swapped_data}/vl_checklist_attributes.json
          hard_positives/{data,swapped_data}/vl_checklist_relations.json
          hard_positives/{data,swapped_data}/visual_genome_attribution.json
          vg/N.jpg  Visual Genome, both parts in one folder
Citation: @inproceedings{kamath2024hard, title={The Hard Positive Truth about Vision-Language Compositionality},
          author={Kamath, Amita and Hsieh, Cheng-Yu and Chang, Kai-Wei and Krishna, Ranjay}, booktitle={ECCV},
          year={2024}}
"""

from __future__ import annotations

import difflib
from pathlib import Path, PurePosixPath

from degla.errors import InputError
from degla.evaluation.annotations import Text, read_records
from degla.evaluation.benchmark import Average, Benchmark, BenchmarkPart, Entries, Metric, described, image_question
from degla.pages.words import counted
from degla.records import ItemImage, Record

_PARTS = {
    "replace_att": ("vl_checklist_attributes", 10575),
    "replace_rel": ("vl_checklist_relations", 16868),
    "swap": ("visual_genome_attribution", 28748),
}


class _Row(Record, extra="ignore"):
    """One entry of either file; only entries of Visual Genome Attribution have a box, in pixels."""

    image_path: Text
    true_caption: Text
    false_caption: Text
    bbox_x: int | None = None
    bbox_y: int = 0
    bbox_w: int = 0
    bbox_h: int = 0

    @property
    def image(self) -> ItemImage:
        box = None if self.bbox_x is None else (self.bbox_x, self.bbox_y, self.bbox_w, self.bbox_h)
        return ItemImage(path=f"vg/{PurePosixPath(self.image_path).name}", crop=box)


def items(root: Path) -> Entries:
    """Read each pair of files row by row: the first has the caption, the second its paraphrase."""
    for part, (stem, _) in _PARTS.items():
        files = [root / "hard_positives" / folder / f"{stem}.json" for folder in ("data", "swapped_data")]
        original, other = (list(read_records(_Row, file, BENCHMARK)) for file in files)
        if len(original) != len(other):
            raise InputError(
                f"{files[1]}: has {counted(len(other), 'row')}, but {files[0]} has {len(original)}. Their rows must "
                "match one to one. Fetch both again."
            )
        for number, ((_, first), (where, second)) in enumerate(zip(original, other, strict=True)):
            if (first.image, first.false_caption) != (second.image, second.false_caption):
                raise InputError(
                    f"{where}: its image or false caption differs from the same row of {files[0]}. Their rows must "
                    "match one to one. Fetch both again."
                )
            true = (first.true_caption, second.true_caption)
            group = {} if part == "swap" else {"replacement": _replacement(*true)}
            place = ("hard_positives", part, number)
            yield image_question(place, first.image, true, [first.false_caption], group=group)


def _replacement(caption: str, other: str) -> str:
    """The words that differ between the two texts."""
    one, two = caption.split(), other.split()
    changes = difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes()
    return ", ".join(f"{' '.join(one[a:b])} -> {' '.join(two[c:d])}" for kind, a, b, c, d in changes if kind != "equal")


_METRICS = (
    Metric(name="augmented"),
    Metric(name="original", verdict="text_ok.1"),
    Metric(name="paraphrase", verdict="text_ok.2"),
    Metric(name="brittleness", verdict="brittle", lower=True),
)
_REPLACED = ("replace_att", "replace_rel")

BENCHMARK = Benchmark(
    **described("hard_positives"),
    parts=tuple(
        BenchmarkPart(
            name=name,
            family=name.partition("_")[0],
            n=n,
            metrics=(*_METRICS, *((Metric(name="per_replacement", group="replacement"),) if name in _REPLACED else ())),
        )
        for name, (_, n) in _PARTS.items()
    ),
    averages=(
        Average(name="replace", of=_REPLACED),
        Average(name="replace.original", of=_REPLACED, metric="original"),
        Average(name="replace.brittleness", of=_REPLACED, metric="brittleness"),
        Average(name="macro", of=("replace", "swap")),
    ),
    headline={"composition": "macro", "swap": "swap"},
    items=items,
    annotations=("hard_positives/*/*.json",),
)
