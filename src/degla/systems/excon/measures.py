"""What explanations and probabilities of a classifier are worth."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

Probability = Float[Tensor, " batch"]


def average_drop(before: Probability, after: Probability) -> float:
    """Mean of max(0, p - q) / p: how much of a class's probability is lost with what its explanation leaves out."""
    return float(((before - after).clamp(min=0.0) / before).mean())


def rate_of_increase(before: Probability, after: Probability) -> float:
    """Share with q > p: the explanation alone makes the class more probable."""
    return float((after > before).float().mean())


def calibration_error(
    probability: Float[Tensor, "batch classes"], label: Int[Tensor, " batch"], *, bins: int = 15
) -> float:
    """Expected calibration error (arXiv 1706.04599): sum over bins of confidence of share |accuracy - confidence|."""
    confidence, predicted = probability.max(dim=1)
    right = (predicted == label).to(confidence)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=confidence.dtype).index_add_(0, place, right - confidence)
    return float(gap.abs().sum() / len(label))
