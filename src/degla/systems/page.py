"""The scores of a system as tables: on a page, as Markdown and on the terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic_core import to_jsonable_python

from degla.evaluation.cells import gap_tone, gap_words
from degla.pages.page import Code, Facts, Figure, Page, Paragraph, Part, Section
from degla.pages.table import Column, Table, TableCell, TableRow, Tone
from degla.pages.words import UNKNOWN, counted, duration, minus, percent, points
from degla.statistics.seeds import seed_difference, seed_spread
from degla.systems.record import SystemRecord, seeds_of
from degla.systems.system import AnySystem, Expectation, ScoreColumn

if TYPE_CHECKING:
    from rich.console import Group

_FEW_SEEDS = 3
_HOW_TO_READ = (
    "Mean over {seeds}; ± is half of a 95 % interval of the mean over seeds, which does not cover other test data. "
    "Below: the difference from `{baseline}`, paired by seed, with its 95 % interval; coloured where the interval "
    "excludes 0, not corrected for multiple comparisons. Training: elapsed time, perhaps with other jobs running."
)
_HOW_TO_READ_ONE = (
    "One seed, so there is no interval. Below: the difference from `{baseline}`. Training: elapsed time, perhaps with "
    "other jobs running."
)
_EXPECTED = (
    "First minus second, paired by seed. Bound: what a paper or an earlier measurement suggests. Seeds: in how many "
    "the difference is within the bound."
)


def page_of(system: AnySystem, record: SystemRecord, *, figures: Sequence[Figure] = ()) -> Page:
    """Build the page from the record and figures."""
    seeds = seeds_of(record.cases)
    lead: list[Part | str] = [Paragraph(f"arXiv {system.paper}, compared with its baselines.", quiet=False)]
    lead += [Code(record.command, "sh")] if record.command else []
    warnings = []
    if len(seeds) < _FEW_SEEDS:
        warnings.append(f"{counted(len(seeds), 'seed')}: other seeds may give other results.")
    if (expected := _expected(system, record)) and (others := _other_settings(system, record)):
        warnings.append(f"The expected bounds are for the default settings; these differ here: {', '.join(others)}.")
    parts: list[Part] = [
        Section(data, [_table(system, record, data), *_missing(system, record, data)]) for data in _data(record)
    ]
    parts.append(Section("The methods", [Facts(system.methods)]))
    note = (_HOW_TO_READ if len(seeds) > 1 else _HOW_TO_READ_ONE).format(
        seeds=counted(len(seeds), "seed"), baseline=system.baseline
    )
    meanings = {each.name: f"{each.meaning} {each.better.capitalize()} is better." for each in system.columns}
    parts.append(Section("The columns", [note, Facts(meanings)]))
    if expected:
        parts.append(Section("What was expected", [Table(_expected_columns(), expected, stacked=True), _EXPECTED]))
    parts += [Section("Figures", list(figures))] if figures else []
    facts = {name: _shown(value) for name, value in record.settings.items()}
    facts |= {"versions": ", ".join(f"{package} {number}" for package, number in record.versions.items())}
    parts.append(Section("Settings", [Facts(facts)]))
    return Page(system.title, parts, lead=lead, warnings=warnings, tab=f"degla system: {record.system}")


def render_terminal(system: AnySystem, record: SystemRecord) -> Group:
    """Render one table per data set, then the expectations."""
    from rich.console import Group

    tables = [
        _table(system, record, data).terminal(title=data, caption=" ".join(_missing(system, record, data)))
        for data in _data(record)
    ]
    if rows := _expected(system, record):
        tables.append(Table(_expected_columns(), rows).terminal(title="What was expected"))
    return Group(*tables)


def _data(record: SystemRecord) -> list[str]:
    return list(dict.fromkeys(row.data for row in record.cases))


def _table(system: AnySystem, record: SystemRecord, data: str) -> Table:
    heads = [
        Column("method"),
        *(Column(f"{each.name} {'↑' if each.better == 'higher' else '↓'}") for each in system.columns),
        Column("training"),
    ]
    rows = []
    for method in system.methods:
        cases = [row for row in record.cases if row.data == data and row.method == method]
        # A method may have no scores on some data, for example if it compares features with texts of another size.
        if any(row.values for row in cases):
            cells = [_cell(system, record, data, method, column) for column in system.columns]
            rows.append(TableRow([method, *cells, duration(fmean(row.seconds for row in cases))], key=method))
    return Table(heads, rows, stacked=True)


def _missing(system: AnySystem, record: SystemRecord, data: str) -> Iterator[str]:
    """Yield which methods have no row in the table of a data set, or one over fewer seeds than the page says."""
    cases = [row for row in record.cases if row.data == data]
    with_rows, with_scores = {row.method for row in cases}, {row.method for row in cases if row.values}
    for label, methods in (
        ("Not run", system.methods.keys() - with_rows),
        ("Run, but gives no score on this data", with_rows - with_scores),
    ):
        if methods:
            yield f"{label}: {', '.join(f'`{method}`' for method in system.methods if method in methods)}."
    seeds, own = len(seeds_of(record.cases)), Counter(row.method for row in cases)
    fewer = [f"`{each}` ({counted(own[each], 'seed')})" for each in system.methods if 0 < own[each] < seeds]
    if fewer:
        yield f"Over fewer seeds: {', '.join(fewer)}."


def _other_settings(system: AnySystem, record: SystemRecord) -> list[str]:
    """Return names of settings that differ from the defaults; data are left out, since each has its own table."""
    default = to_jsonable_python(system.settings)
    return [
        name
        for name, value in to_jsonable_python(record.settings).items()
        if name != "data" and value != default.get(name)
    ]


def _cell(system: AnySystem, record: SystemRecord, data: str, method: str, column: ScoreColumn) -> TableCell:
    values = record.scores(data, method, column.name)
    if not values:
        return TableCell(UNKNOWN)
    spread = seed_spread(list(values.values()))
    half = "" if spread.half_width is None else f" ± {_number(spread.half_width, column)}"
    value = _number(spread.mean, column)
    baseline = record.scores(data, system.baseline, column.name)
    if method == system.baseline or not baseline:
        return TableCell(value, spread=half)
    gap = seed_difference(values, baseline)
    note, tone = gap_words(gap, partial(_change, column)), gap_tone(gap, lower=column.better == "lower")
    return TableCell(value, spread=half, note=note, tone=tone)


def _expected_columns() -> list[Column]:
    words = [Column(word, align="left") for word in ("data", "score")]
    return [Column("first − second"), *words, *map(Column, ("difference", "bound", "holds", "seeds"))]


def _expected(system: AnySystem, record: SystemRecord) -> list[TableRow]:
    """Return a row for each expectation and data set on which both methods were run."""
    columns = {column.name: column for column in system.columns}
    rows = []
    for each in system.expected:
        for data in _data(record):
            first, second = (record.scores(data, method, each.column) for method in (each.first, each.second))
            if first and second and (data in each.data or not each.data):
                rows.append(_expectation(each, data, first, second, columns[each.column]))
    return rows


def _expectation(
    each: Expectation,
    data: str,
    first: dict[int | None, float],
    second: dict[int | None, float],
    column: ScoreColumn,
) -> TableRow:
    def keeps(gap: float) -> bool:
        return gap >= each.bound if column.better == "higher" else gap <= each.bound

    gap = seed_difference(first, second)
    gaps = [first[seed] - second[seed] for seed in sorted(set(first) & set(second), key=str)]
    bound = f"{'≥' if column.better == 'higher' else '≤'} {_change(column, each.bound)}"
    tone: Tone = "up" if keeps(gap.value) else "down"
    return TableRow([
        f"{each.first} − {each.second}", data, column.name, gap_words(gap, partial(_change, column)), bound,
        TableCell("yes" if keeps(gap.value) else "no", tone=tone), f"{sum(map(keeps, gaps))} of {len(gaps)}",
    ])  # fmt: skip


def _number(value: float, column: ScoreColumn) -> str:
    return percent(value) if column.percent else minus(f"{value:z.3g}")


def _change(column: ScoreColumn, value: float) -> str:
    return points(value) if column.percent else minus(f"{round(value, 12):+z.3g}")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return (value or "none") if isinstance(value, str) else json.dumps(value)
