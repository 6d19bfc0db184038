"""Plots of a comparison as inline SVG, with colours for light and dark pages and labels that do not overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import fill

from degla.errors import InputError
from degla.evaluation.cells import Cell, Row, entries_of
from degla.evaluation.comparison import Comparison
from degla.evaluation.neutral import benchmark_of, is_known, members_of
from degla.pages.plot import FONT, INK, SOFT, Mark, dress, label_points, marks_of, new_figure, styled, to_svg
from degla.shelf import did_you_mean

BARS = 3.6
"""Width of a bar plot in inches; a page has several side by side."""
_NAME = 20
"""Largest number of characters per line of a method's name beside its bar."""


@dataclass(frozen=True)
class Family:
    """One family of parts, by the row that sums it up.

    Attributes:
        title: name of the family, and of its section of the benchmark if the family has several.
        row: the row that the bars show: the first table's column with the family's name, else an average of just
            these parts, else the one part.
        parts: the parts in the row.
    """

    title: str
    row: Row
    parts: tuple[Row, ...]


def families(comparison: Comparison) -> list[Family]:
    """Return every family that a row of the tables summarises, benchmark by benchmark."""
    every = []
    for name in dict.fromkeys(row.benchmark for row in comparison.rows):
        rows = [row for row in comparison.rows if row.benchmark == name and row.comparable]
        columns = {row.title: row for row in comparison.headline if row.benchmark == name}
        every += list(_families(rows, columns, _members(comparison, name)))
    return every


def _families(rows: Sequence[Row], columns: dict[str, Row], members: dict[str, list[str]]) -> Iterator[Family]:
    parts: dict[str, Row] = {}
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.kind == "part" and row.name not in parts:
            parts[row.name] = row
            place, slash, _ = row.name.partition("/")
            groups.setdefault((row.family, place if slash and place != row.family else ""), []).append(row.name)
    firsts = {row.name: row for row in reversed(rows)}
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
        averages = (average for average, inside in members.items() if set(inside) == set(names))
        source = names[0] if len(names) == 1 else next(averages, "")
        if source in firsts:
            yield Family(title, firsts[source], tuple(parts[name] for name in names))


def _members(comparison: Comparison, name: str) -> dict[str, list[str]]:
    """Name of each average to its parts; empty for a benchmark that is not known."""
    entry = entries_of(comparison.methods, name)[0]
    if not is_known(entry):
        return {}
    benchmark, parts = benchmark_of(entry), [part.name for part in entry.parts]
    return {average.name: members_of(benchmark, average.name, parts) for average in benchmark.averages}


def find_row(comparison: Comparison, name: str) -> Row:
    """Find a row by name: a part, a named average or a column of the first table, or BENCHMARK:NAME.

    If several benchmarks have the name, the first one is used, and its parts and averages before its columns.

    Raises:
        InputError: no benchmark has it.
    """
    order = [entry.name for entry in entries_of(comparison.methods)]
    rows = sorted([*comparison.rows, *comparison.headline], key=lambda row: order.index(row.benchmark))
    names = {row.title for row in rows}
    for row in rows:
        if name in (row.title, f"{row.benchmark}:{row.title}"):
            return row
    raise InputError(f"{name!r}: the results have no such part, average or column.{did_you_mean(name, names)}")


def marks(comparison: Comparison) -> dict[str, Mark]:
    """Return the mark of each method in plots and tables."""
    return marks_of((method.label for method in comparison.methods), baseline=comparison.baseline)


@styled
def frontier(across: Row, up: Row, comparison: Comparison, width: float = 4.7) -> str:
    """Plot one point per method: score to gain (x) against score to keep (y), with 95 % bars; width in inches."""
    figure, axes = new_figure(width, min(width * 4.1 / 4.7, 5.2))
    shown = marks(comparison)
    labels = [
        method.label for method in comparison.methods if method.label in across.cells and method.label in up.cells
    ]
    points = {label: (100 * across.cells[label].mean, 100 * up.cells[label].mean) for label in labels}
    bars = []
    for label in labels:
        horizontal, vertical = _ends(across.cells[label]), _ends(up.cells[label])
        x, y = points[label]
        axes.plot(horizontal, (y, y), color=shown[label].colour, linewidth=1.6, alpha=0.7, solid_capstyle="round")
        axes.plot((x, x), vertical, color=shown[label].colour, linewidth=1.6, alpha=0.7, solid_capstyle="round")
        axes.plot(x, y, shown[label].marker, color=shown[label].colour, markersize=8, zorder=5)
        bars += [((end, y), (x, y)) for end in horizontal] + [((x, end), (x, y)) for end in vertical]
    if comparison.baseline in points:
        x, y = points[comparison.baseline]
        axes.axvline(x, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        axes.axhline(y, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlabel(f"{across.title} (%)  →  more {'composition' if across.title == 'composition' else 'gained'}")
    axes.set_ylabel(f"{up.title} (%)  →  more kept")
    axes.margins(0.16, 0.14)
    dress(axes)
    figure.tight_layout()
    label_points(figure, axes, points, shown, bars)
    return to_svg(figure, f"frontier-{across.benchmark}-{up.benchmark}-{across.name}")


@styled
def family_bars(family: Family, comparison: Comparison, width: float) -> str:
    """Plot one bar per method: the score of the family's row, its 95 % interval, and a dot for each of its parts."""
    row = family.row
    labels = [method.label for method in comparison.methods if method.label in row.cells]
    # A name as wide as the plot would leave no room for the bars and be cut off.
    names = [fill(label, _NAME) for label in labels]
    lines = max((name.count("\n") + 1 for name in names), default=1)
    figure, axes = new_figure(width, 0.6 + max(0.3, 0.19 * lines) * len(labels))
    shown = marks(comparison)
    ceiling = 100.0
    for place, label in enumerate(labels):
        cell = row.cells[label]
        axes.barh(place, 100 * cell.mean, height=0.62, color=shown[label].colour, alpha=0.85, zorder=2)
        if cell.interval is not None:
            axes.plot(_ends(cell), (place, place), color=INK, linewidth=1.4, zorder=4)
        dots = [part.cells[label] for part in family.parts if label in part.cells]
        if len(dots) > 1:
            axes.plot(
                [100 * dot.mean for dot in dots],
                [place] * len(dots),
                "o",
                markerfacecolor="none",
                markeredgecolor=INK,
                markersize=3.6,
                markeredgewidth=0.8,
                zorder=5,
                clip_on=False,  # one at 100 % is cut in half otherwise
            )
        axes.text(ceiling + 6, place, f"{100 * cell.mean:.1f}", va="center", ha="left", color=INK, fontsize=FONT)
    floors = {"chance": row.chance, **row.floors}
    for value in floors.values():
        if value is not None:
            axes.axvline(100 * value, color=SOFT, linewidth=1.1, linestyle=(0, (2, 2)), zorder=3)
    axes.set_yticks(range(len(labels)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, ceiling)
    dress(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    figure.tight_layout(pad=0.2)
    return to_svg(figure, f"bars-{row.benchmark}-{family.title}")


def _ends(cell: Cell) -> tuple[float, float]:
    if cell.interval is None:
        return (100 * cell.mean, 100 * cell.mean)
    return (100 * max(0.0, cell.interval.low), 100 * min(1.0, cell.interval.high))
