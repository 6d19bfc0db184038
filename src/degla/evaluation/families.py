"""The bars of a report: each is a row of its tables, so that one page shows one number of one thing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from degla.evaluation.comparison import Comparison, Row, ordered_results
from degla.evaluation.neutral import benchmark_of, members_of
from degla.shelf import BENCHMARKS


@dataclass(frozen=True)
class Family:
    """One family of parts, by the row that sums it up.

    Attributes:
        title: name of the family, and of its place in the benchmark where the family has several.
        row: what the bars show: the column of the first table that has the family's name, else an average of just
            these parts, else the one part.
        parts: the parts that the row is made of.
    """

    title: str
    row: Row
    parts: tuple[Row, ...]


def families(comparison: Comparison) -> list[Family]:
    """Every family that a row of the tables sums up, benchmark by benchmark."""
    found = []
    for name in dict.fromkeys(row.benchmark for row in comparison.rows):
        rows = [row for row in comparison.rows if row.benchmark == name and row.comparable]
        columns = {row.title: row for row in comparison.headline if row.benchmark == name}
        found += list(_families(rows, columns, _members(comparison, name)))
    return found


def _families(rows: Sequence[Row], columns: dict[str, Row], members: dict[str, list[str]]) -> Iterator[Family]:
    parts: dict[str, Row] = {}
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.kind == "part" and row.name not in parts:
            parts[row.name] = row
            place, slash, _ = row.name.partition("/")
            groups.setdefault((row.family, place if slash and place != row.family else ""), []).append(row.name)
    firsts: dict[str, Row] = {}
    for row in rows:
        firsts.setdefault(row.name, row)
    shown: set[str] = set()
    for (family, place), names in groups.items():
        column = columns.get(family)
        if column is not None and column.comparable and family not in shown:
            shown.add(family)
            inside = [name for name in members.get(column.name, [column.name]) if name in parts]
            yield Family(family, column, tuple(parts[name] for name in inside))
            continue
        several = sum(other == family for other, _ in groups) > 1
        title = f"{family}, {place}" if several and place else family
        source = names[0] if len(names) == 1 else _average_of(names, members)
        if source in firsts:
            yield Family(title, firsts[source], tuple(parts[name] for name in names))


def _average_of(names: Sequence[str], members: dict[str, list[str]]) -> str:
    return next((average for average, inside in members.items() if set(inside) == set(names)), "")


def _members(comparison: Comparison, name: str) -> dict[str, list[str]]:
    """Name of each average to the parts that it is made of; empty for a benchmark that is not on the shelf."""
    if name not in BENCHMARKS.names():
        return {}
    results = [result for _, result in ordered_results(comparison.methods)]
    entry = next(entry for result in results for entry in result.benchmarks if entry.name == name)
    benchmark, parts = benchmark_of(entry), [part.name for part in entry.parts]
    return {average.name: members_of(benchmark, average.name, parts) for average in benchmark.averages}
