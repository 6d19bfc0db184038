"""What probabilities of a classifier are worth."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def calibration_error(
    probability: Float[Tensor, "batch classes"], label: Int[Tensor, " batch"], *, bins: int = 15
) -> float:
    """Expected calibration error (arXiv 1706.04599): sum over bins of confidence of share |accuracy - confidence|."""
    confidence, predicted = probability.max(dim=1)
    right = (predicted == label).to(confidence)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=confidence.dtype).index_add_(0, place, right - confidence)
    return float(gap.abs().sum() / len(label))
