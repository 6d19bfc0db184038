"""Training, measuring and pictures of UGCL and its baselines."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from torch import Tensor

from degla.pages.page import Figure
from degla.systems.system import Case, Weights
from degla.systems.ugcl.contrast import GraphEncoder, embed, train_encoder
from degla.systems.ugcl.graph import Graph, normalised_adjacency, propagate
from degla.systems.ugcl.picture import draw_rows
from degla.systems.ugcl.planetoid import block_model, read_graph
from degla.systems.ugcl.probe import probe_accuracy
from degla.systems.ugcl.settings import UgclSettings

NEAR: Final = 1
"""Scope of the method `ugcl_near`, with which that of the settings is compared."""


@lru_cache(maxsize=4)
def _graph(data: str, seed: int) -> Graph:
    return block_model(seed=seed) if data == "block" else read_graph(Path(data))


def _scope(settings: UgclSettings, method: str) -> int:
    return NEAR if method == "ugcl_near" else settings.scope


def train(settings: UgclSettings, case: Case) -> Weights:
    """One encoder of nodes; nothing for `sgc` and `raw`."""
    if case.method in ("sgc", "raw"):
        return {}
    graph = _graph(case.data, case.seed)
    if case.method == "untrained":
        return GraphEncoder(graph.features.shape[1], settings.dim).state_dict()
    return train_encoder(graph, settings, scope=_scope(settings, case.method)).state_dict()


def _rows(settings: UgclSettings, case: Case, weights: Weights) -> Tensor:
    """What the probe reads: n + 1 hops of smoothing are what UGCL's rows have, too."""
    graph = _graph(case.data, case.seed)
    if case.method == "raw":
        return graph.features
    if case.method == "sgc":
        adjacency = normalised_adjacency(graph.edges, len(graph.features))
        return propagate(adjacency, graph.features, settings.scope + 1)
    encoder = GraphEncoder(graph.features.shape[1], settings.dim)
    encoder.load_state_dict(dict(weights))
    return embed(encoder, graph, scope=_scope(settings, case.method))


def measure(settings: UgclSettings, case: Case, weights: Weights) -> Mapping[str, float]:
    """Accuracy of a linear classifier on the frozen rows."""
    found = probe_accuracy(_rows(settings, case, weights), _graph(case.data, case.seed))
    return {"test": found.test, "validation": found.validation}


def draw(settings: UgclSettings, models: Mapping[Case, Weights]) -> Figure:
    """Rows of the nodes by all methods."""
    first = next(iter(models))
    shown = {case.method: _rows(settings, case, weights) for case, weights in models.items()}
    return draw_rows(shown, _graph(first.data, first.seed))
