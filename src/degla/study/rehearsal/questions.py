"""Prepare a benchmark root for a rehearsal: link available files, generate missing ones, and record which is which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from degla.errors import InputError
from degla.evaluation.benchmark import Classification, Entry
from degla.evaluation.data_sets import NAMES, data_set
from degla.evaluation.data_sets.reading import read_data_set
from degla.evaluation.image_files import has_image, read_image_file
from degla.evaluation.questions import BenchmarkQuestions, passing_entries
from degla.evaluation.run import ask_all
from degla.evaluation.verdicts import images_of
from degla.shelf import BENCHMARKS
from degla.study.record import RehearsedKind, RehearsedPart
from degla.study.rehearsal.made import LAYOUTS, MADE, LabelledFiles, draw_image, part_of_file, put_bytes

_ZEROSHOT: Final = "zeroshot"
_MOST: Final = 24
"""Questions per part if photographs are available; ..."""
_FEW: Final = 12
"""... and if images are drawn."""
_CLASSES: Final = 6
_PROMPTS: Final = 400
"""Prompts per data set, but at least one per class."""


def lay_questions(names: Sequence[str], *, at_hand: Path, root: Path) -> list[RehearsedPart]:
    """Fill a root with the files of the benchmarks, so that `--allow-missing` asks a few questions of every part.

    Args:
        names: names of benchmarks.
        at_hand: root of the available files; it may not exist, and is never written to.
        root: folder to fill.

    Returns:
        How each part is rehearsed.

    Raises:
        InputError: available files are invalid, or missing for a benchmark that cannot be generated.
    """
    parts: list[RehearsedPart] = []
    for name in names:
        parts += _lay_classes(at_hand, root) if name == _ZEROSHOT else _lay_pairs(name, at_hand, root)
    return parts


def ask_few(names: Sequence[str], *, root: Path) -> list[BenchmarkQuestions]:
    """Return the questions from `lay_questions`, without those that have no image and with few prompts.

    Args:
        names: names of benchmarks.
        root: root that `lay_questions` filled.

    Raises:
        InputError: files are invalid.
    """
    questions = []
    for of_benchmark in ask_all(names, root, allow_missing=True):
        entries = tuple(_with_few_prompts(entry) for entry in of_benchmark.entries)
        questions.append(replace(of_benchmark, entries=entries, passing=entries, absent=(), missing={}))
    return questions


def _with_few_prompts(entry: Entry) -> Entry:
    """Limit the prompts; ImageNet has 80,000."""
    if not isinstance(entry, Classification):
        return entry
    count = max(1, _PROMPTS // len(entry.classes))
    return entry.model_copy(update={"templates": entry.templates[:count]})


def _lay_pairs(name: str, at_hand: Path, root: Path) -> list[RehearsedPart]:
    generated = {part_of_file(name, file) for file in _lay_annotations(name, at_hand, root)}
    by_part: dict[str, list[Entry]] = {}
    for entry in passing_entries(BENCHMARKS.member(name, "BENCHMARK").items(root)):
        by_part.setdefault(entry.part, []).append(entry)
    for part, rows in by_part.items():
        there = [entry for entry in rows if all(has_image(at_hand, path) for path in _paths([entry]))]
        paths = _paths(rows) if part in generated else _paths(there[:_MOST] or rows[:_FEW])[:_MOST]
        for path in paths:
            if has_image(at_hand, path):
                _link(root / path, at_hand / path)
            elif not (root / path).exists():
                put_bytes(root / path, draw_image(path))
    parts = []
    for part, rows in by_part.items():
        has_drawing = any((root / path).is_file() and not (root / path).is_symlink() for path in _paths(rows))
        kind: RehearsedKind = "made" if part in generated else "pictures" if has_drawing else "items"
        parts.append(RehearsedPart(benchmark=name, part=part, kind=kind))
    return parts


def _lay_annotations(name: str, at_hand: Path, root: Path) -> list[str]:
    """Link available annotation files and generate the others; return the paths of the generated ones."""
    benchmark = BENCHMARKS.member(name, "BENCHMARK")
    if benchmark.prepare is not None:
        raise InputError(
            f"{benchmark.title}: it is drawn, not read from official files, so it cannot be rehearsed. Remove {name} "
            "from the plan's benchmarks."
        )
    for pattern in benchmark.annotations:
        for file in sorted(at_hand.glob(pattern)):
            _link(root / file.relative_to(at_hand), file)
    if name not in MADE:
        if not any(next(root.glob(pattern), None) for pattern in benchmark.annotations):
            raise InputError(
                f"{at_hand}: has no file of {benchmark.title}, and a rehearsal can generate files only for "
                f"{', '.join((*MADE, _ZEROSHOT))}. Get them from {benchmark.source}, or remove {name} from the "
                "plan's benchmarks."
            )
        return []
    for path, write in MADE[name].items():
        if not (root / path).exists():
            write(root / path)
    return [path for path in MADE[name] if not (root / path).is_symlink()]


def _link(place: Path, target: Path) -> None:
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target.resolve())


def _paths(entries: Iterable[Entry]) -> list[str]:
    return list(dict.fromkeys(image.path for image in images_of(entries)))


def _lay_classes(at_hand: Path, root: Path) -> list[RehearsedPart]:
    """The eleven published data sets in their published layouts, each with a few images; no custom data sets."""
    parts = []
    for name in NAMES:
        folder = at_hand / _ZEROSHOT / name
        rows = _rows_at_hand(folder, at_hand) if folder.is_dir() else _drawn_rows(name)
        LAYOUTS[name](root / _ZEROSHOT / name, rows)
        kind: RehearsedKind = "items" if folder.is_dir() else "made"
        parts.append(RehearsedPart(benchmark=_ZEROSHOT, part=name, kind=kind))
    return parts


def _rows_at_hand(folder: Path, at_hand: Path) -> LabelledFiles:
    """Some available images of some classes, spread evenly over the classes."""
    entry: Classification = read_data_set(folder, root=at_hand)
    keys = list(data_set(folder.name).classes)
    of_class: dict[int, list[str]] = {}
    for image, label in zip(entry.images, entry.labels, strict=True):
        of_class.setdefault(label, []).append(image.path)
    labels = _few_classes(sorted(of_class))
    rows = [(label, path) for turn in range(_MOST) for label in labels for path in of_class[label][turn : turn + 1]]
    return [(label, keys[label], read_image_file(at_hand, path)) for label, path in sorted(rows[:_MOST])]


def _drawn_rows(name: str) -> LabelledFiles:
    keys = list(data_set(name).classes)
    labels = _few_classes(list(range(len(keys))))
    return [
        (label, keys[label], draw_image(f"{name} {label} {number}"))
        for label in labels
        for number in range(_FEW // len(labels))
    ]


def _few_classes(labels: list[int]) -> list[int]:
    """A few classes, spread from the first to the last."""
    if len(labels) <= _CLASSES:
        return labels
    return [labels[number * (len(labels) - 1) // (_CLASSES - 1)] for number in range(_CLASSES)]
