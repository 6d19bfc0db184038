"""The report: result files enter; one self-contained HTML page, a Markdown file beside it and plain data leave."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from degla import __version__
from degla.errors import InputError
from degla.evaluation.comparison import Cell, Comparison, Method, Row, compare

Data = dict[str, Any]
_TEMPLATE = "report.html.j2"


def report(results: Sequence[Path], *, out: Path, baseline: str | None = None) -> Data:
    """Write `out` (HTML, nothing outside it is needed) and the same tables as Markdown beside it.

    Args:
        results: what `degla evaluate` wrote; results with one label are one method over training seeds.
        out: ends in ".html"; the Markdown file has the ending ".md".
        baseline: label that gains and losses are counted against.

    Returns:
        The same as plain data: methods, headline, rows, warnings; scores from 0 to 1.

    Raises:
        InputError: see `compare`; or `out` does not end in ".html" or cannot be written.
    """
    if out.suffix != ".html":
        raise InputError(f"{out}: the name of a report must end in .html (the Markdown goes to NAME.md).")
    comparison = compare(results, baseline=baseline)
    page, text = render_html(comparison), render_markdown(comparison)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
        out.with_suffix(".md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}.") from None
    return as_data(comparison)


def as_data(comparison: Comparison) -> Data:
    """The comparison as plain lists and dicts, ready for JSON."""
    return {
        "baseline": comparison.baseline,
        "methods": [provenance(method) for method in comparison.methods],
        "headline": [_plain(row) for row in comparison.headline],
        "rows": [_plain(row) for row in comparison.rows],
        "warnings": list(comparison.warnings),
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
            }
    return data


def provenance(method: Method) -> Data:
    """Where a method's numbers come from."""
    results = list(method.results.values())

    def distinct(values: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(values))

    return {
        "label": method.label,
        "models": distinct(result.model.name for result in results),
        "fingerprints": distinct(result.model.fingerprint for result in results),
        "activation": distinct(result.model.activation for result in results),
        "precision": distinct(result.model.precision for result in results),
        "seeds": [seed for seed in method.results if seed is not None],
        "versions": distinct(
            ", ".join(f"{name} {value}" for name, value in result.versions.items()) for result in results
        ),
        "dates": distinct(result.date for result in results),
        "files": [path.name for path in method.paths.values()],
    }


def render_html(comparison: Comparison) -> str:
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
    environment.filters.update(percent=percent, gain=gain, chance=chance, spread=spread)
    # Long names may break on a phone, but only where a word ends.
    environment.filters["breakable"] = lambda name: Markup(re.sub(r"([/_.])", r"\1<wbr>", str(escape(name))))
    frontiers = [(across, up, Markup(frontier(across, up, comparison))) for across, up in _frontier_rows(comparison)]
    bars = [
        (benchmark, family, rows, Markup(family_bars(family, rows, comparison)))
        for (benchmark, family), rows in families(comparison).items()
    ]
    return environment.get_template(_TEMPLATE).render(
        comparison=comparison,
        titles=_titles(comparison),
        papers=_benchmarks(comparison),
        several=len({row.benchmark for row in comparison.headline}) > 1,
        provenance=[provenance(method) for method in comparison.methods],
        colours=colours(comparison),
        frontiers=frontiers,
        bars=bars,
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def families(comparison: Comparison) -> dict[tuple[str, str], list[Row]]:
    """(benchmark, family) to its parts, each by its own first metric."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in comparison.rows:
        if row.kind == "part" and row.comparable:
            found.setdefault((row.benchmark, row.family), {}).setdefault(row.name, row)
    return {key: list(rows.values()) for key, rows in found.items()}


def _frontier_rows(comparison: Comparison) -> list[tuple[Row, Row]]:
    """Each composition column with the recognition column, or retrieval where there is none."""
    kept = [row for title in ("recognition", "retrieval") for row in comparison.headline if row.title == title]
    return [
        (row, next((other for other in kept if other.benchmark == row.benchmark), kept[0]))
        for row in comparison.headline
        if row.title == "composition" and kept
    ]


def _titles(comparison: Comparison) -> dict[str, str]:
    return {name: data["title"] for name, data in _benchmarks(comparison).items()}


def _benchmarks(comparison: Comparison) -> dict[str, Data]:
    """Name to title, paper, licence, tie rules and digests, of the first result that has it."""
    found: dict[str, Data] = {}
    for method in comparison.methods:
        for result in method.results.values():
            for entry in result.benchmarks:
                found.setdefault(
                    entry.name,
                    {
                        "title": entry.title,
                        "paper": entry.paper,
                        "licence": entry.licence,
                        "ties": sorted({part.tie for part in entry.parts}),
                        "items_sha256": entry.items_sha256,
                        "annotations": len(entry.annotation_sha256),
                        "n": sum(part.scores[0].n for part in entry.parts),
                        "missing": sum(part.missing for part in entry.parts),
                    },
                )
    return found


def percent(value: float) -> str:
    """0.6134 as "61.3"."""
    return f"{100 * value:.1f}"


def chance(value: float | None) -> str:
    """As `percent`; a dash where it is not known."""
    return "–" if value is None else percent(value)


def spread(cell: Cell) -> str:
    """Standard deviation over seeds, " ± 0.8"; empty for one seed."""
    return "" if cell.deviation is None else f" ± {percent(cell.deviation)}"


def gain(cell: Cell) -> str:
    """Points against the baseline with their interval, "+7.1 [+5.0, +9.2]"; empty where there is none."""
    if cell.gain is None:
        return ""
    text = f"{100 * cell.gain.value:+.1f}"
    if cell.gain.interval is not None:
        text += f" [{100 * cell.gain.interval.low:+.1f}, {100 * cell.gain.interval.high:+.1f}]"
    return text.replace("-", "−")


def render_markdown(comparison: Comparison) -> str:
    """The tables and warnings as Markdown."""
    lines = ["# Report", ""]
    lines += [f"> **Note.** {warning}" for warning in comparison.warnings]
    several = len({row.benchmark for row in comparison.headline}) > 1
    titles = _titles(comparison)
    if comparison.headline:
        heads = [f"{row.title} ({titles[row.benchmark]})" if several else row.title for row in comparison.headline]
        lines += ["", "## At a glance", "", _line(["method", "seeds", *heads]), _line(["---"] * (len(heads) + 2))]
        for method in comparison.methods:
            cells = [_markdown_cell(row.cells.get(method.label)) for row in comparison.headline]
            lines.append(_line([method.label, str(len(method.results)), *cells]))
    for name, title in titles.items():
        rows = [row for row in comparison.rows if row.benchmark == name]
        labels = [method.label for method in comparison.methods]
        lines += ["", f"## {title}", ""]
        lines += [_line(["part", "metric", "n", "chance", *labels]), _line(["---"] * (len(labels) + 4))]
        for row in rows:
            cells = [_markdown_cell(row.cells.get(label)) for label in labels]
            lines.append(_line([row.name, row.metric, str(row.n), chance(row.chance), *cells]))
    lines += [
        "",
        "Percent, mean ± standard deviation over training seeds; in points with a 95 % interval against "
        f"{comparison.baseline or 'no baseline'}. Bold: above every other method, each interval of the difference "
        "above 0.",
        "",
    ]
    for source in map(provenance, comparison.methods):
        lines.append(
            f"* {source['label']}: {', '.join(source['models'])}; {'/'.join(source['activation'])}, "
            f"{'/'.join(source['precision'])}; seeds {source['seeds'] or '-'}; {'; '.join(source['versions'])}; "
            f"{', '.join(source['files'])}"
        )
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    text = percent(cell.mean) + spread(cell)
    text = f"**{text}**" if cell.best else text
    ties = f" ({cell.ties} ties)" if cell.ties else ""
    return text + (f"; {gain(cell)}" if cell.gain else "") + ties


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
