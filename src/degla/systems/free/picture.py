"""Real features of classes never trained on, and those made for them, in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from degla.pages.page import Figure
from degla.pages.plot import FONT, PALETTE, both_widths, styled, to_svg
from degla.systems.free.data import ZeroShotData
from degla.systems.free.training import FreeModel

_SHOWN: Final = 6
"""Classes, and made features of each are as many as real ones."""


def draw_features(models: Mapping[str, FreeModel], data: ZeroShotData) -> Figure:
    """A panel a model, a colour a class: dots are real, crosses are made."""
    classes = data.unseen[:_SHOWN]
    rows = data.test_unseen[torch.isin(data.label[data.test_unseen], classes)]
    real, label = data.features[rows], data.label[rows]
    middle = real.mean(dim=0)
    _, _, directions = torch.linalg.svd(real - middle, full_matrices=False)
    told = data.semantics[label]
    with torch.no_grad():
        made = {name: model.maker.generate(torch.randn_like(told), told) for name, model in models.items()}
    points = {name: (each - middle) @ directions[:2].T for name, each in {"": real, **made}.items()}
    colours = [PALETTE[int((classes == each).nonzero()[0]) % len(PALETTE)] for each in label]

    @styled
    def draw(width: float) -> str:
        return _panels(points, colours, width=width, name=data.name)

    return Figure(
        both_widths(draw),
        f"{data.name}: {len(classes)} classes never trained on, a colour each. Dots are real, crosses are made.",
        title="Real and made features, first two principal components of the real ones",
    )


def _panels(points: Mapping[str, torch.Tensor], colours: list[str], *, width: float, name: str) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    titles = [title for title in points if title]
    figure = Canvas(figsize=(width, width / len(titles) * 0.8))
    FigureCanvasAgg(figure)
    panels: list[Any] = list(figure.subplots(1, len(titles), squeeze=False, sharex=True, sharey=True).ravel())
    for axes, title in zip(panels, titles, strict=True):
        for places, marker, size in ((points[""], "o", 6), (points[title], "x", 10)):
            axes.scatter(places[:, 0].tolist(), places[:, 1].tolist(), s=size, c=colours, marker=marker, linewidths=0.7)
        axes.set_title(title, fontsize=FONT)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.tight_layout()
    return to_svg(figure, f"features {name}")
