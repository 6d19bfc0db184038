"""The rows of a graph's nodes in their first two principal components, a colour a class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from degla.pages.page import Figure
from degla.pages.plot import PALETTE, styled
from degla.systems.panels import PanelPoints, draw_panels
from degla.systems.ugcl.graph import Graph


def draw_rows(rows: Mapping[str, Float[Tensor, "nodes dim"]], graph: Graph) -> Figure:
    """A panel a method: each node's row in two dimensions."""
    panels = {method: [PanelPoints(principal(each))] for method, each in rows.items()}
    colours = [PALETTE[int(each) % len(PALETTE)] if each >= 0 else "#808890" for each in graph.label]

    @styled
    def draw(width: float) -> str:
        return draw_panels(panels, colours, width=width, columns=5 if width > 6 else 2, name=f"rows {graph.name}")

    caption = f"`{graph.name}`: {len(graph.features)} nodes, {graph.classes} classes"
    if graph.isolated:
        caption += f"; {graph.isolated} have no edge, so that their context is themselves"
    return Figure(draw, caption + ".", title="Rows of the nodes, first two principal components")


def principal(rows: Float[Tensor, "nodes dim"]) -> Float[Tensor, "nodes 2"]:
    """Rows of length one, less their mean, in the two directions of largest variance."""
    unit = torch.nn.functional.normalize(rows.detach().double(), dim=1)
    _, _, directions = torch.linalg.svd(unit - unit.mean(dim=0), full_matrices=False)
    places: Tensor = (unit - unit.mean(dim=0)) @ directions[:2].T
    return places
