"""What a benchmark asks under a root folder: its files enter, what can be scored and what is missing leave."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from degla.errors import InputError
from degla.evaluation.benchmark import Benchmark, Classification, Entry
from degla.evaluation.pictures import has_picture
from degla.evaluation.verdicts import images_of
from degla.records import PairItem

logger = logging.getLogger(__name__)
_EXAMPLES = 5


@dataclass(frozen=True)
class BenchmarkQuestions:
    """What is asked of one benchmark, after what cannot be asked was left out.

    Attributes:
        entries: to score.
        kept: all that the protocol asks, also where an image is missing.
        absent: images that are not there.
        counts, missing, filtered: a part's name to its number of items in the files, items left out because an
            image is missing, items left out by the protocol's filter.
    """

    benchmark: Benchmark
    entries: tuple[Entry, ...]
    kept: tuple[Entry, ...]
    absent: tuple[str, ...]
    counts: Mapping[str, int]
    missing: Mapping[str, int]
    filtered: Mapping[str, int]


def ask(benchmark: Benchmark, root: Path, *, allow_missing: bool) -> BenchmarkQuestions:
    """Read a benchmark's files and leave out what cannot be asked.

    Raises:
        InputError: files are missing or wrong, or of another number of items than published; an image is missing
            without `allow_missing`, or all are.
    """
    if benchmark.prepare is not None:
        benchmark.prepare(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder. For {benchmark.title} it must hold\n{benchmark.layout}")
    entries = list(benchmark.items(root))
    _refuse_repeated(benchmark, entries)
    counts = count_items(entries)
    _check_published(benchmark, root, counts, allow_missing=allow_missing)
    kept = kept_of(entries)
    paths, absent = images_under(root, kept)
    if absent and not allow_missing:
        raise InputError(
            f"{benchmark.title}: {len(absent)} of {len(paths)} images are not under {root}, for example "
            f"{', '.join(sorted(absent)[:_EXAMPLES])}. Put them there"
            f" or score what is there with --allow-missing.\nThe files must lie so:\n{benchmark.layout}"
        )
    there = [left for entry in kept if (left := _without(entry, absent)) is not None]
    if not there:
        lacks = (
            f"none of its {len(paths)} images is"
            if len(absent) == len(paths)
            else (f"every item lacks an image: {len(absent)} of {len(paths)} are not")
        )
        raise InputError(
            f"{benchmark.title}: {lacks} under {root}, for example "
            f"{sorted(absent)[0] if absent else '-'}. The files must lie so:\n{benchmark.layout}"
        )
    kept_counts, there_counts = count_items(kept), count_items(there)
    missing = {part: number - there_counts.get(part, 0) for part, number in kept_counts.items()}
    if absent:
        logger.warning(
            "%s: %d of %d images are missing; %d of %d items are scored. This is not the published benchmark.",
            benchmark.title,
            len(absent),
            len(paths),
            sum(there_counts.values()),
            sum(kept_counts.values()),
        )
    filtered = {part: number - kept_counts.get(part, 0) for part, number in counts.items()}
    return BenchmarkQuestions(benchmark, tuple(there), tuple(kept), tuple(sorted(absent)), counts, missing, filtered)


def _refuse_repeated(benchmark: Benchmark, entries: Iterable[Entry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        name = entry.id if isinstance(entry, PairItem) else f"{entry.benchmark}/{entry.part}"
        if name in seen:
            raise InputError(f"{benchmark.title}: {name!r} stands there twice; names of items must be unique.")
        seen.add(name)


def questions_digest(entries: Iterable[Entry]) -> str:
    """sha256 of all that is asked: results are comparable where it is equal."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(entry.model_dump_json(exclude={"meta"}).encode())
    return digest.hexdigest()


def kept_of(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that the protocol's own filter does not leave out."""
    return [entry for entry in entries if not isinstance(entry, PairItem) or entry.keep]


def images_under(root: Path, entries: Iterable[Entry]) -> tuple[list[str], set[str]]:
    """Paths of all distinct images of the entries, and those of them that are not under the root."""
    paths = list(dict.fromkeys(image.path for image in images_of(entries)))
    return paths, {path for path in paths if not has_picture(root, path)}


def count_items(entries: Iterable[Entry]) -> dict[str, int]:
    """A part's name to its number of items: questions, or images where a part is one classification or retrieval."""
    counts: dict[str, int] = {}
    for entry in entries:
        size = 1 if isinstance(entry, PairItem) else len(entry.images)
        counts[entry.part] = counts.get(entry.part, 0) + size
    return counts


def _check_published(benchmark: Benchmark, root: Path, counts: Mapping[str, int], *, allow_missing: bool) -> None:
    for difference in count_differences(benchmark, root, counts):
        message = f"{benchmark.title}: {difference}"
        if not allow_missing:
            raise InputError(f"{message}. Fetch the files again, or score what is there with --allow-missing.")
        logger.warning("%s.", message)


def count_differences(benchmark: Benchmark, root: Path, counts: Mapping[str, int]) -> list[str]:
    """One phrase for each part that has another number of items than the published one."""
    return [
        f"part {part.name!r} under {root} has {counts.get(part.name, 0)} items, the published one has {part.n}"
        for part in benchmark.parts
        if part.n is not None and counts.get(part.name, 0) != part.n and not (part.optional and part.name not in counts)
    ]


def _without(entry: Entry, absent: set[str]) -> Entry | None:
    """The entry without its absent images; None where nothing is left to ask."""
    if not absent:
        return entry
    there = [index for index, image in enumerate(entry.images) if image.path not in absent]
    if len(there) == len(entry.images):
        return entry
    if isinstance(entry, PairItem) or not there:
        return None
    if isinstance(entry, Classification):
        return entry.only(there)
    new = {old: number for number, old in enumerate(there)}
    left = [
        (text, owners)
        for text, owner in zip(entry.texts, entry.owners, strict=True)
        if (owners := tuple(new[index] for index in owner if index in new))
    ]
    if not left:
        return None
    texts, owners = zip(*left, strict=True)
    return entry.model_copy(update={"images": tuple(entry.images[i] for i in there), "texts": texts, "owners": owners})
