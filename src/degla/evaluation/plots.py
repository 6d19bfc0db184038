"""Plots of a comparison as inline SVG: colours that follow the page's light or dark, labels that do not overlap."""

from __future__ import annotations

from degla.evaluation.comparison import Cell, Comparison, Row
from degla.evaluation.families import Family
from degla.pages.plot import FONT, INK, PALETTE, SOFT, dress, label_points, new_figure, styled, to_svg

BASELINE = "#808890"
"""Colour of the baseline."""


def colours(comparison: Comparison) -> dict[str, str]:
    """A method's colour, the same in every plot and table; the baseline is grey."""
    others = [method.label for method in comparison.methods if method.label != comparison.baseline]
    chosen = {label: PALETTE[index % len(PALETTE)] for index, label in enumerate(others)}
    return {method.label: chosen.get(method.label, BASELINE) for method in comparison.methods}


@styled
def frontier(across: Row, up: Row, comparison: Comparison) -> str:
    """One point a method: what was to be gained (x) against what was to be kept (y), with 95 % bars."""
    figure, axes = new_figure(4.7, 4.1)
    palette = colours(comparison)
    labels = [method.label for method in comparison.methods if {method.label} <= across.cells.keys() & up.cells.keys()]
    points = {label: (100 * across.cells[label].mean, 100 * up.cells[label].mean) for label in labels}
    markers = {label: "D" if label == comparison.baseline else "o" for label in labels}
    bars = []
    for label in labels:
        horizontal, vertical = _ends(across.cells[label]), _ends(up.cells[label])
        x, y = points[label]
        axes.plot(horizontal, (y, y), color=palette[label], linewidth=1.6, alpha=0.7, solid_capstyle="round")
        axes.plot((x, x), vertical, color=palette[label], linewidth=1.6, alpha=0.7, solid_capstyle="round")
        axes.plot(x, y, markers[label], color=palette[label], markersize=8, zorder=5)
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
    label_points(figure, axes, points, {label: (palette[label], markers[label]) for label in labels}, bars)
    return to_svg(figure, f"frontier-{across.benchmark}-{up.benchmark}-{across.name}")


@styled
def family_bars(family: Family, comparison: Comparison) -> str:
    """One bar a method: the number of the family's row, its 95 % interval, and a dot for each part behind it."""
    row = family.row
    labels = [method.label for method in comparison.methods if method.label in row.cells]
    figure, axes = new_figure(3.6, 0.6 + 0.3 * len(labels))
    palette = colours(comparison)
    ceiling = 100.0
    for place, label in enumerate(labels):
        cell = row.cells[label]
        axes.barh(place, 100 * cell.mean, height=0.62, color=palette[label], alpha=0.85, zorder=2)
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
            )
        axes.text(ceiling + 3, place, f"{100 * cell.mean:.1f}", va="center", ha="left", color=INK, fontsize=FONT)
    floors = {"chance": row.chance, **row.floors}
    for value in floors.values():
        if value is not None:
            axes.axvline(100 * value, color=SOFT, linewidth=1.1, linestyle=(0, (2, 2)), zorder=3)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, ceiling)
    dress(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    figure.tight_layout()
    return to_svg(figure, f"bars-{row.benchmark}-{family.title}")


def _ends(cell: Cell) -> tuple[float, float]:
    if cell.interval is None:
        return (100 * cell.mean, 100 * cell.mean)
    return (100 * max(0.0, cell.interval.low), 100 * min(1.0, cell.interval.high))
