"""The report as Markdown: the same tables, sentences and items as the page, without pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from degla.evaluation.changes import ItemChange
from degla.evaluation.comparison import Cell, Comparison
from degla.evaluation.in_print import PrintedTable
from degla.evaluation.sources import provenance, titles_of
from degla.evaluation.wording import answered, chance, gain, margin, percent, spread


def render_markdown(
    comparison: Comparison,
    *,
    printed: Sequence[PrintedTable] = (),
    changed: Mapping[str, Sequence[ItemChange]] | None = None,
) -> str:
    """The tables and warnings as Markdown."""
    lines = ["# Report", ""]
    lines += [f"> **Note.** {warning}" for warning in comparison.warnings]
    several = len({row.benchmark for row in comparison.headline}) > 1
    titles = titles_of(comparison)
    if comparison.headline:
        heads = [f"{row.title} ({titles[row.benchmark]})" if several else row.title for row in comparison.headline]
        lines += [
            "",
            "## At a glance",
            "",
            table_line(["method", "seeds", *heads]),
            table_line(["---"] * (len(heads) + 2)),
        ]
        for method in comparison.methods:
            cells = [_markdown_cell(row.cells.get(method.label)) for row in comparison.headline]
            lines.append(table_line([method.label, str(len(method.results)), *cells]))
        names = dict.fromkeys(name for row in comparison.headline for name in row.floors)
        lines.append(table_line(["*chance*", "", *(chance(row.chance) for row in comparison.headline)]))
        for name in names:
            lines.append(table_line([f"*{name}*", "", *(chance(row.floors.get(name)) for row in comparison.headline)]))
        lines += ["", *comparison.told] if comparison.told else []
    for name, title in titles.items():
        rows = [row for row in comparison.rows if row.benchmark == name]
        labels = [method.label for method in comparison.methods]
        lines += ["", f"## {title}", ""]
        ceiling = ["order-blind ceiling"] if any(row.ceiling is not None for row in rows) else []
        floors = comparison.floor_names(name)
        heads = ["part", "metric", "n", "chance", *floors, *ceiling, *labels]
        lines += [table_line(heads), table_line(["---"] * len(heads))]
        for row in rows:
            cells = [_markdown_cell(row.cells.get(label)) for label in labels]
            known = [chance(row.floors.get(label)) for label in floors]
            known += [chance(row.ceiling)] if ceiling else []
            lines.append(table_line([row.name, row.metric, str(row.n), chance(row.chance), *known, *cells]))
        for table in (table for table in printed if table.benchmark == name):
            lines += ["", *_printed(table, labels)]
    lines += [
        "",
        "Percent, mean ± standard deviation over training seeds; in points with a 95 % interval against "
        f"{comparison.baseline or 'no baseline'}. Bold: above every other method, each interval of the difference "
        "above 0.",
        "",
    ]
    lines += _changed(changed or {}, comparison.baseline)
    for source in map(provenance, (*comparison.methods, *comparison.floors)):
        lines.append(
            f"* {source['label']}: {', '.join(source['models'])}; {'/'.join(source['activation'])}, "
            f"{'/'.join(source['precision'])}; image reading: {'/'.join(source['image_reading'])}; "
            f"seeds {source['seeds'] or '-'}; {'; '.join(source['versions'])}; "
            f"training data: {'; '.join(source['training_data'])}; {', '.join(source['files'])}"
        )
    return "\n".join(lines) + "\n"


def _printed(table: PrintedTable, labels: Sequence[str]) -> Iterator[str]:
    yield f"**Published, not measured here** ({table.source}; {table.setting})"
    yield ""
    yield table_line(["model", *table.columns])
    yield table_line(["---"] * (len(table.columns) + 1))
    for label in labels:
        cells = [table.measured[column].cells.get(label) for column in table.columns]
        yield table_line([f"{label} (measured here)", *("–" if cell is None else percent(cell.mean) for cell in cells)])
    for row in table.rows:
        name = f"{row.model} (published)" + (f" ({row.note})" if row.note else "")
        yield table_line([name, *(chance(row.values.get(column)) for column in table.columns)])


def _changed(changed: Mapping[str, Sequence[ItemChange]], baseline: str | None) -> Iterator[str]:
    for label, changes in changed.items():
        yield f"## Changed most: {label} against {baseline}"
        yield ""
        for change in changes:
            true = " / ".join(change.true) or change.id
            false = f" (false: {' / '.join(change.false)})" if change.false else ""
            yield (
                f"* {change.part}: {true}{false}. Margin {margin(change.before.margin)} "
                f"to {margin(change.after.margin)}; {answered(change.before)}, then {answered(change.after)}."
            )
        yield ""


def _markdown_cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    text = percent(cell.mean) + spread(cell)
    text = f"**{text}**" if cell.best else text
    ties = f" ({cell.ties} ties)" if cell.ties else ""
    doubt = f" ({cell.gain.doubt})" if cell.gain and cell.gain.doubt else ""
    return text + (f"; {gain(cell)}" if cell.gain else "") + doubt + ties


def table_line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
