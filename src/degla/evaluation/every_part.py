"""The report's section of every part: a table a benchmark, and scores in print beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from degla.evaluation.cells import Cell
from degla.evaluation.comparison import Comparison
from degla.evaluation.in_print import PrintedTable
from degla.pages.page import Fold, Paragraph, Part
from degla.pages.table import Column, Table, TableCell, TableRow
from degla.pages.words import UNKNOWN, interval, percent, points


def every_part(
    comparison: Comparison, titles: Mapping[str, str], printed: Sequence[PrintedTable]
) -> Iterator[Part | str]:
    """A table a benchmark, folded but for the first, and what the words of these tables mean.

    Args:
        comparison: methods and their scores.
        titles: of the benchmarks, by name.
        printed: scores in print, shown below the benchmark's own table.
    """
    for number, (name, title) in enumerate(titles.items()):
        tables = [
            part for table in printed if table.published.benchmark == name for part in _printed(comparison, table)
        ]
        yield Fold(title, [_parts_table(comparison, name), *tables], open=number == 0)
    if any(row.ceiling is not None for row in comparison.rows):
        yield (
            "Order-blind ceiling: the most that a model which ignores word order can reach, where the benchmark "
            "states it."
        )
    if comparison.floors:
        labels = ", ".join(floor.label for floor in comparison.floors)
        yield (
            f"{labels}: models that cannot know the answer, on the same questions: random rows; texts ranked without "
            "the image."
        )
    yield "Ties: items in which a true and a false answer came out exactly equal, the most of any method and seed."


def _parts_table(comparison: Comparison, name: str) -> Table:
    rows = [row for row in comparison.rows if row.benchmark == name]
    floors, labels = comparison.floor_names(name), [method.label for method in comparison.methods]
    ceilings = any(row.ceiling is not None for row in rows)
    heads = [Column("part"), Column("metric", align="left", where="text")]
    heads += map(Column, ("n", "chance", *floors, *(["order-blind ceiling"] if ceilings else [])))
    # A method has a column of the page, and one of Markdown, where there is room for gains and ties of each.
    heads.append(Column("ties", where="page"))
    heads += [Column(label, where=where) for label in labels for where in ("page", "text")]
    lines = []
    kind = ""
    for row in rows:
        if row.kind != kind:
            kind = row.kind
            lines.append(TableRow(["parts" if kind == "part" else "named averages"], kind="section"))
        beside = [row.chance, *map(row.floors.get, floors), *([row.ceiling] if ceilings else [])]
        part = TableCell(row.name, tags=(row.metric,) if row.metric != "accuracy" else ())
        cells: list[TableCell | str] = [part, row.metric, str(row.n), *map(percent, beside)]
        cells.append(str(max(cell.ties for cell in row.cells.values())))
        for label in labels:
            cells += _both(row.cells.get(label))
        lines.append(TableRow(cells, key=f"{row.benchmark} {row.name} {row.metric}"))
    return Table(heads, lines)


def _both(cell: Cell | None) -> tuple[TableCell, TableCell]:
    """A method's number as a table of many columns has it, and with all that belongs to it."""
    if cell is None:
        return TableCell(), TableCell()
    short = TableCell(percent(cell.mean), spread=spread_of(cell), bold=cell.best)
    said = [cell.gain.doubt if cell.gain else "", f"{cell.ties} ties" if cell.ties else ""]
    whole = TableCell(
        short.value, spread=short.spread, bold=cell.best, note=gain_of(cell), doubt=", ".join(filter(None, said))
    )
    return short, whole


def _printed(comparison: Comparison, table: PrintedTable) -> Iterator[Part | str]:
    published = table.published
    yield Paragraph(f"**Published, not measured here: {published.title}**", quiet=False)
    yield (
        f"Source: {published.source}. {published.setting}. Only parts and averages that were measured here too, all "
        "of their items under the published tie rule. No gain, best or plot counts these numbers."
    )
    lines = [TableRow(["measured here"], kind="section")]
    for method in comparison.methods:
        cells = [row.cells.get(method.label) for row in table.measured.values()]
        lines.append(TableRow([method.label, *(UNKNOWN if cell is None else percent(cell.mean) for cell in cells)]))
    lines.append(TableRow([f"published, not measured here: {published.source}"], kind="section"))
    for row in table.rows:
        name = TableCell(f"{row.model} (published)" + (" *" if row.note else ""))
        lines.append(TableRow([name, *(percent(row.values.get(column)) for column in table.measured)]))
    yield Table(["model", *table.measured], lines)
    yield from (f"* {row.model}: {row.note}." for row in table.rows if row.note)


def spread_of(cell: Cell) -> str:
    """Standard deviation over seeds, " ± 0.8"; empty for one seed."""
    return "" if cell.deviation is None else f" ± {percent(cell.deviation)}"


def gain_of(cell: Cell) -> str:
    """Points against the baseline with their interval, "+7.1 [+5.0, +9.2]"; empty where there is none."""
    if cell.gain is None:
        return ""
    ends = cell.gain.interval
    return points(cell.gain.value) + (f" {interval(ends.low, ends.high, points)}" if ends else "")
