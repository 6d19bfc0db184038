"""UGCL's loss and encoders: a node is contrasted with its context, the other encoder's rows smoothed over n hops."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from degla.losses.core.partition import log_partition, own_place
from degla.systems.learning import take_step
from degla.systems.ugcl.graph import Graph, normalised_adjacency, propagate
from degla.systems.ugcl.settings import UgclSettings

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
    words = graph.features.to_sparse() if graph.features.count_nonzero() < _DENSE * graph.features.numel() else None
    features = graph.features if words is None else words
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
