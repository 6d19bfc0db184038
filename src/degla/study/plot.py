"""The frontier of a study: what was gained against what was lost, one line an arm.

With few models an arm the line joins its settings or averages; with many it is the arm's own frontier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from degla.pages import plot as svg
from degla.study.standings import BASE, StudyRow, StudyTable

_LEAST_RANGE = 2.0
"""Points that an axis shows at least, so that noise is not blown up."""

_UNCROWDED = 7
"""Arms that the small picture has room for; with more it grows."""

_MANY = 6
"""Models of an arm whose lines can still be told apart; with more, only its own frontier is drawn as a line."""

_FRAME = 3.0
"""With many models the frame ends at so many times the most that an arm's best model lost."""


def arm_marks(table: StudyTable) -> dict[str, svg.Mark]:
    """Every arm's mark, the same in the plot and the tables."""
    return svg.marks_of((row.arm for row in table.standings), baseline=BASE)


@svg.styled
def frontier(table: StudyTable, *, gain: str, kept: str, price: float, width: float | None = None) -> str:
    """An SVG element for a page: lost across, gained up, both in points; rings mark the models that none beats.

    Args:
        table: the models.
        gain: name of the score that is to rise.
        kept: name of the score that is to be kept.
        price: of the joint score.
        width: of the picture, in inches; None: wider with more arms, as a file of its own.
    """
    marks = arm_marks(table)
    crowd = min(max(0, len(marks) - _UNCROWDED), 10)
    figure, axes = svg.new_figure(width or 6.2 + 0.15 * crowd, min(width or 9.0, 5.2) + 0.1 * crowd)
    base = table.standings[0]
    points: dict[str, tuple[float, float]] = {}
    bars = []
    lines = _lines(table)
    marked = {row.label for row in table.best} | {row.label for arm in lines.values() for line in arm for row in line}
    for arm, of_arm in lines.items():
        for line in of_arm:
            xs, ys = [_x(row) for row in line], [_y(row) for row in line]
            axes.plot(xs, ys, color=marks[arm].colour, linewidth=1.2, alpha=0.75, zorder=2)
            bars += list(zip(zip(xs, ys, strict=True), zip(xs[1:], ys[1:], strict=False), strict=False))
    for row in table.standings:
        x, y, colour = _x(row), _y(row), marks[row.arm].colour
        marker = svg.MARKERS[marks[row.arm].shape]
        if row.label not in marked:
            axes.plot(x, y, marker, color=colour, markersize=2.5, alpha=0.5, zorder=1)
            continue
        axes.plot(x, y, marker, color=colour, markersize=7 if row.best or row.arm == BASE else 4.5, zorder=5)
        if row.pareto:
            axes.plot(x, y, "o", markerfacecolor="none", markeredgecolor=svg.INK, markersize=11, zorder=4)
        if row.best and row.gained.half_width is not None and row.lost.half_width is not None:
            wide, high = 100 * row.lost.half_width, 100 * row.gained.half_width
            axes.plot((x - wide, x + wide), (y, y), color=colour, linewidth=1.4, alpha=0.55, zorder=3)
            axes.plot((x, x), (y - high, y + high), color=colour, linewidth=1.4, alpha=0.55, zorder=3)
            bars += [((x - wide, y), (x, y)), ((x + wide, y), (x, y)), ((x, y - high), (x, y)), ((x, y + high), (x, y))]
        if row.best or row.arm == BASE:
            points[row.arm] = (x, y)
    axes.axhline(_y(base), color=svg.SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.axvline(_x(base), color=svg.SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlabel(f"{kept} lost (points)  →  more forgotten")
    axes.set_ylabel(f"{gain} gained (points)")
    framed = list(table.standings)
    if has_many(table):
        framed = [row for row in framed if _x(row) <= _FRAME * max(_x(best) for best in table.best)]
    axes.set_xlim(*_limits([_x(row) for row in framed]))
    axes.set_ylim(*_limits([_y(row) for row in framed]))
    _draw_price(axes, table, price)
    svg.dress(axes)
    figure.tight_layout()
    svg.label_points(
        figure, axes, points, {arm: (mark.colour, svg.MARKERS[mark.shape]) for arm, mark in marks.items()}, bars
    )
    return svg.to_svg(figure, "study-frontier")


def has_many(table: StudyTable) -> bool:
    """Whether an arm has so many models that each arm is drawn by its own frontier."""
    arms = [row.arm for row in table.standings]
    return max(map(arms.count, set(arms))) > _MANY


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis: all means with room for labels. Bars that are longer are cut; few seeds have very long ones."""
    low, high = min(values), max(values)
    room = max(0.16 * (high - low), (_LEAST_RANGE - (high - low)) / 2)
    return low - room, high + room


def _draw_price(axes: Any, table: StudyTable, price: float) -> None:
    """The line of equal joint score through the best model: what lies above it would be better."""
    if (best := table.leader) is None:
        return
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    ys = [_y(best) + price * (x - _x(best)) for x in (left, right)]
    axes.plot((left, right), ys, color=svg.SOFT, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def _lines(table: StudyTable) -> dict[str, list[list[StudyRow]]]:
    """By arm: its own frontier where arms have many models; with averages one line a setting, from the base over its
    shares; else one line over the settings."""
    base = table.standings[0]
    many = has_many(table)
    lines: dict[str, list[list[StudyRow]]] = {}
    for arm in dict.fromkeys(row.arm for row in table.standings if row.arm != BASE):
        rows = [row for row in table.standings if row.arm == arm]
        if many:
            lines[arm] = [_undominated([base, *rows])]
            continue
        settings = list(dict.fromkeys(row.setting for row in rows))
        by_share = sorted(rows, key=lambda row: row.share)
        by_setting = [[row for row in by_share if row.setting == setting] for setting in settings]
        if any(len(line) > 1 for line in by_setting):
            lines[arm] = [[base, *line] for line in by_setting]
        else:
            lines[arm] = [sorted(rows, key=_x)]
    return lines


def _undominated(rows: Sequence[StudyRow]) -> list[StudyRow]:
    """Those that gain more than all that lose no more, from the least lost."""
    kept: list[StudyRow] = []
    for row in sorted(rows, key=lambda row: (row.lost.mean, -row.gained.mean)):
        if not kept or row.gained.mean > kept[-1].gained.mean:
            kept.append(row)
    return kept


def _x(row: StudyRow) -> float:
    return 100 * row.lost.mean


def _y(row: StudyRow) -> float:
    return 100 * row.gained.mean
