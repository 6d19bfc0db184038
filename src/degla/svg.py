"""What every plot of a page shares: colours that follow the page's light or dark, one style, inline SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Final, ParamSpec

INK, SOFT, RULE = "#010203", "#010204", "#010205"
"""Stand for the page's own colours of letters, axes and grid lines until `to_svg` puts those in their place."""
_PAGE_COLOURS: Final = {INK: "var(--ink)", SOFT: "var(--soft)", RULE: "var(--rule)"}
PALETTE: Final = ("#3b82c4", "#d9772b", "#3f9b5f", "#b8569b", "#8a6fd1", "#b08b1e", "#2a9d9d", "#d0505a")
"""Colours of the things compared, readable on light and dark."""
FONT: Final = 10.0
"""Points."""
_STYLE: Final[Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": FONT,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "degla",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
Arguments = ParamSpec("Arguments")


def styled(plot: Callable[Arguments, str]) -> Callable[Arguments, str]:
    """Draw in the pages' style and leave the process's own matplotlib settings as they were."""

    @wraps(plot)
    def draw(*args: Arguments.args, **kwargs: Arguments.kwargs) -> str:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return plot(*args, **kwargs)

    return draw


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of its own, without pyplot: nothing of the user's matplotlib is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def dress(axes: Any, grid: str = "both") -> None:
    """Only the axes that are read, and a quiet grid."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, axis=grid, color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)


def label_points(
    figure: Any,
    axes: Any,
    points: dict[str, tuple[float, float]],
    palette: dict[str, str],
    bars: Iterable[tuple[tuple[float, float], tuple[float, float]]],
    *,
    size: float = FONT,
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
        probe = axes.text(*point, label, fontsize=size, fontweight="bold")
        extent = probe.get_window_extent(renderer)
        probe.remove()
        best: tuple[float, float, float, bool] | None = None
        for radius in (9, 18, 30):
            for step in range(8):
                angle = math.pi / 4 * step + math.pi / 8
                dx, dy = radius * math.cos(angle) * pixels_a_point, radius * math.sin(angle) * pixels_a_point
                left = centre[0] + dx - (extent.width if dx < 0 else 0)
                low = centre[1] + dy - extent.height / 2
                box = (left - 2, low - 2, left + extent.width + 2, low + extent.height + 2)
                cost = radius / 10 + 6.0 * _covered(marks, box) + 200.0 * sum(_overlap(box, other) for other in placed)
                if box[0] < frame.x0 or box[2] > frame.x1 or box[1] < frame.y0 or box[3] > frame.y1:
                    cost += 400
                if best is None or cost < best[0]:
                    best = (cost, left, low, radius > 9)
                    chosen = box
        assert best is not None
        placed.append(chosen)
        to_data = axes.transData.inverted().transform
        x, y = to_data((best[1], best[2] + extent.height * 0.22))
        if best[3]:  # a line tells which point a far label is for
            left, low, right, high = chosen
            end = to_data((min(max(centre[0], left), right), min(max(centre[1], low), high)))
            axes.plot((point[0], end[0]), (point[1], end[1]), color=palette[label], linewidth=0.6, zorder=1)
        axes.text(x, y, label, fontsize=size, fontweight="bold", color=palette[label], zorder=6)


def _covered(marks: Any, box: tuple[float, float, float, float]) -> int:
    inside = (marks[:, 0] > box[0]) & (marks[:, 0] < box[2]) & (marks[:, 1] > box[1]) & (marks[:, 1] < box[3])
    return int(inside.sum())


def _overlap(first: tuple[float, float, float, float], second: tuple[float, float, float, float]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def to_svg(figure: Any, name: str) -> str:
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
