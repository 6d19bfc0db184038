"""Find the items that changed most between a baseline and each other method, ten per method.

`Gallery` gives access to all of them, by benchmark and by whether they were fixed or broken.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

from markupsafe import Markup

from degla.errors import DeglaError, InputError
from degla.evaluation.benchmark import Entry
from degla.evaluation.cells import Method
from degla.evaluation.comparison import Comparison, compare
from degla.evaluation.image_files import SIDE, thumbnail
from degla.evaluation.neutral import declared_by, is_known
from degla.evaluation.questions import digests_of, require_root
from degla.evaluation.results import items_file, load_result, read_items
from degla.pages.table import breakable
from degla.pages.words import counted, signed_cosine
from degla.records import ItemImage, PairItem
from degla.results import ItemVerdict, Result
from degla.shelf import BENCHMARKS

log = logging.getLogger(__name__)
COUNT = 10


@dataclass(frozen=True)
class ItemAnswers:
    """One method's answers to one item, over its seeds.

    Attributes:
        margin: mean lead of the true text over the best false one, a difference of cosines.
        right: number of seeds whose answer is right.
        seeds: number of seeds.
    """

    margin: float
    right: int
    seeds: int

    @property
    def words(self) -> str:
        """The answers over all seeds: "right", "wrong", "right in 3 of 5 seeds"."""
        if self.right in (0, self.seeds):
            return "right" if self.right else "wrong"
        return f"right in {self.right} of {counted(self.seeds, 'seed')}"


@dataclass(frozen=True)
class ItemChange:
    """One item before and after.

    Attributes:
        image: path of its (first) image, relative to the benchmark's root; its own id if it has none.
        images: number of its images; 0 if unknown.
        items_sha256: digest of all questions of its benchmark, as in the results.
        change: change of the margin.
        true, false: texts that are true of the first image, and texts that are not; empty if unknown.
        thumbnail: `data:` URL of a thumbnail; "" if the file was not found.
    """

    id: str
    benchmark: str
    part: str
    image: str
    change: float
    before: ItemAnswers
    after: ItemAnswers
    true: tuple[str, ...] = ()
    false: tuple[str, ...] = ()
    images: int = 0
    thumbnail: str = ""
    items_sha256: str = ""


@dataclass(frozen=True)
class ShownChange:
    """An item as a part of a page; `title` is its benchmark's if the page has several."""

    change: ItemChange
    title: str

    def __html__(self) -> str:
        change, line, stated = self.change, Markup("<p>{}</p>"), Markup('<p dir="auto">{} {}</p>')
        quiet = Markup('<p class="soft">{}</p>')
        img = Markup('<img src="{}" alt="image of {}">').format(change.thumbnail, change.id) if change.thumbnail else ""
        true, false = (
            Markup('<span class="up" title="true">✓</span>'),
            Markup('<span class="down" title="false">✗</span>'),
        )
        lines = [stated.format(true, text) for text in change.true[:3]]
        lines = lines or [line.format(breakable(change.id))]
        lines += [stated.format(false, text) for text in change.false[:3]]
        lines += [quiet.format(f"and {len(change.false) - 3} more")] if len(change.false) > 3 else []
        lines += [quiet.format(f"of the first of {counted(change.images, 'image')}")] if change.images > 1 else []
        margins = (signed_cosine(answers.margin) for answers in (change.before, change.after))
        moved = Markup('<span class="{}">{} → {}</span>').format("up" if change.change > 0 else "down", *margins)
        lines += [line.format(moved), quiet.format(f"{change.before.words} → {change.after.words}")]
        lines.append(quiet.format(breakable(f"{self.title}, {change.part}" if self.title else change.part)))
        return Markup('<div class="card item">{}<div>\n{}\n</div></div>').format(img, Markup("\n").join(lines))

    def markdown(self) -> str:
        """A line of a list."""
        change = self.change
        true = " / ".join(change.true) or change.id
        false = f" (false: {' / '.join(change.false)})" if change.false else ""
        return (
            f"* {change.part}: {true}{false}. Margin {signed_cosine(change.before.margin)} to "
            f"{signed_cosine(change.after.margin)}; {change.before.words}, then {change.after.words}."
        )


@dataclass
class _Tally:
    row: ItemVerdict
    margin: float = 0.0
    right: int = 0
    seeds: int = 0

    def answers(self) -> ItemAnswers:
        return ItemAnswers(self.margin / self.seeds, self.right, self.seeds)


def largest_changes(comparison: Comparison, *, root: Path | None = None) -> dict[str, tuple[ItemChange, ...]]:
    """Return the first `COUNT` of `moved_items`, by method.

    Args:
        root: folder of the benchmarks' files, used to look up texts and images. None: neither is shown.

    Raises:
        InputError: see `moved_items`.
    """
    by_label = {label: changes[:COUNT] for label, changes in moved_items(comparison).items()}
    return by_label if root is None else illustrated(by_label, root)


def moved_items(comparison: Comparison) -> dict[str, tuple[ItemChange, ...]]:
    """Return the items whose margin differs between the baseline and each other method, averaged over seeds.

    The largest change comes first. Retrieval is left out, since its margins are against thousands of texts. Methods
    without verdicts beside their results, or with other questions, are left out too.

    Raises:
        InputError: a file of verdicts is damaged, or belongs to another result.
    """
    base = next((method for method in comparison.methods if method.label == comparison.baseline), None)
    others = [method for method in comparison.methods if method is not base]
    if base is None or not others:
        return {}
    before = _tallies(base)
    by_label: dict[str, tuple[ItemChange, ...]] = {}
    for method in others if before else ():
        alike = _alike(base, method)
        after = _tallies(method)
        changes = (
            replace(_change(before[name], tally), items_sha256=alike[tally.row.benchmark])
            for name, tally in after.items()
            if name in before and tally.row.benchmark in alike
        )
        moved = (change for change in changes if change.change)
        ordered = sorted(moved, key=lambda change: (-abs(change.change), change.id))
        if ordered:
            by_label[method.label] = tuple(ordered)
    return by_label


def _tallies(method: Method) -> dict[str, _Tally]:
    """Id to sums over seeds, of the items that every seed answered; empty where a file of verdicts is not there."""
    tallies: dict[str, _Tally] = {}
    for seed, path in method.paths.items():
        result = method.results[seed]
        own = _own_verdicts(result)
        for row in read_items(path, result) if items_file(path, result).is_file() else ():
            if row.margin is None or any("_to_" in verdict for verdict in row.ok):
                continue
            tally = tallies.setdefault(row.id, _Tally(row))
            tally.margin += row.margin
            # Half credit for a tie is not a right answer.
            tally.right += row.ok.get(own.get((row.benchmark, row.part), ""), next(iter(row.ok.values()), 0.0)) == 1.0
            tally.seeds += 1
    return {name: tally for name, tally in tallies.items() if tally.seeds == len(method.paths)}


def _own_verdicts(result: Result) -> dict[tuple[str, str], str]:
    """Benchmark and part to the verdict that the part's score averages, of the known ones."""
    own: dict[tuple[str, str], str] = {}
    for entry in filter(is_known, result.benchmarks):
        benchmark = declared_by(entry)
        for part in entry.parts:
            with suppress(DeglaError):  # The shelf's has no such part any more.
                own[entry.name, part.name] = benchmark.part(part.name).metrics[0].verdict
    return own


def _alike(first: Method, second: Method) -> dict[str, str]:
    """Benchmarks where all results of both methods answer the same questions, and the digest of these."""
    digests: dict[str, set[str]] = {}
    for result in (*first.results.values(), *second.results.values()):
        for entry in result.benchmarks:
            digests.setdefault(entry.name, set()).add(entry.items_sha256)
    return {name: next(iter(values)) for name, values in digests.items() if len(values) == 1}


def _change(before: _Tally, after: _Tally) -> ItemChange:
    row, was, now = after.row, before.answers(), after.answers()
    return ItemChange(
        id=row.id,
        benchmark=row.benchmark,
        part=row.part,
        image=row.image,
        change=now.margin - was.margin,
        before=was,
        after=now,
        # In a classification the image is the question and the class is the answer.
        true=(row.group["class"],) if "top1" in row.ok and "class" in row.group else (),
        images=1 if "top1" in row.ok else 0,
    )


def illustrated(
    by_name: Mapping[str, Sequence[ItemChange]], root: Path, *, side: int = SIDE
) -> dict[str, tuple[ItemChange, ...]]:
    """Add texts and images to changes, as far as the root folder has them.

    Args:
        by_name: changes, by any name.
        root: folder that holds the benchmarks' files.
        side: largest number of pixels of an image's longer side.

    Raises:
        InputError: there is no such folder, or it is an address.
    """
    require_root(root)
    wanted: dict[tuple[str, str], set[str]] = {}
    for change in (change for changes in by_name.values() for change in changes):
        wanted.setdefault((change.benchmark, change.items_sha256), set()).add(change.id)
    items = {
        (digest, item.id): item for (name, digest), ids in wanted.items() for item in _items(name, digest, ids, root)
    }
    return {
        label: tuple(_illustrate(change, items.get((change.items_sha256, change.id)), root, side) for change in changes)
        for label, changes in by_name.items()
    }


def _items(name: str, digest: str, ids: set[str], root: Path) -> Iterable[PairItem]:
    if name not in BENCHMARKS.names():
        return []
    entries: list[Entry] = []
    try:
        entries.extend(BENCHMARKS.member(name, "BENCHMARK").items(root))
        if digest not in digests_of(entries, root):
            log.warning(
                "The report shows no texts of %s: the files under %s differ from those evaluated. Evaluate again.",
                name,
                root,
            )
            return []
    except InputError as error:
        # Items read before the error are still shown; the report's scores do not need them.
        log.warning("The report cannot show all texts of %s: %s", name, error)
    return [entry for entry in entries if isinstance(entry, PairItem) and entry.id in ids]


def _illustrate(change: ItemChange, item: PairItem | None, root: Path, side: int) -> ItemChange:
    if item is not None and item.images and item.images[0].path != change.image:
        log.warning("%s: the item with this name under %s is about another image.", change.id, root)
        return change
    image = item.images[0] if item is not None and item.images else ItemImage(path=change.image)
    change = replace(change, thumbnail=thumbnail(image, root=root, side=side) or "")
    if item is None:
        return change
    return replace(
        change,
        true=tuple(text for text, gold in zip(item.texts, item.gold[0], strict=True) if gold),
        false=tuple(text for text, gold in zip(item.texts, item.gold[0], strict=True) if not gold),
        images=len(item.images),
    )


Direction = Literal["fixed", "broken", "all"]
"""Wrong before and right after, right before and wrong after, or all whose margin moved."""
DIRECTIONS: Final = get_args(Direction)


class Gallery:
    """All items of results that changed between a baseline and each other method.

    Args:
        results: files of `degla evaluate`.
        baseline: label of the method that the others are compared with; None: that of the first file.
        root: folder of the benchmarks' files, for texts and images; None: neither is shown.

    Attributes:
        baseline: the baseline's label.
        labels: labels of the other methods that answered the same items.
        benchmarks: name to title.

    Raises:
        InputError: see `compare` and `moved_items`; also if there are no results or only one method, or no such root.
    """

    def __init__(self, results: Sequence[Path], *, baseline: str | None = None, root: Path | None = None) -> None:
        if not results:
            raise InputError("no results found. Make some with `degla evaluate BASE TUNED --out results.json`.")
        if root is not None:
            require_root(root)
        self.baseline = baseline or load_result(results[0]).model.label
        self.root = root
        comparison = compare(results, baseline=self.baseline)
        self._moved = moved_items(comparison)
        if not self._moved:
            raise InputError(
                f"no item's margin differs from {self.baseline!r} in these results. Give results of two models "
                "on the same questions, with the .items.jsonl files beside them."
            )
        self.labels = tuple(self._moved)
        there = {change.benchmark for changes in self._moved.values() for change in changes}
        self.benchmarks = {name: title for name, title in comparison.titles.items() if name in there}

    def items(
        self, label: str, *, benchmark: str | None = None, direction: Direction = "all", count: int, side: int
    ) -> tuple[tuple[ItemChange, ...], int]:
        """Return the items whose margin changed most, with texts and images, and the total number of items.

        Args:
            label: of the method.
            benchmark: name; None: all.
            direction: which items.
            count: largest number of items.
            side: largest number of pixels of an image's longer side.
        """
        chosen = [
            change
            for change in self._moved[label]
            if benchmark in (None, change.benchmark) and direction in ("all", _direction(change))
        ]
        first = chosen[:count]
        shown = tuple(first) if self.root is None else illustrated({"": first}, self.root, side=side)[""]
        return shown, len(chosen)


def _direction(change: ItemChange) -> Direction:
    before, after = _is_right(change.before), _is_right(change.after)
    return "all" if before == after else "fixed" if after else "broken"


def _is_right(answers: ItemAnswers) -> bool:
    """Whether more than half of the seeds are right."""
    return 2 * answers.right > answers.seeds
