"""The embedded world's own benchmark: composition, recognition and retrieval with exact ground truth.

Each item has two texts, so a blind model scores 0.5. Swapped and shuffled negatives have exactly the words of their
positives: a model that ignores word order ties on all of them and scores 0 under the strict rule.

Use when: you try settings or a new method, in minutes and without a download, or need exact ground truth. Results need
not hold for photographs.

Title:    Embedded world
Paper:    degla, docs/world.md
Licence:  MIT; emoji sprites SIL OFL 1.1 (Noto), glyph sprites DejaVu licence
Source:   this package, by degla world draw
Layout:   items.jsonl
          images/{id,ood,mixed,scenes}/NNNNNN.png
          recognition/DOMAIN/classes.json
          recognition/DOMAIN/CLASS/NNN.png
          retrieval/{mixed,scenes}.jsonl
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from degla.errors import InputError
from degla.evaluation.benchmark import (
    Average,
    Benchmark,
    BenchmarkPart,
    Classification,
    Entries,
    Metric,
    Retrieval,
    described,
)
from degla.files import require_writable
from degla.parse import read_json
from degla.records import CaptionRecord, ItemImage, PairItem, Record, read_jsonl, validate

_SWAPS = ("swap_noun", "swap_adjective", "swap_phrase")
_REPLACED = ("replace_noun", "replace_adjective", "replace_relation")
_KINDS = (*_REPLACED, *_SWAPS, "add_attribute")
_AVERAGES = {"composition": _KINDS, "replace": _REPLACED, "swap": _SWAPS, "order": ("order",)}
"""Averages in each domain of composition."""
_DOMAINS = ("id", "ood")
_RECOGNITION = ("letter", "digit", "animal", "food", "thing", "pattern", "shape", "count", "place")
_RETRIEVAL = ("mixed", "scenes")


class _Classes(Record):
    """`classes.json` of a recognition domain."""

    classes: tuple[str, ...] = Field(min_length=2)
    templates: tuple[str, ...] = Field(min_length=1)
    folders: tuple[str, ...]


def items(root: Path) -> Entries:
    """Read a folder that `degla.world.draw.draw_benchmark` drew: pair items, then recognition, then retrieval."""
    file = root / "items.jsonl"
    if file.is_file() and file.stat().st_size == 0:
        raise InputError(f"{file}: has no questions. Get it again, or draw the benchmark again into an empty folder.")
    yield from read_jsonl(PairItem, file)
    for name in _RECOGNITION:
        yield _recognition(root, name)
    for name in _RETRIEVAL:
        file = root / "retrieval" / f"{name}.jsonl"
        pairs = ((row.image, row.text) for row in read_jsonl(CaptionRecord, file))
        yield Retrieval.of_pairs("world", f"retrieval/{name}", pairs, merged=True, where=file)


def _recognition(root: Path, name: str) -> Classification:
    file = root / "recognition" / name / "classes.json"
    description = validate(_Classes, read_json(file), where=str(file))
    labelled = [
        (image, label)
        for label, folder in enumerate(description.folders)
        for image in sorted((file.parent / folder).glob("*.png"))
    ]
    if not labelled:
        raise InputError(f"{file.parent}: has no images. Draw the benchmark again into an empty folder.")
    return Classification(
        benchmark="world",
        part=f"recognition/{name}",
        images=tuple(ItemImage(path=image.relative_to(root).as_posix()) for image, _ in labelled),
        labels=tuple(label for _, label in labelled),
        classes=description.classes,
        templates=description.templates,
    )


def _prepare(root: Path) -> None:
    from degla.world.draw import MARKER, draw_benchmark

    # A folder that the user drew with custom settings is already complete.
    if (root / MARKER).exists():
        return
    if outer := next((folder for folder in root.resolve().parents if (folder / MARKER).exists()), None):
        # It would be drawn there, and its scores taken for those of the outer one, which may have other settings.
        raise InputError(
            f"{root}: lies in {outer}, which holds drawn data of its own. Give that folder, or one outside it."
        )
    require_writable(root / MARKER, remedy="Choose another root folder.")
    draw_benchmark(root)


_PAIR = (Metric(chance=0.5),)
_TOP1 = (Metric(verdict="top1"),)
_RECALL = (
    Metric(name="image_to_text@1", verdict="image_to_text@1"),
    Metric(name="text_to_image@1", verdict="text_to_image@1"),
)

BENCHMARK = Benchmark(
    **described("world"),
    parts=(
        *(
            BenchmarkPart(name=name, family=name.partition("/")[2].partition("_")[0], metrics=_PAIR)
            for name in (f"{domain}/{kind}" for domain in _DOMAINS for kind in (*_KINDS, "order"))
        ),
        *(BenchmarkPart(name=f"recognition/{name}", family="recognition", metrics=_TOP1) for name in _RECOGNITION),
        *(BenchmarkPart(name=f"retrieval/{name}", family="retrieval", metrics=_RECALL) for name in _RETRIEVAL),
    ),
    items=items,
    annotations=("items.jsonl", "recognition/*/classes.json", "retrieval/*.jsonl"),
    averages=(
        *(
            Average(name=f"{name}.{domain}", of=tuple(f"{domain}/{kind}" for kind in kinds))
            for domain in _DOMAINS
            for name, kinds in _AVERAGES.items()
        ),
        Average(name="recognition", of=tuple(f"recognition/{name}" for name in _RECOGNITION)),
    ),
    headline={
        "composition": "composition.id",
        "other words": "composition.ood",
        "swap": "swap.id",
        "order": "order.id",
        "recognition": "recognition",
        "retrieval": "retrieval/mixed",
    },
    prepare=_prepare,
)
