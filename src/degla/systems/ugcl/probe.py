"""How well frozen rows tell the classes: logistic regression, with its weight decay chosen on the validation nodes."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from degla.systems.ugcl.graph import Graph

DECAYS: Final = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
"""Weight decays that are tried, the same for every method; the first of equals is taken."""
_STEPS: Final = 60


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
        weight, bias = fit(scaled[graph.train], graph.label[graph.train], classes=graph.classes, decay=decay)
        right = (scaled @ weight + bias).argmax(dim=1) == graph.label
        found = ProbeAccuracy(*(float(right[part].double().mean()) for part in (graph.validation, graph.test)))
        best = found if found.validation > best.validation else best
    return best


def fit(
    rows: Float[Tensor, "nodes dim"], label: Int[Tensor, " nodes"], *, classes: int, decay: float
) -> tuple[Float[Tensor, "dim classes"], Float[Tensor, " classes"]]:
    """Weight and bias of the smallest mean cross-entropy + decay / 2 ||W||^2, from zeros by L-BFGS."""
    weight = torch.zeros(rows.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = cross_entropy(rows @ weight + bias, label) + decay / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
