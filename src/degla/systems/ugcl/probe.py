"""How well frozen rows tell the classes: logistic regression, with its weight decay chosen on the validation nodes."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from degla.systems.probe import classify, probe
from degla.systems.ugcl.graph import Graph

DECAYS: Final = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
"""Weight decays that are tried, the same for every method; the first of equals is taken."""


class ProbeAccuracy(NamedTuple):
    """Shares of nodes, 0 to 1."""

    validation: float
    test: float


def probe_accuracy(rows: Float[Tensor, "nodes dim"], graph: Graph) -> ProbeAccuracy:
    """Accuracy of the regression that does best on the validation nodes; the test nodes choose nothing.

    Args:
        rows: of the nodes; their mean length is brought to one first.
        graph: classes and splits.
    """
    scaled = rows.detach() / rows.norm(dim=1).mean().clamp(min=torch.finfo(rows.dtype).tiny)
    best = ProbeAccuracy(-1.0, 0.0)
    for decay in DECAYS:
        # The probe's factor is that of the squares themselves, not of their half.
        weights = probe(scaled[graph.train], graph.label[graph.train], classes=graph.classes, decay=decay / 2,
                        scaled=False)  # fmt: skip
        right = classify(weights, scaled) == graph.label
        found = ProbeAccuracy(*(float(right[part].double().mean()) for part in (graph.validation, graph.test)))
        best = found if found.validation > best.validation else best
    return best
