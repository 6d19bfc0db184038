"""The report: result files enter; one self-contained HTML page, a Markdown file beside it and plain data leave."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from degla.errors import InputError
from degla.evaluation.changes import ItemChange, largest_changes
from degla.evaluation.comparison import Comparison, Row, compare, ordered_results
from degla.evaluation.families import families
from degla.evaluation.in_print import PrintedTable, tables_in_print
from degla.evaluation.markdown import render_markdown
from degla.evaluation.sources import Data, benchmark_sources, provenance, titles_of
from degla.evaluation.wording import answered, chance, gain, margin, percent, spread
from degla.files import write_text
from degla.shelf import did_you_mean
from degla.version import __version__

_TEMPLATE = "report.html.j2"


def report(
    results: Sequence[Path],
    *,
    out: Path,
    baseline: str | None = None,
    root: Path | None = None,
    published: bool = True,
    weighed: tuple[str, str] | None = None,
) -> Data:
    """Write `out` (HTML, nothing outside it is needed) and the same tables as Markdown beside it.

    Args:
        results: what `degla evaluate` wrote; results with one label are one method over training seeds.
        out: ends in ".html"; the Markdown file has the ending ".md".
        baseline: label that gains and losses are counted against.
        root: folder that holds the benchmarks' files; texts and pictures of the items that changed most come from it.
        published: show scores in print of the same parts, labelled as not measured here.
        weighed: names of the two scores of the first plot, gained and kept, as `find_row` takes them; None: composition
            against recognition.

    Returns:
        The same as plain data: methods, headline, rows, warnings, published tables, items that changed most (without
        their pictures); scores from 0 to 1.

    Raises:
        InputError: see `compare` and `largest_changes`; or `out` does not end in ".html" or cannot be written.
        DeglaError: the disk is full.
    """
    if out.suffix != ".html":
        raise InputError(f"{out}: the name of a report must end in .html (the Markdown goes to NAME.md).")
    comparison = compare(results, baseline=baseline)
    printed = tables_in_print(comparison) if published else ()
    changed = largest_changes(comparison, root=root)
    page = render_html(comparison, printed=printed, changed=changed, weighed=weighed)
    text = render_markdown(comparison, printed=printed, changed=changed)
    write_text(out, page)
    write_text(out.with_suffix(".md"), text)
    return as_data(comparison, printed=printed, changed=changed)


def as_data(
    comparison: Comparison,
    *,
    printed: Sequence[PrintedTable] = (),
    changed: Mapping[str, Sequence[ItemChange]] | None = None,
) -> Data:
    """The comparison as plain lists and dicts, ready for JSON."""
    return {
        "baseline": comparison.baseline,
        "methods": [provenance(method) for method in comparison.methods],
        "floors": [provenance(floor) for floor in comparison.floors],
        "headline": [_plain(row) for row in comparison.headline],
        "rows": [_plain(row) for row in comparison.rows],
        "warnings": list(comparison.warnings),
        "told": list(comparison.told),
        "published": [_plain_table(table) for table in printed],
        "changed": {
            label: [{name: value for name, value in asdict(change).items() if name != "picture"} for change in changes]
            for label, changes in (changed or {}).items()
        },
    }


def _plain(row: Row) -> Data:
    data = asdict(row)
    for label, cell in row.cells.items():
        data["cells"][label]["interval"] = cell.interval.model_dump() if cell.interval else None
        if cell.gain is not None:
            interval = cell.gain.interval
            data["cells"][label]["gain"] = {
                "value": cell.gain.value,
                "interval": interval.model_dump() if interval else None,
                "n": cell.gain.n,
                "significant": cell.gain.significant,
                "doubt": cell.gain.doubt,
            }
    return data


def _plain_table(table: PrintedTable) -> Data:
    return {
        "benchmark": table.benchmark,
        "title": table.title,
        "source": table.source,
        "setting": table.setting,
        "measured_here": False,
        "rows": [asdict(row) for row in table.rows],
    }


def render_html(
    comparison: Comparison,
    *,
    printed: Sequence[PrintedTable] = (),
    changed: Mapping[str, Sequence[ItemChange]] | None = None,
    weighed: tuple[str, str] | None = None,
) -> str:
    """The whole page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    from degla.evaluation.plots import colours, family_bars, frontier

    environment = Environment(
        loader=PackageLoader("degla.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, gain=gain, chance=chance, spread=spread, margin=margin, answered=answered
    )
    # Long names may break on a phone, but only where a word ends.
    environment.filters["breakable"] = lambda name: Markup(re.sub(r"([/_.])", r"\1<wbr>", str(escape(name))))
    pairs = _frontier_rows(comparison)
    if weighed is not None:
        chosen = find_row(comparison, weighed[0]), find_row(comparison, weighed[1])
        # The usual plot of the same two scores would only say it again.
        pairs = [chosen, *(pair for pair in pairs if [row.name for row in pair] != [row.name for row in chosen])]
    frontiers = [(across, up, Markup(frontier(across, up, comparison))) for across, up in pairs]
    bars = [(family, Markup(family_bars(family, comparison))) for family in families(comparison)]
    return environment.get_template(_TEMPLATE).render(
        comparison=comparison,
        titles=titles_of(comparison),
        papers=benchmark_sources(comparison),
        several=len({row.benchmark for row in comparison.headline}) > 1,
        glance_floors=list(dict.fromkeys(name for row in comparison.headline for name in row.floors)),
        provenance=[provenance(method) for method in (*comparison.methods, *comparison.floors)],
        colours=colours(comparison),
        frontiers=frontiers,
        bars=bars,
        printed=printed,
        changed=changed or {},
        ceilings={row.benchmark for row in comparison.rows if row.ceiling is not None},
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def find_row(comparison: Comparison, name: str) -> Row:
    """The row that goes by a name: a part, a named average or a column of the first table, or BENCHMARK:NAME.

    Where several benchmarks have the name the first is meant, and its parts and averages before its columns.

    Raises:
        InputError: no benchmark has it.
    """
    order = [entry.name for _, result in ordered_results(comparison.methods) for entry in result.benchmarks]
    found = sorted([*comparison.rows, *comparison.headline], key=lambda row: order.index(row.benchmark))
    names = {row.title for row in found}
    for row in found:
        if name in (row.title, f"{row.benchmark}:{row.title}"):
            return row
    raise InputError(f"{name!r}: the results have no such part, average or column.{did_you_mean(name, names)}")


def _frontier_rows(comparison: Comparison) -> list[tuple[Row, Row]]:
    """Each composition column with the recognition column, or retrieval where there is none."""
    kept = [row for title in ("recognition", "retrieval") for row in comparison.headline if row.title == title]
    return [
        (row, next((other for other in kept if other.benchmark == row.benchmark), kept[0]))
        for row in comparison.headline
        if row.title == "composition" and kept
    ]
