"""Find the parts of a benchmark that can be solved from the texts only, and compute its averages without them.

A part is text-solvable if one of the floors of `text_floors` scores more than ten points above chance: above 60 % if
chance is 50. This depends only on the items, not on a model. Text-solvable parts do not count in the columns of a
report's first table; every average with text-solvable parts keeps its name and gets a twin without them, NAME.neutral.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from statistics import fmean

from degla.evaluation.aggregate import Scores, aggregate
from degla.evaluation.benchmark import Average, Benchmark, BenchmarkPart, Entry, TieRule
from degla.evaluation.cache import Cache
from degla.evaluation.choice import require_score
from degla.evaluation.text_floors import COMPARED, TEXT_SOLVABLE, floor_verdicts
from degla.evaluation.verdicts import Judged, order_blind
from degla.records import PairItem, Record, validate
from degla.results import BenchmarkResult, Score
from degla.shelf import BENCHMARKS
from degla.statistics.proportions import proportion_interval

MARGIN = 0.10
"""A part is text-solvable if a floor exceeds chance by more than this."""
_NEUTRAL, _SOLVABLE_SCORE = ".neutral", "text_solvable"
"""Suffix of a twin's name; name of the average of the text-solvable parts."""
_SURE = 0.99
"""Level of the interval that must be above chance: three of four right prove nothing."""
_floors: dict[Hashable, TextFloors] = {}
"""Results of this process: a run is evaluated many times on the same items."""


@dataclass(frozen=True)
class TextFloors:
    """Scores of the floors on one benchmark.

    Attributes:
        text_solvable: name of each text-solvable part to the floors that solve it.
        benchmark: the benchmark with neutral averages and columns.
        values: floor to its scores.
        ceiling: scores of the best model that ignores word order; None if the benchmark has no pairs.
    """

    text_solvable: Mapping[str, tuple[str, ...]]
    benchmark: Benchmark
    values: Mapping[str, Scores]
    ceiling: Scores | None

    def with_floors(self, score: Score) -> Score:
        """Return the score with the floors' values and the order-blind ceiling on the same questions."""
        floors = {floor: value for floor, scores in self.values.items() for value in _values_of(score, scores)}
        ceiling = None if self.ceiling is None or score.lower else next(_values_of(score, self.ceiling), None)
        return score.model_copy(update={"floors": floors, "ceiling": ceiling})

    def put_into(self, entry: BenchmarkResult, scores: Scores) -> BenchmarkResult:
        """Return the entry with these scores, their floors, the parts that floors solve, and columns without those."""
        parts = tuple(
            part.model_copy(update={"scores": tuple(map(self.with_floors, scores.parts[part.name]))})
            for part in entry.parts
        )
        averages = tuple(map(self.with_floors, scores.averages))
        names = {part.name for part in parts} | {average.name for average in averages}
        headline = {column: name for column, name in self.benchmark.headline.items() if name in names}
        update = {"text_solvable": dict(self.text_solvable), "parts": parts, "averages": averages, "headline": headline}
        return entry.model_copy(update=update)


def _values_of(score: Score, scores: Scores) -> Iterator[float]:
    for other in (*(row for rows in scores.parts.values() for row in rows), *scores.averages):
        if (other.name, other.metric) == (score.name, score.metric):
            yield other.value


def find_floors(
    benchmark: Benchmark, entries: Iterable[Entry], cache: Cache | None = None, *, tie: TieRule | None = None
) -> TextFloors:
    """Score a benchmark with the floors, once per process for the same items.

    Args:
        benchmark: as its file declares it.
        entries: all of its items, including those with a missing image, since floors use only texts.
        cache: keeps results that take long to compute.
        tie: overrides the benchmark's tie rules, which the order-blind ceiling depends on.
    """
    entries = list(entries)
    items = [entry for entry in entries if isinstance(entry, PairItem)]
    digest = hash(tuple((item.part, item.images[:1] and item.images[0].path, item.texts, item.gold) for item in items))
    about = repr((benchmark.parts, benchmark.averages, benchmark.floors, benchmark.headline))
    key = (about, digest, len(entries), tie)
    if key not in _floors:
        _floors[key] = _find(benchmark, entries, cache, tie)
    return _floors[key]


def _find(benchmark: Benchmark, entries: Sequence[Entry], cache: Cache | None, tie: TieRule | None) -> TextFloors:
    pairs = [entry for entry in entries if isinstance(entry, PairItem)]
    verdicts = floor_verdicts(pairs, cache, further=benchmark.floors)
    floors_of: dict[str, tuple[str, ...]] = {}
    parts = list(dict.fromkeys(entry.part for entry in entries))
    for part in parts:
        metric = benchmark.part(part).metrics[0]
        for floor in verdicts:
            own = [row for row in verdicts[floor] if row.verdict.part == part]
            if floor != COMPARED and _is_solved_by(own, metric.verdict):
                floors_of[part] = (*floors_of.get(part, ()), floor)
    cut = without_solvable(benchmark, floors_of, parts)
    # Verdicts are freed as soon as they are averaged: with many items they need more memory than all else.
    values = {floor: aggregate(cut, verdicts.pop(floor), draws=1) for floor in list(verdicts) if verdicts[floor]}
    ceiling = aggregate(cut, order_blind(cut, pairs, tie=tie), draws=1) if pairs else None
    return TextFloors(floors_of, cut, values, ceiling)


def _is_solved_by(rows: Sequence[Judged], verdict: str) -> bool:
    usable = [row for row in rows if verdict in row.verdict.ok and verdict in row.chance]
    if not usable:
        return False
    # A sum, since 31 / 43 of 43 items is slightly less than 31 after rounding.
    right = math.fsum(row.verdict.ok[verdict] for row in usable)
    chance = fmean(row.chance[verdict] for row in usable)
    sure = proportion_interval(int(right), len(usable), level=_SURE).low > chance
    return right / len(usable) > chance + MARGIN and sure


class Declared(Record, extra="ignore"):
    """What a benchmark object of the user's own declares; a report has no file to read it from.

    Fields that subclasses add to a part, a metric or an average are left out.
    """

    parts: tuple[BenchmarkPart, ...]
    averages: tuple[Average, ...]
    headline: dict[str, str]

    @classmethod
    def by(cls, benchmark: Benchmark) -> Declared:
        """Return a benchmark's declarations; fields that are lists become tuples.

        Raises:
            InputError: a field has the wrong type or an impossible value.
        """
        parts, averages = (list(map(asdict, each)) for each in (benchmark.parts, benchmark.averages))
        fields = {"parts": parts, "averages": averages, "headline": benchmark.headline}
        return validate(cls, fields, where=f"benchmark {benchmark.name!r}")


def is_known(result: BenchmarkResult) -> bool:
    """Whether the benchmark of a result is on the shelf, or declared in the result."""
    return result.declared is not None or result.name in BENCHMARKS.names()


def declared_by(result: BenchmarkResult) -> Benchmark:
    """Return the benchmark of a result; one that was an object without its questions.

    Raises:
        InputError: it is not known, or its declaration is damaged.
    """
    if result.declared is not None:
        declared = validate(Declared, result.declared, where=f"results of {result.title}: declared")
        return Benchmark(name=result.name, title=result.title, items=lambda root: (), **dict(declared))
    benchmark: Benchmark = BENCHMARKS.member(result.name, "BENCHMARK")
    return benchmark


def benchmark_of(result: BenchmarkResult) -> Benchmark:
    """Return the benchmark of a result with the neutral averages of the result's floors; raises as `declared_by`."""
    benchmark = declared_by(result)
    names = dict.fromkeys([*(part.name for part in result.parts), *result.text_solvable])
    return without_solvable(benchmark, result.text_solvable, list(names))


def without_solvable(benchmark: Benchmark, solvable_parts: Collection[str], parts: Sequence[str]) -> Benchmark:
    """Return the benchmark with columns without text-solvable parts, and a twin of each average that includes some.

    Args:
        benchmark: as its file declares it.
        solvable_parts: names of text-solvable parts.
        parts: names of all scored parts.
    """
    if not solvable_parts:
        return benchmark
    cuts: dict[str, Average | None] = {}
    for average in _averages_to_cut(benchmark, parts):
        cuts[average.name] = _cut(average, cuts, solvable_parts, parts)
    columns: dict[str, str] = {}
    apart: dict[str, None] = {}
    for column, source in benchmark.headline.items():
        members = [name for name in members_of(benchmark, source, parts) if name in solvable_parts]
        apart |= dict.fromkeys(members)
        twin = cuts.get(source)
        if not members:
            columns[column] = source
        elif twin is not None:
            columns[column] = twin.name
    twins = [cut for name, cut in cuts.items() if cut is not None and cut.name != name]
    if len(apart) > 1:
        twins.append(Average(name=_SOLVABLE_SCORE, of=tuple(apart)))
    if apart:
        # After the column that they were removed from.
        place = 1 if "composition" in columns else 0
        ordered = list(columns.items())
        ordered.insert(place, (TEXT_SOLVABLE, _SOLVABLE_SCORE if len(apart) > 1 else next(iter(apart))))
        columns = dict(ordered)
    return replace(benchmark, averages=(*benchmark.averages, *twins), headline=columns)


def _averages_to_cut(benchmark: Benchmark, parts: Sequence[str]) -> list[Average]:
    """The averages that fill columns, their members, and averages of none of their parts.

    Other averages of the same parts are official ones in other forms; twins of them would add nothing.
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
    """Return the names of the averages whose parts are all among these."""
    names: list[str] = []
    for average in benchmark.averages:
        measured = [
            part for part in parts if average.metric in ("", *(each.name for each in benchmark.part(part).metrics))
        ]
        if all(average.members(measured, names)):
            names.append(average.name)
    return names


def score_names(benchmark: Benchmark, parts: Collection[str]) -> list[str]:
    """Names of the columns, parts and averages that a result of these parts has, as `terminal.named_scores`."""
    falling = {metric.name for part in benchmark.parts for metric in part.metrics if metric.lower}
    rising = [part for part in parts if not benchmark.part(part).metrics[0].lower]
    less = {
        average.name
        for average in benchmark.averages
        if average.metric in falling
        or (not average.metric and not {*members_of(benchmark, average.name, list(parts))}.intersection(rising))
    }
    averages = [name for name in present_averages(benchmark, parts) if name not in less]
    columns = [
        column
        for column, source in benchmark.headline.items()
        if source in averages or any(fnmatchcase(part, source) for part in rising)
    ]
    return [*columns, *rising, *averages]


def require_declared(wanted: Iterable[tuple[str, str]], names: Collection[str]) -> None:
    """Reject names of scores that no benchmark declares, before anything is measured.

    Scores that depend on text-solvable parts are known only after the floors were scored; their names pass here.

    Args:
        wanted: where a score is named, for messages, and its name.
        names: from `score_names`.

    Raises:
        InputError: there is no such score.
    """
    for place, name in wanted:
        if not name.endswith(_NEUTRAL) and name not in (TEXT_SOLVABLE, _SOLVABLE_SCORE):
            require_score(place, name, names)


def members_of(benchmark: Benchmark, name: str, parts: Sequence[str]) -> list[str]:
    """Return the names of the parts in a part or an average."""
    average = next((average for average in benchmark.averages if average.name == name), None)
    if average is None:
        return [part for part in parts if part == name]
    earlier = {other.name for other in benchmark.averages[: benchmark.averages.index(average)]}
    members: dict[str, None] = {}
    for pattern, names in zip(average.of, average.members(parts, earlier), strict=True):
        members |= dict.fromkeys(members_of(benchmark, pattern, parts) if pattern in earlier else names)
    return list(members)


def _cut(
    average: Average, cuts: Mapping[str, Average | None], solvable_parts: Collection[str], parts: Sequence[str]
) -> Average | None:
    """The average without text-solvable parts: itself if it has none, None if nothing is left."""
    remaining: list[str] = []
    for pattern, fitting in zip(average.of, average.members(parts, cuts), strict=True):
        if pattern in cuts:
            cut = cuts[pattern]
            remaining += [cut.name] if cut is not None else []
            continue
        neutral = [part for part in fitting if part not in solvable_parts]
        remaining += [pattern] if neutral == fitting else neutral
    if not remaining:
        return None
    of = tuple(remaining)
    return average if of == average.of else replace(average, name=f"{average.name}{_NEUTRAL}", of=of)
