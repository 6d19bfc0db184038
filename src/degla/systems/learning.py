"""What systems share when they learn: a step, a network of kept weights, a linear classifier on frozen features."""

from __future__ import annotations

from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from degla.systems.system import Weights

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def take_step(loss: Float[Tensor, ""], *optimisers: torch.optim.Optimizer, most: float | None = None) -> None:
    """One step of each optimiser; gradients are those of this loss alone, whoever left some before.

    Args:
        loss: whose gradients they follow.
        optimisers: of the parties that move.
        most: norm at which the gradients of all that one optimiser moves are cut.
    """
    for optimiser in optimisers:
        optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for optimiser in optimisers:
        if most is not None:
            nn.utils.clip_grad_norm_([each for group in optimiser.param_groups for each in group["params"]], most)
        optimiser.step()


def with_weights(network: AnyNetwork, weights: Weights) -> AnyNetwork:
    """The network with weights that training left, in evaluation mode."""
    network.load_state_dict(dict(weights))
    return network.eval()


def probe(
    features: Float[Tensor, "rows dim"],
    label: Int[Tensor, " rows"],
    *,
    classes: int,
    decay: float = 1e-3,
    steps: int = 60,
    scaled: bool = True,
) -> Float[Tensor, "classes dim_and_one"]:
    """Logistic regression by L-BFGS from zeros, on features that are brought to mean 0 and variance 1.

    Args:
        features: of training rows.
        label: of each.
        classes: how many there are; a class without a row is never the answer but by chance.
        decay: factor of the squared weights.
        steps: of L-BFGS.
        scaled: bring them there; else they are taken as they are.

    Returns:
        Weights on the features as they are, the bias last; for `classify`.
    """
    features = features.detach().double()
    mean, spread = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    if not scaled:
        mean, spread = torch.zeros_like(mean), torch.ones_like(spread)
    rows = torch.cat([(features - mean) / spread, features.new_ones(len(features), 1)], dim=1)
    weights = torch.zeros(classes, rows.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(rows @ weights.T, label) + decay * weights[:, :-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = weights.detach()
    slopes = found[:, :-1] / spread
    return torch.cat([slopes, (found[:, -1] - slopes @ mean)[:, None]], dim=1).float()


def classify(
    weights: Float[Tensor, "classes dim_and_one"], features: Float[Tensor, "rows dim"]
) -> Int[Tensor, " rows"]:
    """The class of each row."""
    return (features @ weights[:, :-1].T + weights[:, -1]).argmax(dim=1)
