"""Common parts of all plots: colours for light and dark pages, one style, point labels, inline SVG.

A plot is a function decorated with `styled` that makes a `new_figure`, draws, and returns `to_svg`. With its width
as an argument it fits both a page and a phone: `page.Figure`.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from itertools import product
from textwrap import fill
from typing import Any, Final, NamedTuple, ParamSpec

INK, SOFT, RULE = "#010203", "#010204", "#010205"
"""Placeholders for the page's colours of text, axes and grid lines, which `to_svg` replaces."""
_PAGE_COLOURS: Final = {INK: "var(--ink)", SOFT: "var(--soft)", RULE: "var(--rule)"}
PALETTE: Final = ("#3b82c4", "#d9772b", "#3f9b5f", "#b8569b", "#8a6fd1", "#b08b1e", "#2a9d9d", "#d0505a")
"""Colours of the compared methods, readable on light and dark."""
BASELINE: Final = "#808890"
"""Colour of the baseline."""
SHAPES: Final = {
    "circle": ("o", ""),
    "square": ("s", "inset(0)"),
    "triangle": ("^", "polygon(50% 0,100% 100%,0 100%)"),
    "diamond": ("D", "polygon(50% 0,100% 50%,50% 100%,0 50%)"),
    "down": ("v", "polygon(0 0,100% 0,50% 100%)"),
    "right": (">", "polygon(0 0,100% 50%,0 100%)"),
    "left": ("<", "polygon(100% 0,100% 100%,0 50%)"),
    "plus": (
        "P",
        "polygon(33% 0,67% 0,67% 33%,100% 33%,100% 67%,67% 67%,67% 100%,33% 100%,33% 67%,0 67%,0 33%,33% 33%)",
    ),
    "cross": (
        "X",
        "polygon(25% 0,50% 25%,75% 0,100% 25%,75% 50%,100% 75%,75% 100%,50% 75%,25% 100%,0 75%,25% 50%,0 25%)",
    ),
    "star": ("*", "polygon(50% 0,61% 35%,98% 35%,68% 57%,79% 91%,50% 70%,21% 91%,32% 57%,2% 35%,39% 35%)"),
}
"""Shapes of marks: matplotlib's marker, and what CSS cuts out of a disc's box."""
PAGE, PHONE = 10.8, 4.6
"""Widths in inches at which text has its nominal size: on a page, on a phone."""
_INKS: Final = {"ink": "#1c2126", "soft": "#7a838c", "rule": "#d8dde2"}
"""Colours of a picture outside a page."""
FONT: Final = 10.0
"""Font size in points."""
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
PlotPoint = tuple[float, float]
"""Across and up, in data coordinates."""


@dataclass(frozen=True)
class Mark:
    """Colour and shape of a method, the same in plots and tables.

    Attributes:
        colour: CSS colour.
        shape: a name in `SHAPES`.
    """

    colour: str
    shape: str = "circle"

    @property
    def marker(self) -> str:
        """Its marker in matplotlib."""
        return SHAPES[self.shape][0]


def marks_of(names: Iterable[str], *, baseline: str | None) -> dict[str, Mark]:
    """Return a mark for each name, in order; shapes change when the colours repeat. The baseline is a grey diamond."""
    others = [name for name in dict.fromkeys(names) if name != baseline]
    shapes = [shape for shape in SHAPES if shape != "diamond"]
    marks = {} if baseline is None else {baseline: Mark(BASELINE, "diamond")}
    return marks | {
        name: Mark(PALETTE[place % len(PALETTE)], shapes[place // len(PALETTE) % len(shapes)])
        for place, name in enumerate(others)
    }


def styled(plot: Callable[Arguments, str]) -> Callable[Arguments, str]:
    """Draw in the pages' style and leave the process's own matplotlib settings as they were."""

    @wraps(plot)
    def draw(*args: Arguments.args, **kwargs: Arguments.kwargs) -> str:
        import matplotlib

        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            # A name in another script stays text, drawn with the reader's own fonts.
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
            return plot(*args, **kwargs)

    return draw


def new_figure(width: float, height: float, *grid: int, **options: Any) -> tuple[Any, Any]:
    """Create a figure and its axes, as `Figure.subplots` does, without pyplot, whose state is the user's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.subplots(*grid, **options)


def dress(axes: Any, grid: str = "both") -> None:
    """Hide unused axes and add a light grid."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, axis=grid, color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)


def label_points(
    figure: Any,
    axes: Any,
    points: dict[str, PlotPoint],
    marks: dict[str, Mark],
    bars: Iterable[tuple[PlotPoint, PlotPoint]],
) -> None:
    """Label every point if no two labels then overlap, else add a legend.

    Args:
        figure: finished except for the labels.
        axes: its axes.
        points: label to position, in the order of the legend.
        marks: label to mark.
        bars: lines that labels should not cover, each by its two ends.
    """
    figure.draw_without_rendering()
    places = _places(figure, axes, points, bars)
    if places is None:
        _add_legend(figure, axes, {label: marks[label] for label in points})
        return
    to_data = axes.transData.inverted().transform
    for label, place in places.items():
        left, low, right, high = place.box
        if place.far:  # A line connects a far label with its point.
            centre = axes.transData.transform(points[label])
            (x, y), end = points[label], to_data((min(max(centre[0], left), right), min(max(centre[1], low), high)))
            axes.plot((x, end[0]), (y, end[1]), color=marks[label].colour, linewidth=0.6, zorder=1)
        axes.text(*to_data(place.start), label, fontsize=FONT, fontweight="bold", zorder=6)


Rectangle = tuple[float, float, float, float]


class _Place(NamedTuple):
    """Where a label goes, in pixels."""

    box: Rectangle
    start: PlotPoint
    """Of its baseline."""
    far: bool


def _places(
    figure: Any, axes: Any, points: dict[str, PlotPoint], bars: Iterable[tuple[PlotPoint, PlotPoint]]
) -> dict[str, _Place] | None:
    """The best of 32 places around its point for each label, points from the left first.

    None if a label would overlap another label or a point, or leave the axes.
    """
    import numpy as np

    renderer = figure.canvas.get_renderer()
    to_pixels = axes.transData.transform
    obstacles = [to_pixels(np.linspace(start, end, 12)) for start, end in bars]
    centres = to_pixels(np.array(list(points.values())))
    marks = np.concatenate([*obstacles, centres])
    frame = axes.get_window_extent(renderer)
    pixels_a_point = figure.dpi / 72
    placed: dict[str, _Place] = {}
    for label, point in sorted(points.items(), key=lambda entry: entry[1]):
        centre = to_pixels(point)
        probe = axes.text(*point, label, fontsize=FONT, fontweight="bold")
        extent = probe.get_window_extent(renderer)
        probe.remove()
        best: tuple[float, _Place] | None = None
        for radius, step in product((9, 18, 30, 45), range(8)):
            angle = math.pi / 4 * step + math.pi / 8
            dx, dy = radius * math.cos(angle) * pixels_a_point, radius * math.sin(angle) * pixels_a_point
            left = centre[0] + dx - (extent.width if dx < 0 else 0)
            low = centre[1] + dy - extent.height / 2
            box = (left - 2, low - 2, left + extent.width + 2, low + extent.height + 2)
            if box[0] < frame.x0 or box[2] > frame.x1 or box[1] < frame.y0 or box[3] > frame.y1:
                continue
            if _covered(centres, box) or any(_overlap(box, other.box) for other in placed.values()):
                continue
            cost = radius / 10 + 6.0 * _covered(marks, box)
            if best is None or cost < best[0]:
                best = (cost, _Place(box, (left, low + extent.height * 0.22), radius > 9))
        if best is None:
            return None
        placed[label] = best[1]
    return placed


def _add_legend(figure: Any, axes: Any, marks: dict[str, Mark]) -> None:
    """Add a legend right of the axes or, on a phone, below them; the figure grows."""
    from matplotlib.lines import Line2D

    # A wider drawing would be scaled down on a narrow screen, and its text would be unreadable.
    below = figure.get_figwidth() <= PHONE
    handles = [
        Line2D([], [], linestyle="", marker=mark.marker, color=mark.colour, markersize=7,
               label=fill(label, 40))
        for label, mark in marks.items()
    ]  # fmt: skip
    where: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0)}
    if below:
        where = {"loc": "lower left", "bbox_to_anchor": (0.02, 0.0), "bbox_transform": figure.transFigure}
    key = axes.legend(handles=handles, borderaxespad=0, frameon=False, fontsize=FONT, **where)
    extent = key.get_window_extent(figure.canvas.get_renderer())
    (width, height), place = figure.get_size_inches(), axes.get_position()
    wider = width if below else width + extent.width / figure.dpi
    more = (extent.height if below else max(0.0, -extent.y0)) / figure.dpi
    figure.set_size_inches(wider, height + more)
    axes.set_position(
        (place.x0 * width / wider, (place.y0 * height + more) / (height + more),
         place.width * width / wider, place.height * height / (height + more))
    )  # fmt: skip


def _covered(marks: Any, box: Rectangle) -> int:
    inside = (marks[:, 0] > box[0]) & (marks[:, 0] < box[2]) & (marks[:, 1] > box[1]) & (marks[:, 1] < box[3])
    return int(inside.sum())


def _overlap(first: Rectangle, second: Rectangle) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def to_svg(figure: Any, name: str) -> str:
    """Return the figure as an `<svg>` element that can share a page with others."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    for part in (figure, *figure.axes):
        part.patch.set(facecolor="none", edgecolor="none")
    stream = io.StringIO()
    # `savefig` would draw everything twice.
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(stream, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for placeholder, variable in _PAGE_COLOURS.items():
        text = text.replace(placeholder, variable)
    # Ids inside an SVG are global to the page: make them unique to this plot.
    prefix = re.sub(r"\W+", "-", f"{name} {figure.get_figwidth():.1f}")
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    return re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', text)


def standalone_picture(picture: str) -> str:
    """Return the picture with fixed colours, for a separate file, on white: it may be shown on a dark page."""
    fixed = re.sub(r"var\(--(\w+)\)", lambda name: _INKS.get(name[1], "#888888"), picture)
    return fixed.replace("<svg ", '<svg style="background:#ffffff" ', 1)
