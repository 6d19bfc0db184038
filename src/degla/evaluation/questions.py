"""Read a benchmark's files under a root folder: what can be scored and what is missing."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from degla.errors import InputError
from degla.evaluation.benchmark import COLUMNS, Benchmark, Classification, Entry
from degla.evaluation.image_files import has_image
from degla.evaluation.verdicts import images_of
from degla.pages.words import counted
from degla.parse import cut_short
from degla.records import PairItem
from degla.remote import address_of, display_path
from degla.shelf import BENCHMARKS

log = logging.getLogger(__name__)
_EXAMPLES = 5
_FEWEST_IMAGES: Final = 20
"""Images that a mean and a standard deviation of similarities need."""
_ALLOW_MISSING = "--allow-missing (in a plan allow_missing; validation during training needs them all)"


@dataclass(frozen=True)
class BenchmarkQuestions:
    """The questions of one benchmark that can be scored.

    Attributes:
        entries: entries to score.
        passing: all entries of the protocol, including those with missing images.
        absent: missing images.
        counts, missing, filtered: by part, the number of items in the files, of items left out because an image is
            missing, and of items left out by the protocol's filter.
    """

    benchmark: Benchmark
    entries: tuple[Entry, ...]
    passing: tuple[Entry, ...]
    absent: tuple[str, ...]
    counts: Mapping[str, int]
    missing: Mapping[str, int]
    filtered: Mapping[str, int]

    @property
    def scored_images(self) -> tuple[str, list[str]]:
        """Name of the benchmark and paths of its scored images, the input of `find_leakage`."""
        return self.benchmark.name, [image.path for image in images_of(self.entries)]

    def only(self, wanted: Callable[[Entry], bool]) -> BenchmarkQuestions:
        """Return the questions restricted to the wanted entries."""
        passing = tuple(filter(wanted, self.passing))
        paths = {image.path for image in images_of(passing)}
        absent = tuple(path for path in self.absent if path in paths)
        return replace(self, entries=tuple(filter(wanted, self.entries)), passing=passing, absent=absent)


def ask(benchmark: Benchmark, root: Path, *, allow_missing: bool) -> BenchmarkQuestions:
    """Read a benchmark's files and leave out what cannot be scored.

    Raises:
        InputError: files are missing or wrong, or their number of items differs from the published one; an image is
            missing without `allow_missing`, or all images are; or no metric has a group that it does not leave out.
    """
    if benchmark.prepare is not None:
        benchmark.prepare(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder. Expected layout for {benchmark.title}:\n{benchmark.layout}")
    counts, passing = checked_entries(benchmark, root)
    _check_published(benchmark, root, counts, allow_missing=allow_missing)
    paths, absent = find_images(root, passing)
    if absent and not allow_missing:
        raise InputError(
            f"{benchmark.title}: {len(absent):,} of {counted(len(paths), 'image is', 'images are')} not under "
            f"{root}, for example "
            f"{', '.join(sorted(absent)[:_EXAMPLES])}. Put them there,"
            f" or score only the others with {_ALLOW_MISSING}.\nExpected layout:\n{benchmark.layout}"
        )
    there = _without_absent(passing, absent)
    if not there:
        lacks = f"every item lacks an image: {len(absent)} of {len(paths)} are not"
        if len(absent) == len(paths):
            lacks = f"none of its {counted(len(paths), 'image')} is"
        raise InputError(
            f"{benchmark.title}: {lacks} under {root}, for example "
            f"{sorted(absent)[0]}. Expected layout:\n{benchmark.layout}"
        )
    passing_counts, there_counts = count_items(passing), count_items(there)
    missing = {part: number - there_counts.get(part, 0) for part, number in passing_counts.items()}
    if absent:
        log.warning(
            "%s: %s of %s missing; %s of %s scored. This is not the published benchmark.",
            benchmark.title,
            f"{len(absent):,}",
            counted(len(paths), "image is", "images are"),
            f"{sum(there_counts.values()):,}",
            counted(sum(passing_counts.values()), "item is", "items are"),
        )
    if _leaves_all_out(benchmark, there):
        raise no_score(benchmark)
    filtered = {part: number - passing_counts.get(part, 0) for part, number in counts.items()}
    return BenchmarkQuestions(benchmark, tuple(there), tuple(passing), tuple(sorted(absent)), counts, missing, filtered)


def checked_entries(benchmark: Benchmark, root: Path) -> tuple[dict[str, int], list[Entry]]:
    """Return the number of items of each part of a benchmark's files, and the entries that pass the protocol's filter.

    Raises:
        InputError: files are missing or wrong, hold no question that passes the protocol's filter, or give two items
            one name, an item that of another benchmark, or a part that of a column.
    """
    items: Any = benchmark.items(root)
    several = isinstance(items, Iterable) or hasattr(items, "__getitem__")  # A data set of torch has only the latter.
    entries: list[Any] = list(items) if several else [items]
    if odd := [entry for entry in entries if not isinstance(entry, Entry)]:
        raise InputError(
            f"benchmark {benchmark.name!r}: items must return or yield PairItem, Classification or Retrieval; got "
            f"{cut_short(repr(odd[0]), 80)}."
        )
    _check_names(benchmark, entries)
    counts, passing = count_items(entries), passing_entries(entries)
    _refuse_columns(benchmark, root, counts)
    if not passing:
        raise InputError(f"{benchmark.title}: the files under {root} hold no question to ask.")
    return counts, passing


def _leaves_all_out(benchmark: Benchmark, entries: Iterable[Entry]) -> bool:
    """Whether the metrics leave out every group; of pairs only, as other questions get theirs when they are scored."""
    parts: dict[str, list[Entry]] = {}
    for entry in entries:
        parts.setdefault(entry.part, []).append(entry)
    for name, members in parts.items():
        pairs = [entry for entry in members if isinstance(entry, PairItem)]
        for metric in benchmark.part(name).metrics:
            if not metric.group or len(pairs) < len(members):
                return False
            if metric.counted_groups(pair.group.get(metric.group, "") for pair in pairs):
                return False
    return True


def count_images(entries: Iterable[Entry]) -> int:
    """Return the number of different images of entries."""
    return len(set(images_of(entries)))


def require_images(title: str, images: int) -> None:
    """Raise InputError if a benchmark of so many images has too few for standardised scores."""
    if images < _FEWEST_IMAGES:
        raise InputError(
            f"{title}: standardised scores need a mean over at least {_FEWEST_IMAGES} images; it "
            f"has {images}. Omit the benchmark, or score by cosine."
        )


def require_entries(
    every: Iterable[BenchmarkQuestions], wanted: Callable[[Entry], bool], *, lack: str
) -> list[BenchmarkQuestions]:
    """Return the questions of benchmarks after checking that each has an entry that is wanted.

    Raises:
        InputError: a benchmark has none; `lack` is what the message says of it: "has no ...".
    """
    every = list(every)
    for questions in every:
        if not any(map(wanted, questions.entries)):
            raise InputError(f"{questions.benchmark.title}: {lack}")
    return every


def no_score(benchmark: Benchmark) -> InputError:
    """Return the error of a benchmark whose metrics leave out every group."""
    return InputError(
        f"{benchmark.title}: no part has a score: their metrics leave out every group (`minimum`, `exclude`)."
    )


def _check_names(benchmark: Benchmark, entries: Iterable[Entry]) -> None:
    names: set[str] = set()
    for entry in entries:
        name = entry.id if isinstance(entry, PairItem) else f"{entry.benchmark}/{entry.part}"
        if name in names:
            raise InputError(f"{benchmark.title}: {name!r} occurs twice. Item names must be unique.")
        if entry.benchmark != benchmark.name:  # Verdicts are looked up by it.
            raise InputError(
                f"{benchmark.title}: {name!r} is of benchmark {entry.benchmark!r}. Give its items the name "
                f"{benchmark.name!r}."
            )
        names.add(name)


def _refuse_columns(benchmark: Benchmark, root: Path, parts: Iterable[str]) -> None:
    """Reject a user's part whose name is already that of a column or average."""
    columns = {*COLUMNS, *(average.name for average in benchmark.averages)} - {part.name for part in benchmark.parts}
    for name in columns.intersection(parts):
        raise InputError(
            f"{benchmark.title}: a part under {root} is called {name!r}, which is also the name of a column or an "
            "average. Rename the file, the folder or the field 'part' that gives it this name."
        )


def questions_digest(entries: Iterable[Entry]) -> str:
    """Return the sha256 of all questions: results are comparable if it is equal."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(entry.model_dump_json(exclude={"meta"}).encode())
    return digest.hexdigest()


def passing_entries(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that pass the protocol's own filter."""
    return [entry for entry in entries if not isinstance(entry, PairItem) or entry.keep]


def find_images(root: Path, entries: Iterable[Entry]) -> tuple[list[str], set[str]]:
    """Return the paths of all distinct images of the entries, and those that are not under the root."""
    paths = list(dict.fromkeys(image.path for image in images_of(entries)))
    return paths, {path for path in paths if not has_image(root, path)}


def count_items(entries: Iterable[Entry]) -> dict[str, int]:
    """Count the items of each part: questions, or images if the part is one classification or retrieval."""
    counts: Counter[str] = Counter()
    for entry in entries:
        counts[entry.part] += 1 if isinstance(entry, PairItem) else len(entry.images)
    return counts


def _check_published(benchmark: Benchmark, root: Path, counts: Mapping[str, int], *, allow_missing: bool) -> None:
    for difference in differing_counts(benchmark, root, counts):
        message = f"{benchmark.title}: {difference}"
        if not allow_missing:
            raise InputError(f"{message}. Fetch the files again, or score them as they are with {_ALLOW_MISSING}.")
        log.warning("%s.", message)


def differing_counts(benchmark: Benchmark, root: Path, counts: Mapping[str, int]) -> list[str]:
    """Return one phrase for each part whose number of items differs from the published one."""
    return [
        f"part {part.name!r} under {root} has {counted(counts.get(part.name, 0), 'item')}, the published one has "
        f"{part.n:,}"
        for part in benchmark.parts
        if part.n is not None and counts.get(part.name, 0) != part.n and not (part.optional and part.name not in counts)
    ]


def digests_of(entries: Iterable[Entry], root: Path) -> Iterator[str]:
    """Yield the `questions_digest` of results on these entries: of all, and of those whose images exist."""
    passing = passing_entries(entries)
    yield questions_digest(passing)
    yield questions_digest(_without_absent(passing, find_images(root, passing)[1]))


def without_missing_images(entry: Classification, root: Path, *, title: str, allow: bool) -> Classification:
    """Return the entry without images that are not under the root.

    Args:
        entry: images and their classes.
        root: folder that image paths are relative to.
        title: what the images are, for messages.
        allow: leave some out, with a warning.

    Raises:
        InputError: images are missing, and it is not allowed or none is left.
    """
    paths, absent = find_images(root, [entry])
    if not absent:
        return entry
    lack = (
        f"{title}: {len(absent):,} of {counted(len(paths), 'image is', 'images are')} not under {root}, for example "
        f"{', '.join(sorted(absent)[:_EXAMPLES])}"
    )
    left = _without(entry, absent)
    if not allow or not isinstance(left, Classification):
        raise InputError(f"{lack}. Put them there{f', or use only the others with {_ALLOW_MISSING}' * bool(left)}.")
    log.warning("%s. The others are used.", lack)
    return left


def _without_absent(entries: Iterable[Entry], absent: set[str]) -> list[Entry]:
    return [present for entry in entries if (present := _without(entry, absent)) is not None]


def _without(entry: Entry, absent: set[str]) -> Entry | None:
    """The entry without its absent images; None if nothing is left."""
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
    pairs = [
        (text, owners)
        for text, owner in zip(entry.texts, entry.owners, strict=True)
        if (owners := tuple(new[index] for index in owner if index in new))
    ]
    if not pairs:
        return None
    texts, owners = zip(*pairs, strict=True)
    return entry.model_copy(update={"images": tuple(entry.images[i] for i in there), "texts": texts, "owners": owners})


LOCAL_ONLY: Final = "benchmarks are read from a local folder. Copy their files to one"


def require_local(root: Path) -> None:
    """Raise InputError if the folder of the benchmarks' data is an address."""
    if address_of(root) is not None:
        raise InputError(f"{display_path(root)}: {LOCAL_ONLY}.")


def require_root(root: Path) -> None:
    """Raise InputError if the folder of the benchmarks' data is an address or does not exist."""
    require_local(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of the benchmarks' data. Give the one that holds their files.")


def absent_benchmarks(names: Iterable[str], root: Path) -> list[Benchmark]:
    """Return the benchmarks of which `root` has none of the folders with their files; what is drawn needs none yet."""
    benchmarks = (BENCHMARKS.member(name, "BENCHMARK") for name in names)
    return [
        benchmark
        for benchmark in benchmarks
        if benchmark.prepare is None
        and not any(any(root.glob(Path(pattern).parts[0])) for pattern in benchmark.annotations or ("*",))
    ]


def require_files(names: Iterable[str], root: Path) -> None:
    """Raise InputError if the folder of the benchmarks' data does not exist, or has no files of one of them."""
    require_root(root)
    for benchmark in absent_benchmarks(names, root):
        raise InputError(f"{root}: has no files of {benchmark.title}. Expected layout:\n{benchmark.layout}")
