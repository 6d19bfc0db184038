"""The rows of a graph's nodes in their first two principal components, a colour a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from degla.pages.page import Figure
from degla.pages.plot import FONT, PALETTE, both_widths, styled, to_svg
from degla.systems.ugcl.graph import Graph

_TITLES = {"sgc": "smoothed words", "raw": "words", "untrained": "untrained", "ugcl_near": "one hop", "ugcl": "UGCL"}


def draw_rows(rows: Mapping[str, Float[Tensor, "nodes dim"]], graph: Graph) -> Figure:
    """A panel a method: each node's row in two dimensions."""

    @styled
    def draw(width: float) -> str:
        return _panels({method: principal(each) for method, each in rows.items()}, graph, width=width)

    caption = f"`{graph.name}`: {len(graph.features)} nodes, {graph.classes} classes"
    if graph.isolated:
        caption += f"; {graph.isolated} have no edge, so that their context is themselves"
    return Figure(both_widths(draw), caption + ".", title="Rows of the nodes, first two principal components")


def principal(rows: Float[Tensor, "nodes dim"]) -> Float[Tensor, "nodes 2"]:
    """Rows of length one, less their mean, in the two directions of largest variance."""
    unit = torch.nn.functional.normalize(rows.detach().double(), dim=1)
    _, _, directions = torch.linalg.svd(unit - unit.mean(dim=0), full_matrices=False)
    places: Tensor = (unit - unit.mean(dim=0)) @ directions[:2].T
    return places


def _panels(points: Mapping[str, Tensor], graph: Graph, *, width: float) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    columns = min(len(points), 5 if width > 6 else 2)
    lines = -(-len(points) // columns)
    figure = Canvas(figsize=(width, width / columns * lines + 0.3))
    FigureCanvasAgg(figure)
    panels: list[Any] = list(figure.subplots(lines, columns, squeeze=False).ravel())
    colours = [PALETTE[int(each) % len(PALETTE)] if each >= 0 else "#808890" for each in graph.label]
    for axes, (method, places) in zip(panels, points.items(), strict=False):
        axes.scatter(places[:, 0].tolist(), places[:, 1].tolist(), s=4, c=colours, linewidths=0, rasterized=True)
        axes.set_title(_TITLES.get(method, method), fontsize=FONT)
        axes.set_xticks([])
        axes.set_yticks([])
    for axes in panels[len(points) :]:
        axes.set_visible(False)
    figure.tight_layout()
    return to_svg(figure, f"rows {graph.name}")
