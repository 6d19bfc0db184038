"""Points in two dimensions side by side: a panel a method, a colour a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from degla.pages.page import Figure
from degla.pages.plot import BASELINE, FONT, PALETTE, new_figure, styled, to_svg


class PanelPoints(NamedTuple):
    """Some points of a panel, all in one form: matplotlib's marker and its size."""

    places: Float[Tensor, "points 2"]
    marker: str = "o"
    size: float = 4


def panel_figure(
    panels: Mapping[str, Sequence[PanelPoints]],
    classes: Sequence[int],
    caption: str,
    *,
    title: str,
    name: str,
    columns: int,
    shared: bool = False,
) -> Figure:
    """A figure of them.

    Args:
        panels: points by the title of their panel.
        classes: number of each point's class, the same in all panels; below 0 for none.
        caption: of the figure.
        title: of the figure.
        name: of the picture, from which its marks are named.
        columns: panels beside each other, at most; two on a phone.
        shared: all panels have the same ends.
    """
    colours = [PALETTE[each % len(PALETTE)] if each >= 0 else BASELINE for each in classes]

    @styled
    def draw(width: float) -> str:
        across = min(columns if width > 6 else 2, len(panels))
        lines = -(-len(panels) // across)
        figure, first = new_figure(width, 0.85 * width / across * lines + 0.3)
        first.remove()
        axes: list[Any] = list(figure.subplots(lines, across, squeeze=False, sharex=shared, sharey=shared).ravel())
        for place, (head, layers) in zip(axes, panels.items(), strict=False):
            for points, marker, size in layers:
                edge = 0.7 if marker == "x" else 0
                place.scatter(*points.T.tolist(), s=size, c=colours, marker=marker, linewidths=edge, rasterized=True)
            place.set_title(head, fontsize=FONT)
            place.set_xticks([])
            place.set_yticks([])
        for place in axes[len(panels) :]:
            place.set_visible(False)
        figure.tight_layout()
        return to_svg(figure, name)

    return Figure(draw, caption, title=title)
