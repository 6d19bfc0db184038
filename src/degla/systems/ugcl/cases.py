"""UGCL's loss and encoders, and training, evaluation and figures of UGCL and its baselines.

A node is contrasted with its context, the other encoder's rows smoothed over n hops. Rows are evaluated by logistic
regression, with its weight decay chosen on the validation nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from degla.losses.core.partition import log_partition, own_place
from degla.pages.page import Figure
from degla.systems.learning import classify, probe, take_step, with_weights
from degla.systems.panels import PanelPoints, panel_figure, two_directions
from degla.systems.system import Weights
from degla.systems.ugcl.graph import Graph, block_model, normalised_adjacency, propagate, read_graph, wordnet
from degla.systems.ugcl.settings import UgclSettings

DECAYS: Final = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
"""Weight decays to try, the same for every method; the first of equally good ones is used."""
NEAR: Final = 1
"""Scope of the method `ugcl_near`, for comparison with that of the settings."""
_DENSE: Final = 0.1
"""Share of non-zero features above which a dense matrix is faster."""


def contextual_loss(nodes: Float[Tensor, "nodes dim"], contexts: Float[Tensor, "nodes dim"]) -> Float[Tensor, ""]:
    """Return mean_i -cos(H_i, C_i) + log sum_{j != i} e^{cos(H_i, H_j)}, without a temperature (arXiv 2210.08792).

    Args:
        nodes: H, two or more.
        contexts: C, one per node.
    """
    unit = normalize(nodes, dim=-1)
    pulled = (unit * normalize(contexts, dim=-1)).sum(dim=-1)
    one = torch.ones((), dtype=unit.dtype)
    return (log_partition(unit, unit, one, absent=lambda rows: own_place(rows, unit)) - pulled).mean()


class GraphEncoder(nn.Module):
    """One graph convolution: PReLU(A~ X W + b)."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features, dim))
        nn.init.xavier_uniform_(self.weight)
        self.bias = nn.Parameter(torch.zeros(dim))
        self.activation = nn.PReLU()

    def forward(self, adjacency: Tensor, features: Float[Tensor, "nodes features"]) -> Float[Tensor, "nodes dim"]:
        """Return one row per node."""
        rows: Tensor = self.activation(adjacency @ (features @ self.weight) + self.bias)
        return rows


def train_encoder(graph: Graph, settings: UgclSettings, *, scope: int) -> GraphEncoder:
    """Train the encoder of nodes, with torch's generator; that of contexts is dropped, as in the released code.

    Args:
        graph: graph, whose labels are not read.
        settings: training settings; with 0 epochs the encoder stays untrained.
        scope: n, used instead of that of the settings.
    """
    own, other = (GraphEncoder(graph.features.shape[1], settings.dim) for _ in range(2))
    adjacency = normalised_adjacency(graph.edges, len(graph.features))
    # Words are nearly all zeros, and products with a sparse matrix have gradients only for the dense one.
    sparse = graph.features.count_nonzero() < _DENSE * graph.features.numel()
    features = graph.features.to_sparse() if sparse else graph.features
    optimiser = torch.optim.Adam([*own.parameters(), *other.parameters()], lr=settings.lr)
    for _ in range(settings.epochs):
        sample: Int[Tensor, " sample"] = torch.randperm(len(graph.features))[: settings.sample]
        contexts = propagate(adjacency, other(adjacency, features), scope, form=settings.form)
        loss = contextual_loss(own(adjacency, features)[sample], contexts[sample])
        take_step(loss, optimiser)
    return own


@torch.no_grad()
def embed(encoder: GraphEncoder, graph: Graph, *, scope: int) -> Float[Tensor, "nodes dim"]:
    """Return (H + A~^n H) / 2, by which nodes are classified."""
    adjacency = normalised_adjacency(graph.edges, len(graph.features))
    rows: Tensor = encoder(adjacency, graph.features)
    return (rows + propagate(adjacency, rows, scope)) / 2


def probe_accuracy(rows: Float[Tensor, "nodes dim"], graph: Graph) -> dict[str, float]:
    """Return the accuracy of the regression that is best on the validation nodes; test nodes choose nothing.

    Args:
        rows: rows of the nodes; they are first scaled to mean length 1.
        graph: classes and splits.

    Returns:
        Accuracy, 0 to 1, for "test" and "validation".
    """
    scaled = rows.detach() / rows.norm(dim=1).mean().clamp(min=torch.finfo(rows.dtype).tiny)
    best = {"validation": -1.0}
    for decay in DECAYS:
        # The probe's factor is for the squares themselves, not for half of them.
        weights = probe(
            scaled[graph.train], graph.label[graph.train], classes=graph.classes, decay=decay / 2, scaled=False
        )
        right = classify(weights, scaled) == graph.label
        parts = {"test": graph.test, "validation": graph.validation}
        accuracy = {name: float(right[part].double().mean()) for name, part in parts.items()}
        best = accuracy if accuracy["validation"] > best["validation"] else best
    return best


def principal(rows: Float[Tensor, "nodes dim"]) -> Float[Tensor, "nodes 2"]:
    """Project normalised rows, minus their mean, onto the two directions of largest variance."""
    unit = normalize(rows.detach().double(), dim=1)
    centred = unit - unit.mean(dim=0)
    return centred @ two_directions(centred)


@lru_cache(maxsize=4)
def read(settings: UgclSettings, data: str, seed: int) -> Graph:
    """Read a graph from a file, or make the block model or the split of WordNet of the seed."""
    made = {"block": block_model, "wordnet": wordnet}.get(data)
    return read_graph(Path(data)) if made is None else made(seed=seed)


def _scope(settings: UgclSettings, method: str) -> int:
    return NEAR if method == "ugcl_near" else settings.scope


def train(settings: UgclSettings, graph: Graph, method: str) -> Weights:
    """Train one encoder of nodes; nothing for `sgc` and `raw`."""
    if method in ("sgc", "raw"):
        return {}
    if method == "untrained":
        return GraphEncoder(graph.features.shape[1], settings.dim).state_dict()
    return train_encoder(graph, settings, scope=_scope(settings, method)).state_dict()


def _rows(settings: UgclSettings, graph: Graph, method: str, weights: Weights) -> Tensor:
    """Return the rows for the probe; `sgc` has n + 1 hops of smoothing, as UGCL's rows have."""
    if method == "raw":
        return graph.features
    if method == "sgc":
        adjacency = normalised_adjacency(graph.edges, len(graph.features))
        return propagate(adjacency, graph.features, settings.scope + 1)
    encoder = with_weights(GraphEncoder(graph.features.shape[1], settings.dim), weights)
    return embed(encoder, graph, scope=_scope(settings, method))


def measure(settings: UgclSettings, graph: Graph, method: str, weights: Weights) -> Mapping[str, float]:
    """Measure the accuracy of a linear classifier on the frozen rows."""
    return probe_accuracy(_rows(settings, graph, method, weights), graph)


def draw(settings: UgclSettings, graph: Graph, models: Mapping[str, Weights], name: str) -> Figure:
    """Draw one panel per method with each node's row in two dimensions."""
    panels = {
        method: [PanelPoints(principal(_rows(settings, graph, method, weights)))] for method, weights in models.items()
    }
    caption = f"`{graph.name}`: {len(graph.features)} nodes, {graph.classes} classes"
    if graph.isolated:
        caption += f"; {graph.isolated} have no edge, so they are their own context"
    title = "Rows of the nodes, first two principal components"
    return panel_figure(panels, graph.label.tolist(), caption + ".", title=title, name=f"rows {graph.name}", columns=5)
