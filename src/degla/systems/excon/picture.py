"""What the explanations of each method keep of some pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from degla.model.evidence import above
from degla.pages.page import Figure
from degla.pages.plot import new_figure, styled, to_svg
from degla.systems.excon.network import Network, explain, looking
from degla.systems.excon.pictures import LabelledPictures

_SHOWN: Final = 8
_SHOWN_NARROW: Final = 4


def draw_evidence(
    networks: Mapping[str, Network], pictures: LabelledPictures, *, data: str, threshold: float
) -> Figure:
    """The first pictures, half as many on a phone; below, a line a method, what its explanation keeps of each.

    Args:
        networks: by method.
        pictures: of which the first are shown.
        data: their name.
        threshold: evidence above which a place is kept.
    """
    few = pictures.chosen(torch.arange(min(_SHOWN, len(pictures.label))))
    rows = {"": few.pixels, **{name: _kept(each, few, threshold) for name, each in networks.items()}}

    @styled
    def draw(width: float) -> str:
        columns = min(len(few.label), _SHOWN if width > 6 else _SHOWN_NARROW)
        figure, first = new_figure(width, width * len(rows) / (columns + 0.3))
        first.remove()
        panels: Any = figure.subplots(len(rows), columns, squeeze=False)
        for line, (name, shown) in zip(panels, rows.items(), strict=True):
            for axes, picture in zip(line, shown, strict=False):
                axes.imshow(picture.permute(1, 2, 0).numpy())
                axes.set_xticks([])
                axes.set_yticks([])
            line[0].set_ylabel(name)
        figure.tight_layout(pad=0.4)
        return to_svg(figure, f"excon-{data}")

    caption = (
        "Test pictures; below, for each method, what Grad-CAM of the predicted class keeps above the threshold of "
        f"{threshold:g}, the rest in the mean colour."
    )
    return Figure(draw, caption, title=data)


def _kept(network: Network, part: LabelledPictures, threshold: float) -> Tensor:
    images = network.normalised(part.pixels)
    with looking(network):
        predicted = network.classify(network.body(images)).argmax(dim=1)
    evidence, _ = explain(network, images, predicted)
    kept = images * above(evidence, threshold)[:, None]
    return ((kept * network.std + network.mean) * 255).round().clamp(0, 255).byte()
