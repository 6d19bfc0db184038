"""Real features of classes never trained on, and those made for them, in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from degla.pages.page import Figure
from degla.pages.plot import PALETTE, styled
from degla.systems.free.data import ZeroShotData
from degla.systems.free.training import FreeModel
from degla.systems.panels import PanelPoints, draw_panels

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
    flat = {name: (each - middle) @ directions[:2].T for name, each in {"": real, **made}.items()}
    panels = {name: [PanelPoints(flat[""], size=6), PanelPoints(flat[name], "x", 10)] for name in made}
    colours = [PALETTE[int((classes == each).nonzero()[0]) % len(PALETTE)] for each in label]

    @styled
    def draw(width: float) -> str:
        return draw_panels(panels, colours, width=width, columns=2, name=f"features {data.name}", shared=True)

    return Figure(
        draw,
        f"{data.name}: {len(classes)} classes never trained on, a colour each. Dots are real, crosses are made.",
        title="Real and made features, first two principal components of the real ones",
    )
