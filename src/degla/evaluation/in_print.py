"""Published scores: tables of the DeGLA paper with their errata, and reference values of OpenAI's weights.

They were measured by others, with other code and often another activation function; label them so beside your own
scores. Of each table, the parts and averages that a comparison measured too are shown. Results of mteb are read
from its result files and shown in a separate section.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import isnan
from pathlib import Path

from pydantic import Field

from degla.errors import DeglaError, InputError
from degla.evaluation.benchmark import Benchmark
from degla.evaluation.cells import Row, entries_of
from degla.evaluation.comparison import Comparison
from degla.pages.page import Part, Section
from degla.pages.table import Column, Table, TableRow
from degla.pages.words import percent
from degla.parse import read_json_object
from degla.records import Record, validate
from degla.results import PartResult
from degla.shelf import BENCHMARKS

_FOLDER = "published_tables"
Percents = dict[str, float]


class PublishedRow(Record):
    """One model's scores, in percent, with printing errors corrected.

    Attributes:
        model: the method's name in the table.
        scores: name of a part, or of an average that stands for a printed column, to its score. If a part has
            several metrics, its name means the first; another one is named "part:metric".
        averages: name of an average of the benchmark to its value as printed, or as computed from its columns.
        misprinted: the printed values where `scores` or `averages` differ from them.
        note: remark for readers, or "".
    """

    model: str = Field(min_length=1)
    scores: Percents
    averages: Percents = Field(default_factory=dict)
    misprinted: Percents = Field(default_factory=dict)
    note: str = ""

    @property
    def percents(self) -> Percents:
        """All scores, of parts and of averages."""
        return self.scores | self.averages

    @property
    def remark(self) -> str:
        """The note, and the misprinted values."""
        printed = ", ".join(f"{name} {value:g}" for name, value in self.misprinted.items())
        return "; ".join(filter(None, (self.note, printed and f"printed: {printed}")))


class PublishedTable(Record):
    """One table.

    Attributes:
        title: what was measured.
        benchmark: name on the shelf.
        source: paper and table, or file.
        setting: how it was measured, as far as known.
        row: one per model.
    """

    title: str
    benchmark: str
    source: str
    setting: str
    row: tuple[PublishedRow, ...] = Field(min_length=1)


class _File(Record):
    table: tuple[PublishedTable, ...] = Field(min_length=1)


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """Return all tables, sorted by file name."""
    folder = resources.files("degla.evaluation") / _FOLDER
    tables: list[PublishedTable] = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            content = tomllib.loads(file.read_text(encoding="utf-8"))
            tables += validate(_File, content, where=f"{_FOLDER}/{file.name}").table
    return tuple(tables)


@dataclass(frozen=True)
class PrintedRow:
    """One model of a published table: column to value, 0 to 1, and a remark."""

    model: str
    values: dict[str, float]
    note: str


@dataclass(frozen=True)
class PrintedTable:
    """A published table, restricted to the parts and averages that were measured here too.

    Attributes:
        published: the whole table.
        measured: column, the name of a part ("part:metric" if not the first metric) or average, to the corresponding
            row of the comparison.
        rows: rows with a score in one of the columns.
    """

    published: PublishedTable
    measured: dict[str, Row]
    rows: tuple[PrintedRow, ...]


def tables_in_print(comparison: Comparison) -> tuple[PrintedTable, ...]:
    """Return each published table that shares a part or average with the comparison.

    A part counts as the published one only if all results have all its items under the benchmark's own tie rule, an
    average only if all its parts do.
    """
    tables = []
    for table in published_tables():
        measured = _measured(comparison, table.benchmark)
        measured = {name: row for name, row in measured.items() if any(name in each.percents for each in table.row)}
        rows = []
        for row in table.row:
            values = {name: row.percents[name] / 100 for name in measured if name in row.percents}
            rows += [PrintedRow(row.model, values, row.remark)] if values else []
        if rows:
            tables.append(PrintedTable(table, measured, tuple(rows)))
    return tuple(tables)


def _measured(comparison: Comparison, name: str) -> dict[str, Row]:
    """Column of a published table to the measured row that answers the same questions."""
    by_cosine = all(result.scorer == "cosine" for method in comparison.methods for result in method.results.values())
    if name not in BENCHMARKS.names() or not by_cosine:
        return {}
    benchmark = BENCHMARKS.member(name, "BENCHMARK")
    parts = [part for entry in entries_of(comparison.methods, name) for part in entry.parts]
    broken = {part.name for part in parts if not _is_published(benchmark, part)}
    columns: dict[str, Row] = {}
    for row in comparison.rows:
        if row.benchmark != name or row.name in broken or (row.kind == "average" and broken):
            continue
        # The name of a part means its first metric.
        columns.setdefault(row.name, row)
        columns.setdefault(f"{row.name}:{row.metric}", row)
    return columns


def _is_published(benchmark: Benchmark, part: PartResult) -> bool:
    """Whether a part was asked as published: every item, no other number of them, the benchmark's own tie rule."""
    try:
        rule = benchmark.part(part.name).tie
    except DeglaError:  # written by another version of the benchmark
        return False
    # A retrieval part counts images and texts, so its number of verdicts is another one.
    whole = part.family == "retrieval" or part.published_n in (None, part.scored + part.filtered)
    return part.tie == rule and not part.missing and whole


@dataclass(frozen=True)
class MtebScore:
    """One main score from an mteb result.

    Attributes:
        task: mteb's task name.
        split: of its data.
        subset: of its data, "default" if there is only one.
        score: 0 to 1.
    """

    task: str
    split: str
    subset: str
    score: float


def read_mteb_results(path: str | Path) -> list[MtebScore]:
    """Read the main scores of an mteb result file, or of all result files below a folder, sorted by task.

    Args:
        path: `TASK.json` as written by mteb, or a folder of such files (model_meta.json is ignored).

    Raises:
        InputError: there is none, or a file is not an mteb result; names the file and the field.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*.json") if p.name != "model_meta.json")
    if not files:
        raise InputError(f"{path}: has no mteb results (TASK.json).")
    scores = []
    for file in files:
        content = read_json_object(file, constants=True)
        try:
            for split, rows in content["scores"].items():
                for row in rows:
                    score = float(row["main_score"])
                    scores.append(MtebScore(str(content["task_name"]), split, str(row["hf_subset"]), score))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{file}: not an mteb result: {type(error).__name__} at {error}.") from None
    return sorted(scores, key=lambda each: (each.task, each.split, each.subset))


def mteb_section(results: Mapping[str, Path]) -> Iterator[Section]:
    """Yield the section of mteb's results, one column per model; nothing without results.

    Args:
        results: label to a file or folder, as for `read_mteb_results`.

    Raises:
        InputError: see `read_mteb_results`.
    """
    if not results:
        return
    by_label = {
        label: {
            (each.task, each.split, each.subset): None if isnan(each.score) else each.score
            for each in read_mteb_results(path)
        }
        for label, path in results.items()
    }
    lines = []
    for place in sorted(set().union(*by_label.values())):
        lines.append(TableRow([*place, *(percent(scores.get(place)) for scores in by_label.values())]))
    parts: list[Part | str] = [
        "Main score of each task, as computed by mteb's own code. These numbers enter no gain, best or plot; their "
        "intervals, ties and leakage are unknown.",
        Table(["task", Column("split", align="left"), Column("subset", align="left"), *by_label], lines),
    ]
    yield Section("Measured by mteb", parts)
