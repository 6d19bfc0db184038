"""Solids in the colour of their patches' significance, and what a mask by it keeps of them."""

from __future__ import annotations

from typing import Any, Final

import torch

from degla.model.token_mask import gumbel, largest, sampling_keys
from degla.pages.page import Figure
from degla.pages.plot import PALETTE, new_figure, styled, to_svg
from degla.systems.pointacl.clouds import CloudPoints
from degla.systems.pointacl.network import PointNetwork, all_patches, encode_clouds
from degla.systems.pointacl.settings import PointaclSettings

_SHOWN: Final = 5
_SHOWN_NARROW: Final = 3


def draw_clouds(network: PointNetwork, settings: PointaclSettings, points: CloudPoints, *, data: str) -> Figure:
    """The first clouds, fewer on a phone; below, the patches that stay, and the centres of those left out.

    Args:
        network: whose class token attends.
        settings: of the mask.
        points: of which the first are shown.
        data: their name.
    """
    clouds = points[:_SHOWN]
    centres, near = all_patches(settings, clouds)
    scores = encode_clouds(network, settings, clouds).scores
    assert scores is not None
    noise = gumbel(scores, generator=torch.Generator().manual_seed(0))
    left = largest(sampling_keys(scores, noise, temperature=settings.sampling_temperature), settings.mask)

    @styled
    def draw(width: float) -> str:
        columns = min(len(clouds), _SHOWN if width > 6 else _SHOWN_NARROW)
        figure, first = new_figure(width, width * 2 / columns)
        first.remove()
        for place in range(columns):
            nearest = torch.cdist(clouds[place], centres[place]).argmin(dim=1)
            stay = (near[place] + centres[place][:, None])[~left[place]].flatten(0, 1)
            by_score: dict[str, Any] = {"c": scores[place][nearest].numpy(), "cmap": "viridis"}
            shown = ((clouds[place], by_score), (stay, {"color": PALETTE[0]}))
            for line, (dots, colours) in enumerate(shown):
                axes: Any = figure.add_subplot(2, columns, line * columns + place + 1, projection="3d")
                axes.scatter(*dots.numpy().T, s=5, linewidths=0, **colours)
                if line:
                    axes.scatter(
                        *centres[place][left[place]].numpy().T, s=14, marker="x", color=PALETTE[1], linewidths=1
                    )
                axes.set_axis_off()
                axes.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), zlim=(-0.8, 0.8))
                axes.set_box_aspect((1, 1, 1), zoom=1.3)
        figure.subplots_adjust(0, 0, 1, 1, 0, 0)
        return to_svg(figure, f"pointacl-{data}")

    caption = (
        "Test clouds. Above: points in the colour of their nearest patch's significance, dark for little. "
        f"Below: patches that stay where a share of {settings.mask:g} is left out by it; crosses: centres of "
        "those left out."
    )
    return Figure(draw, caption, title=data)
