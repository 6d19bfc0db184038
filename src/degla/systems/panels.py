"""Two-dimensional points side by side: one panel per method, one colour per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from degla.pages.page import Figure
from degla.pages.plot import BASELINE, FONT, PALETTE, new_figure, styled, to_svg


class PanelPoints(NamedTuple):
    """Points of a panel that share a matplotlib marker and its size."""

    places: Float[Tensor, "points 2"]
    marker: str = "o"
    size: float = 4


def two_directions(centred: Float[Tensor, "rows dim"]) -> Float[Tensor, "dim 2"]:
    """Return the two directions of largest variance of rows with mean 0; zeros where there is no second one."""
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    return pad(directions[:2], (0, 0, 0, max(0, 2 - len(directions)))).T


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
    """Draw a figure of panels.

    Args:
        panels: points by panel title.
        classes: class number of each point, the same in all panels; below 0 for none.
        caption: caption of the figure.
        title: title of the figure.
        name: name of the plot, used for the ids of its marks.
        columns: maximum number of panels per row; two on a phone.
        shared: whether all panels share their axes.
    """
    colours = [PALETTE[each % len(PALETTE)] if each >= 0 else BASELINE for each in classes]

    @styled
    def draw(width: float) -> str:
        across = min(columns if width > 6 else 2, len(panels))
        lines = -(-len(panels) // across)
        height = 0.85 * width / across * lines + 0.3
        figure, grid = new_figure(width, height, lines, across, squeeze=False, sharex=shared, sharey=shared)
        axes = list(grid.ravel())
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
