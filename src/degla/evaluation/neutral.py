"""Which parts of a benchmark the texts alone tell, and what is left of its averages without them.

A part is told where one of the floors of `text_floors` is right more than ten points above chance: above 60 % where
chance is 50. The items decide that, no model does. Told parts do not count in the columns of a report's first table;
every average that they are in stays under its own name, and has a twin without them, NAME.neutral.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from statistics import fmean

from degla.evaluation.aggregate import Scores, aggregate
from degla.evaluation.benchmark import Average, Benchmark, Entry
from degla.evaluation.cache import Cache
from degla.evaluation.choice import require_score
from degla.evaluation.text_floors import COMPARED, TOLD, floor_verdicts
from degla.evaluation.verdicts import Judged
from degla.records import PairItem
from degla.results import BenchmarkResult, Score
from degla.shelf import BENCHMARKS
from degla.statistics.proportions import proportion_interval

MARGIN = 0.10
"""Above chance; more than that tells a part."""
_NEUTRAL, _TOLD_SCORE = ".neutral", "told"
"""End of the name of a twin; name of the average of the told parts."""
_SURE = 0.99
"""Level of the interval that must leave chance below it: three right of four say nothing."""
_found: dict[Hashable, TextFloors] = {}
"""What this process has found: a run is evaluated many times on the same items."""


@dataclass(frozen=True)
class TextFloors:
    """What the floors get on one benchmark.

    Attributes:
        told: name of each told part to the floors that tell it.
        benchmark: with the averages and columns that this leaves.
        values: floor to its scores.
    """

    told: Mapping[str, tuple[str, ...]]
    benchmark: Benchmark
    values: Mapping[str, Scores]

    def beside(self, score: Score) -> Score:
        """The score with the floors' values on the same questions."""
        found = {
            floor: other.value
            for floor, scores in self.values.items()
            for other in (*(row for rows in scores.parts.values() for row in rows), *scores.averages)
            if (other.name, other.metric) == (score.name, score.metric)
        }
        return score.model_copy(update={"floors": found})

    def put_into(self, entry: BenchmarkResult, scores: Scores) -> BenchmarkResult:
        """The entry with these scores, each beside its floors, and the columns that the told parts leave."""
        parts = tuple(
            part.model_copy(update={"scores": tuple(map(self.beside, scores.parts[part.name]))}) for part in entry.parts
        )
        averages = tuple(map(self.beside, scores.averages))
        known = {part.name for part in parts} | {average.name for average in averages}
        headline = {column: name for column, name in self.benchmark.headline.items() if name in known}
        return entry.model_copy(update={"parts": parts, "averages": averages, "headline": headline})


def find_floors(benchmark: Benchmark, entries: Iterable[Entry], cache: Cache | None = None) -> TextFloors:
    """Let the floors answer a benchmark, once in a process for the same items.

    Args:
        benchmark: as its file declares it.
        entries: all of its items, also those whose image is missing: the floors are the texts' own.
        cache: keeps what takes more than a moment.
    """
    entries = list(entries)
    items = [entry for entry in entries if isinstance(entry, PairItem)]
    asked = hash(tuple((item.part, item.images[:1] and item.images[0].path, item.texts, item.gold) for item in items))
    key = (
        benchmark.parts,
        benchmark.averages,
        benchmark.floors,
        tuple(benchmark.headline.items()),
        asked,
        len(entries),
    )
    if key not in _found:
        _found[key] = _find(benchmark, entries, cache)
    return _found[key]


def _find(benchmark: Benchmark, entries: Sequence[Entry], cache: Cache | None) -> TextFloors:
    verdicts = floor_verdicts(
        [entry for entry in entries if isinstance(entry, PairItem)], cache, further=benchmark.floors
    )
    told: dict[str, tuple[str, ...]] = {}
    parts = list(dict.fromkeys(entry.part for entry in entries))
    for part in parts:
        metric = benchmark.part(part).metrics[0]
        for floor, rows in verdicts.items():
            if floor != COMPARED and _tells([row for row in rows if row.verdict.part == part], metric.verdict):
                told[part] = (*told.get(part, ()), floor)
    cut = without(benchmark, told, parts)
    return TextFloors(told, cut, {floor: aggregate(cut, rows, draws=1) for floor, rows in verdicts.items() if rows})


def _tells(rows: Sequence[Judged], verdict: str) -> bool:
    known = [row for row in rows if verdict in row.verdict.ok and verdict in row.chance]
    if not known:
        return False
    # A sum: 31 / 43 of 43 items are a bit fewer than 31 where shares are rounded.
    right = math.fsum(row.verdict.ok[verdict] for row in known)
    chance = fmean(row.chance[verdict] for row in known)
    sure = proportion_interval(int(right), len(known), level=_SURE).low > chance
    return right / len(known) > chance + MARGIN and sure


def benchmark_of(result: BenchmarkResult) -> Benchmark:
    """The benchmark of a result as the shelf has it, with the averages that the result's floors leave."""
    benchmark: Benchmark = BENCHMARKS.load(result.name).BENCHMARK
    return without(benchmark, result.told, list(dict.fromkeys([*(part.name for part in result.parts), *result.told])))


def without(benchmark: Benchmark, told: Collection[str], parts: Sequence[str]) -> Benchmark:
    """The benchmark with a twin of each average that told parts are in, and columns that hold no told part.

    Args:
        benchmark: as its file declares it.
        told: names of parts.
        parts: names of all parts that are asked.
    """
    if not told:
        return benchmark
    cuts: dict[str, Average | None] = {}
    for average in _due(benchmark, parts):
        cuts[average.name] = _cut(average, cuts, told, parts)
    columns: dict[str, str] = {}
    apart: dict[str, None] = {}
    for column, source in benchmark.headline.items():
        members = [name for name in members_of(benchmark, source, parts) if name in told]
        apart |= dict.fromkeys(members)
        left = cuts.get(source)
        if not members:
            columns[column] = source
        elif left is not None:
            columns[column] = left.name
    twins = [cut for name, cut in cuts.items() if cut is not None and cut.name != name]
    if len(apart) > 1:
        twins.append(Average(name=_TOLD_SCORE, of=tuple(apart)))
    if apart:
        # Behind the column that they were taken from.
        place = 1 if "composition" in columns else 0
        ordered = list(columns.items())
        ordered.insert(place, (TOLD, _TOLD_SCORE if len(apart) > 1 else next(iter(apart))))
        columns = dict(ordered)
    return replace(benchmark, averages=(*benchmark.averages, *twins), headline=columns)


def _due(benchmark: Benchmark, parts: Sequence[str]) -> list[Average]:
    """The averages that fill columns, what those are made of, and averages of none of their parts.

    Other averages of the same parts are the official ones in other forms: twins of all of them would tell nothing new.
    """
    due = set(benchmark.headline.values())
    for average in reversed(benchmark.averages):
        due |= set(average.of) if average.name in due else set()
    shown = {part for source in benchmark.headline.values() for part in members_of(benchmark, source, parts)}
    return [
        average
        for average in benchmark.averages
        if average.name in due or not shown & set(members_of(benchmark, average.name, parts))
    ]


def present_averages(benchmark: Benchmark, parts: Collection[str]) -> list[str]:
    """Names of the averages that are made of these parts; one that lacks any of its own is not made."""
    made: list[str] = []
    for average in benchmark.averages:
        measured = [
            part for part in parts if average.metric in ("", *(each.name for each in benchmark.part(part).metrics))
        ]
        if all(average.members(measured, made)):
            made.append(average.name)
    return made


def score_names(benchmark: Benchmark, parts: Collection[str]) -> list[str]:
    """Names of the columns, parts and averages that a result of these parts has, as `terminal.named_scores`."""
    falling = {metric.name for part in benchmark.parts for metric in part.metrics if metric.lower}
    less = {average.name for average in benchmark.averages if average.metric in falling}
    averages = [name for name in present_averages(benchmark, parts) if name not in less]
    columns = [
        column
        for column, source in benchmark.headline.items()
        if source in averages or any(fnmatchcase(part, source) for part in parts)
    ]
    return [*columns, *parts, *averages]


def require_declared(wanted: Iterable[tuple[str, str]], names: Collection[str]) -> None:
    """Refuse names of scores that the benchmarks declare none of, before anything is measured.

    Which scores told parts leave and make, the floors decide: names of such are let through here.

    Args:
        wanted: where a score is named, as messages say it, and its name.
        names: as `score_names` gives them.

    Raises:
        InputError: there is no such score.
    """
    for place, name in wanted:
        if not name.endswith(_NEUTRAL) and name not in (TOLD, _TOLD_SCORE):
            require_score(place, name, names)


def members_of(benchmark: Benchmark, name: str, parts: Sequence[str]) -> list[str]:
    """Names of the parts that a part or an average is made of."""
    average = next((average for average in benchmark.averages if average.name == name), None)
    if average is None:
        return [part for part in parts if part == name]
    earlier = {other.name for other in benchmark.averages[: benchmark.averages.index(average)]}
    found: dict[str, None] = {}
    for pattern, names in zip(average.of, average.members(parts, earlier), strict=True):
        found |= dict.fromkeys(members_of(benchmark, pattern, parts) if pattern in earlier else names)
    return list(found)


def _cut(
    average: Average, cuts: Mapping[str, Average | None], told: Collection[str], parts: Sequence[str]
) -> Average | None:
    """The average without told parts: itself where there are none, None where nothing is left."""
    left: list[str] = []
    for pattern, fitting in zip(average.of, average.members(parts, cuts), strict=True):
        if pattern in cuts:
            cut = cuts[pattern]
            left += [cut.name] if cut is not None else []
            continue
        neutral = [part for part in fitting if part not in told]
        left += [pattern] if neutral == fitting else neutral
    if not left:
        return None
    return average if tuple(left) == average.of else replace(average, name=f"{average.name}{_NEUTRAL}", of=tuple(left))
