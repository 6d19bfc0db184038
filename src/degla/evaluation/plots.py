"""Plots of a comparison as inline SVG: colours that follow the page's light or dark, labels that do not overlap."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, ParamSpec

from degla.evaluation.comparison import Cell, Comparison, Row

_INK, _SOFT, _RULE = "#010203", "#010204", "#010205"
_PAGE_COLOURS = {_INK: "var(--ink)", _SOFT: "var(--soft)", _RULE: "var(--rule)"}
_PALETTE = ("#3b82c4", "#d9772b", "#3f9b5f", "#b8569b", "#8a6fd1", "#b08b1e", "#2a9d9d", "#d0505a")
_BASELINE = "#808890"
_FONT = 10.0
_STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": _FONT,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "degla",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _SOFT,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
}
Arguments = ParamSpec("Arguments")


def _styled(plot: Callable[Arguments, str]) -> Callable[Arguments, str]:
    """Draw in this page's style and leave the process's own matplotlib settings as they were."""

    @wraps(plot)
    def draw(*args: Arguments.args, **kwargs: Arguments.kwargs) -> str:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return plot(*args, **kwargs)

    return draw


def colours(comparison: Comparison) -> dict[str, str]:
    """A method's colour, the same in every plot and table; the baseline is grey."""
    others = [method.label for method in comparison.methods if method.label != comparison.baseline]
    chosen = {label: _PALETTE[index % len(_PALETTE)] for index, label in enumerate(others)}
    return {method.label: chosen.get(method.label, _BASELINE) for method in comparison.methods}


@_styled
def frontier(across: Row, up: Row, comparison: Comparison) -> str:
    """One point a method: what was to be gained (x) against what was to be kept (y), with 95 % bars."""
    figure, axes = _figure(4.7, 4.1)
    palette = colours(comparison)
    labels = [method.label for method in comparison.methods if {method.label} <= across.cells.keys() & up.cells.keys()]
    points = {label: (100 * across.cells[label].mean, 100 * up.cells[label].mean) for label in labels}
    bars = []
    for label in labels:
        horizontal, vertical = _ends(across.cells[label]), _ends(up.cells[label])
        x, y = points[label]
        axes.plot(horizontal, (y, y), color=palette[label], linewidth=1.6, alpha=0.7, solid_capstyle="round")
        axes.plot((x, x), vertical, color=palette[label], linewidth=1.6, alpha=0.7, solid_capstyle="round")
        marker = "D" if label == comparison.baseline else "o"
        axes.plot(x, y, marker, color=palette[label], markersize=8, zorder=5)
        bars += [((end, y), (x, y)) for end in horizontal] + [((x, end), (x, y)) for end in vertical]
    if comparison.baseline in points:
        x, y = points[comparison.baseline]
        axes.axvline(x, color=_SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        axes.axhline(y, color=_SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlabel(f"{across.title} (%)  →  more {'composition' if across.title == 'composition' else 'gained'}")
    axes.set_ylabel(f"{up.title} (%)  →  more kept")
    axes.margins(0.16, 0.14)
    _dress(axes)
    figure.tight_layout()
    _label_points(figure, axes, points, palette, bars)
    return _svg(figure, f"frontier-{across.benchmark}-{up.benchmark}-{across.name}")


@_styled
def family_bars(family: str, rows: Sequence[Row], comparison: Comparison) -> str:
    """One bar a method: the mean over a family's parts, each part a dot, 95 % over seeds where there are several."""
    from degla.evaluation.statistics import seed_spread

    labels = [method.label for method in comparison.methods if any(method.label in row.cells for row in rows)]
    figure, axes = _figure(3.6, 0.6 + 0.3 * len(labels))
    palette = colours(comparison)
    ceiling = 100.0
    for place, label in enumerate(labels):
        cells = [row.cells[label] for row in rows if label in row.cells]
        seeds = set.intersection(*(set(cell.values) for cell in cells))
        spread = seed_spread([sum(cell.values[seed] for cell in cells) / len(cells) for seed in sorted(seeds)])
        axes.barh(place, 100 * spread.mean, height=0.62, color=palette[label], alpha=0.85, zorder=2)
        if spread.half_width is not None:
            low = max(0.0, 100 * (spread.mean - spread.half_width))
            high = min(100.0, 100 * (spread.mean + spread.half_width))
            axes.plot((low, high), (place, place), color=_INK, linewidth=1.4, zorder=4)
        if len(cells) > 1:
            axes.plot(
                [100 * cell.mean for cell in cells],
                [place] * len(cells),
                "o",
                markerfacecolor="none",
                markeredgecolor=_INK,
                markersize=3.6,
                markeredgewidth=0.8,
                zorder=5,
            )
        axes.text(ceiling + 3, place, f"{100 * spread.mean:.1f}", va="center", ha="left", color=_INK, fontsize=_FONT)
    chances = [row.chance for row in rows if row.chance is not None]
    if chances:
        axes.axvline(100 * sum(chances) / len(chances), color=_SOFT, linewidth=1.1, linestyle=(0, (2, 2)), zorder=3)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, ceiling)
    _dress(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    figure.tight_layout()
    return _svg(figure, f"bars-{rows[0].benchmark}-{family}")


def _ends(cell: Cell) -> tuple[float, float]:
    if cell.interval is None:
        return (100 * cell.mean, 100 * cell.mean)
    return (100 * max(0.0, cell.interval.low), 100 * min(1.0, cell.interval.high))


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of its own, without pyplot: nothing of the user's matplotlib is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _dress(axes: Any, grid: str = "both") -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, axis=grid, color=_RULE, linewidth=0.7)
    axes.set_axisbelow(True)


def _label_points(
    figure: Any,
    axes: Any,
    points: dict[str, tuple[float, float]],
    palette: dict[str, str],
    bars: Iterable[tuple[tuple[float, float], tuple[float, float]]],
) -> None:
    """Write each label where it covers the least: of 24 places around its point the cheapest, the crowded first."""
    import math

    import numpy as np

    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    to_pixels = axes.transData.transform
    obstacles = [to_pixels(np.linspace(start, end, 12)) for start, end in bars]
    obstacles.append(to_pixels(np.array(list(points.values()))))
    marks = np.concatenate(obstacles)
    frame = axes.get_window_extent(renderer)
    placed: list[tuple[float, float, float, float]] = []
    pixels_a_point = figure.dpi / 72
    for label, point in sorted(points.items(), key=lambda entry: entry[1]):
        centre = to_pixels(point)
        probe = axes.text(*point, label, fontsize=_FONT, fontweight="bold")
        size = probe.get_window_extent(renderer)
        probe.remove()
        best: tuple[float, float, float, bool] | None = None
        for radius in (9, 18, 30):
            for step in range(8):
                angle = math.pi / 4 * step + math.pi / 8
                dx, dy = radius * math.cos(angle) * pixels_a_point, radius * math.sin(angle) * pixels_a_point
                left = centre[0] + dx - (size.width if dx < 0 else 0)
                low = centre[1] + dy - size.height / 2
                box = (left - 2, low - 2, left + size.width + 2, low + size.height + 2)
                cost = radius / 10 + 6.0 * _covered(marks, box) + 200.0 * sum(_overlap(box, other) for other in placed)
                if box[0] < frame.x0 or box[2] > frame.x1 or box[1] < frame.y0 or box[3] > frame.y1:
                    cost += 400
                if best is None or cost < best[0]:
                    best = (cost, left, low, radius > 9)
                    chosen = box
        assert best is not None
        placed.append(chosen)
        x, y = axes.transData.inverted().transform((best[1], best[2] + size.height * 0.22))
        axes.text(x, y, label, fontsize=_FONT, fontweight="bold", color=palette[label], zorder=6)


def _covered(marks: Any, box: tuple[float, float, float, float]) -> int:
    inside = (marks[:, 0] > box[0]) & (marks[:, 0] < box[2]) & (marks[:, 1] > box[1]) & (marks[:, 1] < box[3])
    return int(inside.sum())


def _overlap(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _svg(figure: Any, name: str) -> str:
    """The figure as an `<svg>` element that can stand beside others in one page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for placeholder, variable in _PAGE_COLOURS.items():
        text = text.replace(placeholder, variable)
    # Names inside an SVG are names of the whole page: make them this plot's own.
    prefix = re.sub(r"\W+", "-", name)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    return re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
