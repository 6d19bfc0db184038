"""A study beside the published tables that its plan names: each whole, and below its rows what was measured here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Final

from degla.evaluation.in_print import PublishedTable, published_tables
from degla.evaluation.neutral import members_of
from degla.pages.page import Part, Section
from degla.pages.table import Column, Table, TableCell, TableRow
from degla.pages.words import percent, points
from degla.results import Result
from degla.shelf import BENCHMARKS
from degla.study.record import RehearsalRecord, RehearsedKind, StudyRecord
from degla.study.study import Study

_MARKS: Final[Mapping[str, str]] = {"items": " \N{DEGREE SIGN}", "pictures": " \N{DEGREE SIGN}\N{DEGREE SIGN}",
                                    "made": " \N{DEGREE SIGN}\N{DEGREE SIGN}\N{DEGREE SIGN}"}  # fmt: skip
_ORDER: Final = ("items", "pictures", "made")
_LEGEND: Final = (
    "Every cell marked ° is rehearsed and measures nothing: ° a few of the benchmark's own questions on their own "
    "photographs, °° its own questions on drawn pictures, °°° made questions on drawn pictures. A column of several "
    "parts has the mark of its worst."
)
_HERE: Final = (
    "In percent. Published rows are as others printed them, with what is known to be wrong mended (marked *); rows "
    "“here” are this study's, the mean over seeds"
)


def printed_scores(result: Result) -> dict[str, float]:
    """Every column of the published tables that a result has a score for, as "benchmark:column", 0 to 1."""
    found: dict[str, float] = {}
    for entry in result.benchmarks:
        columns = {
            column for table in published_tables() if table.benchmark == entry.name for column in _columns(table)
        }
        scores = [(score.name, score) for score in entry.averages]
        scores += [(part.name, score) for part in entry.parts for score in part.scores]
        own: dict[str, float] = {}
        for name, score in scores:
            # The first metric of a part goes by the part's name alone.
            own.setdefault(name, score.value)
            own.setdefault(f"{name}:{score.metric}", score.value)
        found |= {f"{entry.name}:{column}": own[column] for column in columns & own.keys()}
    return found


def printed_section(study: Study) -> Iterator[Part]:
    """A section with the published tables, where the plan names rows of them."""
    record = study.record
    tables = list(_tables(record))
    if not tables:
        return
    how = f". {_LEGEND}" if record.rehearsal else ", with the difference to the published row in points."
    parts: list[Part | str] = [_HERE + how]
    for table in tables:
        parts += [f"**{table.title}**. {table.source}: {table.setting.rstrip('.')}.", _table(table, study)]
    yield Section("The published tables, rehearsed" if record.rehearsal else "The published tables", parts)


def _tables(record: StudyRecord) -> Iterator[PublishedTable]:
    named = {name for names in record.plan.printed.values() for name in names}
    asked = {benchmark.name for benchmark in record.benchmarks}
    for table in published_tables():
        if table.benchmark in asked and any(row.model in named for row in table.row):
            yield table


def _columns(table: PublishedTable) -> list[str]:
    return list(dict.fromkeys(column for row in table.row for column in row.percents))


def _table(table: PublishedTable, study: Study) -> Table:
    columns = _columns(table)
    rows: list[TableRow] = []
    own = {label: _means(study, label) for label in study.plan.printed}
    for row in table.row:
        note = "*" if row.remark else ""
        cells = [percent(row.percents[column] / 100) if column in row.percents else "" for column in columns]
        rows.append(TableRow([TableCell(row.model + note, hint=row.remark), *cells]))
        for label, names in study.plan.printed.items():
            if row.model in names and own[label]:
                values = own[label]
                here = [_cell(values, column, table.benchmark, row.percents, study) for column in columns]
                rows.append(TableRow([TableCell(f"here: {label}"), *here], kind="more"))
    return Table([Column("model"), *columns], rows)


def _means(study: Study, label: str) -> dict[str, float]:
    """The mean over seeds of every printed column; of an arm with several models, of the best."""
    best = next((row.label for row in study.table.best if row.arm == label), None)
    if best is None:
        return {}
    model = next(model for model in study.record.models if model.label == best)
    runs = [run.printed for run in model.runs if not run.replicate]
    return {name: fmean(run[name] for run in runs) for name in runs[0]}


def _cell(
    values: Mapping[str, float], column: str, benchmark: str, published: Mapping[str, float], study: Study
) -> TableCell:
    value = values.get(f"{benchmark}:{column}")
    if value is None:
        return TableCell(hint="not measured")
    kind = _kind(study.record.rehearsal, benchmark, column) if study.record.rehearsal else ""
    note = points(value - published[column] / 100) if column in published and not kind else ""
    return TableCell(percent(value), spread=_MARKS.get(kind, ""), note=note)


def _kind(rehearsal: RehearsalRecord, benchmark: str, column: str) -> RehearsedKind:
    """How the parts behind a column were asked; of several the worst."""
    kinds = {part.part: part.kind for part in rehearsal.parts if part.benchmark == benchmark}
    about = BENCHMARKS.load(benchmark).BENCHMARK
    found = [kinds[part] for part in members_of(about, column.partition(":")[0], list(kinds))]
    return max(found or kinds.values(), key=_ORDER.index)
