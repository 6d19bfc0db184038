"""The frontier of a study: what was gained against what was lost, one line an arm over its settings and averages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from degla.evaluation import plots
from degla.study.standings import BASE, Standing, Table

_INKS = {"ink": "#1c2126", "soft": "#7a838c", "rule": "#d8dde2"}
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


def arm_colours(table: Table) -> dict[str, str]:
    """An arm's colour, the same in the plot and the tables; the base is grey."""
    arms = list(dict.fromkeys(row.arm for row in table.standings if row.arm != BASE))
    palette = plots._PALETTE
    return {BASE: plots._BASELINE} | {arm: palette[place % len(palette)] for place, arm in enumerate(arms)}


@plots._styled
def frontier(table: Table, *, gain: str, kept: str, price: float) -> str:
    """An SVG element for a page: lost across, gained up, both in points; rings mark the models that none beats."""
    figure, axes = plots._figure(4.9, 4.4)
    palette = arm_colours(table)
    base = table.standings[0]
    points: dict[str, tuple[float, float]] = {}
    bars = []
    for place, (arm, lines) in enumerate(_lines(table).items()):
        colour, dash = palette[arm], _DASHES[place // len(plots._PALETTE) % len(_DASHES)]
        for line in lines:
            xs, ys = [_x(row) for row in line], [_y(row) for row in line]
            axes.plot(xs, ys, color=colour, linewidth=1.2, alpha=0.75, linestyle=dash, zorder=2)
            bars += list(zip(zip(xs, ys, strict=True), zip(xs[1:], ys[1:], strict=False), strict=False))
    for row in table.standings:
        x, y, colour = _x(row), _y(row), palette[row.arm]
        marker = "D" if row.arm == BASE else "o"
        axes.plot(x, y, marker, color=colour, markersize=7 if row.best or row.arm == BASE else 4.5, zorder=5)
        if row.pareto:
            axes.plot(x, y, "o", markerfacecolor="none", markeredgecolor=plots._INK, markersize=11, zorder=4)
        if row.best and row.gained.half_width is not None and row.lost.half_width is not None:
            wide, high = 100 * row.lost.half_width, 100 * row.gained.half_width
            axes.plot((x - wide, x + wide), (y, y), color=colour, linewidth=1.4, alpha=0.55, zorder=3)
            axes.plot((x, x), (y - high, y + high), color=colour, linewidth=1.4, alpha=0.55, zorder=3)
        if row.best or row.arm == BASE:
            points[row.arm] = (x, y)
    axes.axhline(_y(base), color=plots._SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.axvline(_x(base), color=plots._SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlabel(f"{kept} lost (points)  →  more forgotten")
    axes.set_ylabel(f"{gain} gained (points)")
    axes.margins(0.12, 0.12)
    _draw_price(axes, table, price)
    plots._dress(axes)
    figure.tight_layout()
    plots._label_points(figure, axes, points, palette, bars)
    return plots._svg(figure, "study-frontier")


def standing_alone(picture: str) -> str:
    """The same picture as a file of its own, which has no page to take its colours from."""
    return re.sub(r"var\(--(\w+)\)", lambda found: _INKS.get(found[1], "#888888"), picture)


def _draw_price(axes: object, table: Table, price: float) -> None:
    """The line of equal joint score through the best model: what lies above it would be better."""
    best = max((row for row in table.standings if row.arm != BASE), key=lambda row: row.joint.mean, default=None)
    if best is None:
        return
    plot: object = axes
    (left, right), (low, high) = plot.get_xlim(), plot.get_ylim()  # type: ignore[attr-defined]
    ys = [_y(best) + price * (x - _x(best)) for x in (left, right)]
    plot.plot((left, right), ys, color=plots._SOFT, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)  # type: ignore[attr-defined]
    plot.set_xlim(left, right)  # type: ignore[attr-defined]
    plot.set_ylim(low, high)  # type: ignore[attr-defined]


def _lines(table: Table) -> dict[str, list[list[Standing]]]:
    """By arm: with averages one line a setting, from the base over its shares; else one line over the settings."""
    base = table.standings[0]
    lines: dict[str, list[list[Standing]]] = {}
    for arm in dict.fromkeys(row.arm for row in table.standings if row.arm != BASE):
        rows = [row for row in table.standings if row.arm == arm]
        settings = list(dict.fromkeys(row.setting for row in rows))
        by_setting = [_sorted([row for row in rows if row.setting == setting]) for setting in settings]
        if any(len(line) > 1 for line in by_setting):
            lines[arm] = [[base, *line] for line in by_setting]
        else:
            lines[arm] = [sorted(rows, key=_x)]
    return lines


def _sorted(rows: Sequence[Standing]) -> list[Standing]:
    return sorted(rows, key=lambda row: row.share)


def _x(row: Standing) -> float:
    return 100 * row.lost.mean


def _y(row: Standing) -> float:
    return 100 * row.gained.mean
