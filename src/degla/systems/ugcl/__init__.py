"""UGCL: nodes of a graph contrasted with contexts of a chosen scope, beside smoothing alone and no training

Formula:  A~ = D^-1/2 (A + I) D^-1/2; two one-layer encoders give H = PReLU(A~ X W + b) and, with weights of its own,
          Z; the context of scope n is C = A~^n Z, which never leaves a node's connected component.
          L = mean_i [ -cos(H_i, C_i) + log sum_{j != i} e^{cos(H_i, H_j)} ]. Rows of (H + A~^n H) / 2 are classified.
Source:   arXiv 2210.08792; its released code for what the text leaves open.
Differs:  `form` "binomial" has (I + A~)^n Z, which the released script of citation graphs computes where the paper
          writes A~^n. Self-loops are added once, not twice. The loss compares nodes drawn anew in each step, whose
          contexts see the whole graph; the release cuts a window of neighbouring node numbers out of it. The
          classifier's weight decay is chosen on validation nodes, for every method alike; the release chooses it by
          data set, and its script looks at test accuracy alone. The processor is enough; each seed is its own run.
Cost:     Two products with A, one with X, n + 1 more with A~, and the cosines of the drawn nodes, a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from torch import Tensor

from degla.pages.page import Figure
from degla.systems.system import Case, Expectation, ScoreColumn, System, Weights
from degla.systems.ugcl.contrast import GraphEncoder, UgclSettings, embed, train_encoder
from degla.systems.ugcl.graph import Graph, normalised_adjacency, propagate
from degla.systems.ugcl.picture import draw_rows
from degla.systems.ugcl.planetoid import block_model, read_graph
from degla.systems.ugcl.probe import probe_accuracy

NEAR: Final = 1
"""Scope of the method `ugcl_near`, with which that of the settings is compared."""


@lru_cache(maxsize=4)
def _graph(data: str, seed: int) -> Graph:
    return block_model(seed=seed) if data == "block" else read_graph(Path(data))


def _scope(settings: UgclSettings, method: str) -> int:
    return NEAR if method == "ugcl_near" else settings.scope


def _train(settings: UgclSettings, case: Case) -> Weights:
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


def _measure(settings: UgclSettings, case: Case, weights: Weights) -> Mapping[str, float]:
    found = probe_accuracy(_rows(settings, case, weights), _graph(case.data, case.seed))
    return {"test": found.test, "validation": found.validation}


def _draw(settings: UgclSettings, models: Mapping[Case, Weights]) -> Sequence[Figure]:
    figures = []
    for data in dict.fromkeys(case.data for case in models):
        cases = [case for case in models if case.data == data]
        graph = _graph(data, cases[0].seed)
        shown = {case.method: _rows(settings, case, models[case]) for case in cases}
        figures.append(draw_rows(shown, graph))
    return figures


SYSTEM: Final = System(
    title="UGCL: contexts of tunable scope on graphs",
    paper="2210.08792",
    settings=UgclSettings(),
    quick=UgclSettings(dim=128, epochs=60),
    methods=("sgc", "raw", "untrained", "ugcl_near", "ugcl"),
    columns=(
        ScoreColumn("test", "Test nodes whose class a logistic regression on the frozen rows finds."),
        ScoreColumn("validation", "The same of the validation nodes, which choose the regression's weight decay."),
    ),
    train=_train,
    measure=_measure,
    draw=_draw,
    expected=(
        Expectation("ugcl", "sgc", "test", 0.01, data=("block",)),
        Expectation("ugcl", "untrained", "test", 0.10, data=("block",)),
        Expectation("ugcl", "ugcl_near", "test", 0.02, data=("block",)),
    ),
)
