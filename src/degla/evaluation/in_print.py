"""Scores in print beside the measured ones: a comparison enters, tables of the same parts and averages leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from degla.errors import DeglaError
from degla.evaluation.benchmark import Benchmark
from degla.evaluation.comparison import Comparison, Row, ordered_results
from degla.evaluation.published import PublishedRow, published_tables
from degla.results import PartResult
from degla.shelf import BENCHMARKS


@dataclass(frozen=True)
class PrintedRow:
    """One model of a published table: column to value, 0 to 1, and what a reader must know of it."""

    model: str
    values: dict[str, float]
    note: str


@dataclass(frozen=True)
class PrintedTable:
    """A published table, cut to the parts and averages that were measured here too.

    Attributes:
        source: paper and table, or file.
        setting: how it was measured, as far as that is known.
        columns: names of parts ("part:metric" where it is not the first) and averages.
        measured: column to the row of the comparison that it stands beside.
    """

    benchmark: str
    title: str
    source: str
    setting: str
    columns: tuple[str, ...]
    measured: dict[str, Row]
    rows: tuple[PrintedRow, ...]


def tables_in_print(comparison: Comparison) -> tuple[PrintedTable, ...]:
    """Each published table that shares a part or average with the comparison.

    A part is the published one only where all results have all its items under the benchmark's own tie rule, an
    average only where all parts are.
    """
    found = []
    for table in published_tables():
        measured = _measured(comparison, table.benchmark)
        printed = [_percents(row) for row in table.row]
        columns = tuple(name for name in measured if any(name in row for row in printed))
        rows = tuple(
            PrintedRow(row.model, {name: values[name] / 100 for name in columns if name in values}, _note(row))
            for row, values in zip(table.row, printed, strict=True)
            if any(name in values for name in columns)
        )
        if rows:
            chosen = {name: measured[name] for name in columns}
            found.append(PrintedTable(table.benchmark, table.title, table.source, table.setting, columns, chosen, rows))
    return tuple(found)


def _percents(row: PublishedRow) -> dict[str, float]:
    return row.scores | row.averages


def _note(row: PublishedRow) -> str:
    corrected = ", ".join(f"{name} {value:g}" for name, value in row.misprinted.items())
    return "; ".join(part for part in (row.note, f"printed: {corrected}" if corrected else "") if part)


def _measured(comparison: Comparison, name: str) -> dict[str, Row]:
    """Column of a published table to the measured row that answers the same questions."""
    if name not in BENCHMARKS.names():
        return {}
    benchmark = BENCHMARKS.load(name).BENCHMARK
    parts = list(_parts(comparison, name))
    broken = {part.name for part in parts if not _is_published(benchmark, part)}
    columns: dict[str, Row] = {}
    for row in comparison.rows:
        if row.benchmark != name or row.name in broken or (row.kind == "average" and broken):
            continue
        # The first metric of a part goes by the part's name alone.
        columns.setdefault(row.name, row)
        columns.setdefault(f"{row.name}:{row.metric}", row)
    return columns


def _parts(comparison: Comparison, name: str) -> Iterator[PartResult]:
    for _, result in ordered_results(comparison.methods):
        for entry in result.benchmarks:
            if entry.name == name:
                yield from entry.parts


def _is_published(benchmark: Benchmark, part: PartResult) -> bool:
    """Whether a part was asked as published: every item, no other number of them, the benchmark's own tie rule."""
    try:
        rule = benchmark.part(part.name).tie
    except DeglaError:  # written by another version of the benchmark
        return False
    # A retrieval part counts images and texts, so its number of verdicts is another one.
    whole = part.family == "retrieval" or part.published_n in (None, part.scores[0].n + part.filtered)
    return part.tie == rule and not part.missing and whole
