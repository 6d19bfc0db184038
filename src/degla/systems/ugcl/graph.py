"""Graphs with words and labels, their normalised adjacency, and rows smoothed over n hops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from degla.errors import InputError

Scope = Literal["power", "binomial"]
"""How n hops are taken: A~^n, as the paper writes, or (I + A~)^n, as the released script of citation graphs does."""


@dataclass(frozen=True)
class Graph:
    """An undirected graph whose nodes have features and, some of them, a class.

    Attributes:
        name: for tables and messages.
        features: of each node.
        edges: pairs of different nodes, each once.
        label: class of each node, -1 where it has none.
        train: nodes whose class the probe is trained on.
        validation: nodes by which settings are chosen.
        test: nodes that are scored.

    Raises:
        InputError: an edge or a split names a node that is not there, there is another number of labels than of nodes,
            a node of a split has no class, one is trained on and tested, or a feature is no number.
    """

    name: str
    features: Float[Tensor, "nodes features"]
    edges: Int[Tensor, "2 edges"]
    label: Int[Tensor, " nodes"]
    train: Int[Tensor, " train"]
    validation: Int[Tensor, " validation"]
    test: Int[Tensor, " test"]

    def __post_init__(self) -> None:
        nodes = len(self.features)
        if self.label.shape != (nodes,):
            shape = " x ".join(map(str, self.label.shape))
            raise InputError(f"{self.name}: {shape} labels for {nodes} nodes; there must be one a node.")
        if not self.features.isfinite().all():
            node = int((~self.features.isfinite()).any(dim=1).nonzero()[0])
            raise InputError(f"{self.name}: node {node} has a feature that is no finite number; mend or drop it.")
        if self.edges.numel() and not 0 <= int(self.edges.min()) <= int(self.edges.max()) < nodes:
            raise InputError(
                f"{self.name}: an edge names node {_outside(self.edges, nodes)}; nodes go from 0 to {nodes - 1}."
            )
        for part in ("train", "validation", "test"):
            numbers = getattr(self, part)
            if not len(numbers) or not 0 <= int(numbers.min()) <= int(numbers.max()) < nodes:
                raise InputError(f"{self.name}: the {part} split is empty or names nodes outside 0 to {nodes - 1}.")
            bare = numbers[self.label[numbers] < 0]
            if len(bare):
                raise InputError(f"{self.name}: node {int(bare[0])} of the {part} split has no label; take it out.")
        shared = set(self.train.tolist()) & set(self.test.tolist())
        if shared:
            raise InputError(f"{self.name}: node {min(shared)} is trained on and tested; take it out of one split.")
        if len(set(self.label[self.train].tolist())) < 2:
            raise InputError(f"{self.name}: the train split has one class; a probe needs two or more.")

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.label.max()) + 1

    @property
    def isolated(self) -> int:
        """Nodes without an edge: their context is themselves, whatever the scope."""
        return len(self.features) - len(set(self.edges.flatten().tolist()))


def _outside(numbers: Tensor, count: int) -> int:
    return int(numbers[(numbers < 0) | (numbers >= count)][0])


def undirected(pairs: Int[Tensor, "2 pairs"]) -> Int[Tensor, "2 edges"]:
    """Pairs in any direction and number as edges: each once, the smaller node first, no node with itself."""
    ordered = torch.stack([pairs.min(dim=0).values, pairs.max(dim=0).values])
    edges: Tensor = torch.unique(ordered[:, ordered[0] != ordered[1]], dim=1)
    return edges


def normalised_adjacency(edges: Int[Tensor, "2 edges"], nodes: int) -> Float[Tensor, "nodes nodes"]:
    """A~ = D^-1/2 (A + I) D^-1/2 with D the row sums of A + I, sparse; a self-loop is added once, whatever is given."""
    once = undirected(edges)
    loops = torch.arange(nodes)
    places = torch.cat([once, once.flip(0), torch.stack([loops, loops])], dim=1)
    degree = torch.bincount(places[0], minlength=nodes).to(torch.get_default_dtype())
    values = (degree[places[0]] * degree[places[1]]).rsqrt()
    return torch.sparse_coo_tensor(places, values, (nodes, nodes), check_invariants=True).coalesce()


def propagate(
    adjacency: Float[Tensor, "nodes nodes"], rows: Float[Tensor, "nodes dim"], hops: int, *, form: Scope = "power"
) -> Float[Tensor, "nodes dim"]:
    """A~^n X, or (I + A~)^n X; n = 0 is X itself. `rows` stays as it is.

    Args:
        adjacency: A~, sparse or dense.
        rows: X.
        hops: n, 0 or more.
        form: what is raised to the power.
    """
    for _ in range(hops):
        neighbours = adjacency @ rows
        rows = neighbours if form == "power" else rows + neighbours
    return rows
