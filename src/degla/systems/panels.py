"""Points in two dimensions side by side: a panel a method, a colour a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from degla.pages.plot import FONT, new_figure, to_svg


class PanelPoints(NamedTuple):
    """Some points of a panel, all in one form: matplotlib's marker and its size."""

    places: Float[Tensor, "points 2"]
    marker: str = "o"
    size: float = 4


def draw_panels(
    panels: Mapping[str, Sequence[PanelPoints]],
    colours: Sequence[str],
    *,
    width: float,
    columns: int,
    name: str,
    shared: bool = False,
) -> str:
    """The picture as SVG.

    Args:
        panels: points by the title of their panel.
        colours: of the points, the same for each.
        width: inches.
        columns: panels beside each other, at most.
        name: of the picture, from which its marks are named.
        shared: all panels have the same ends.
    """
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure, first = new_figure(width, 0.85 * width / columns * lines + 0.3)
    first.remove()
    axes: list[Any] = list(figure.subplots(lines, columns, squeeze=False, sharex=shared, sharey=shared).ravel())
    for place, (title, layers) in zip(axes, panels.items(), strict=False):
        for points, marker, size in layers:
            edge = 0.7 if marker == "x" else 0
            place.scatter(*points.T.tolist(), s=size, c=colours, marker=marker, linewidths=edge, rasterized=True)
        place.set_title(title, fontsize=FONT)
        place.set_xticks([])
        place.set_yticks([])
    for place in axes[len(panels) :]:
        place.set_visible(False)
    figure.tight_layout()
    return to_svg(figure, name)
