"""Training helpers of the systems: batches, a step, a network with saved weights, a linear classifier on features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from degla.errors import InputError
from degla.parse import cut_short, in_one_line
from degla.systems.system import Weights

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def batches(count: int, size: int, *, epochs: int = 1) -> Iterator[Int[Tensor, " rows"]]:
    """Yield the numbers of `count` rows, at most `size` at a time, in a new random order in each epoch."""
    for _ in range(epochs):
        yield from torch.split(torch.randperm(count), size)


def take_step(loss: Float[Tensor, ""], *optimisers: torch.optim.Optimizer, most: float | None = None) -> None:
    """Take one step of each optimiser with the gradients of this loss only; existing gradients are cleared.

    Args:
        loss: loss to minimise.
        optimisers: optimisers to step.
        most: maximum gradient norm of each optimiser's parameters.
    """
    for optimiser in optimisers:
        optimiser.zero_grad()
    loss.backward()
    for optimiser in optimisers:
        if most is not None:
            nn.utils.clip_grad_norm_([each for group in optimiser.param_groups for each in group["params"]], most)
        optimiser.step()


def with_weights(network: AnyNetwork, weights: Weights) -> AnyNetwork:
    """Load trained weights into a network, and set it to evaluation mode.

    Raises:
        InputError: settings or data give a network of other parts or sizes.
    """
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise InputError(
            "the model was trained with other settings, or other data, which decide its size. Restore them, or train "
            f"again with another --out ({cut_short(in_one_line(error), 200)})."
        ) from None
    return network.eval()


def probe(
    features: Float[Tensor, "rows dim"],
    label: Int[Tensor, " rows"],
    *,
    classes: int,
    decay: float = 1e-3,
    scaled: bool = True,
) -> Float[Tensor, "classes dim_and_one"]:
    """Fit a logistic regression by L-BFGS from zeros, on features standardised to mean 0 and variance 1.

    Args:
        features: features of the training rows.
        label: class of each row.
        classes: number of classes; one without rows is hardly ever predicted.
        decay: factor of the squared weights.
        scaled: standardise the features; otherwise they are used as they are.

    Returns:
        Weights on the original features, the bias last; for `classify`.
    """
    features = features.detach().double()
    mean, deviation = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    if not scaled:
        mean, deviation = torch.zeros_like(mean), torch.ones_like(deviation)
    rows = torch.cat([(features - mean) / deviation, features.new_ones(len(features), 1)], dim=1)
    weights = torch.zeros(classes, rows.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(rows @ weights.T, label) + decay * weights[:, :-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    solution = weights.detach()
    slopes = solution[:, :-1] / deviation
    return torch.cat([slopes, (solution[:, -1] - slopes @ mean)[:, None]], dim=1).float()


def classify(
    weights: Float[Tensor, "classes dim_and_one"], features: Float[Tensor, "rows dim"]
) -> Int[Tensor, " rows"]:
    """Return the class of each row."""
    return (features @ weights[:, :-1].T + weights[:, -1]).argmax(dim=1)
