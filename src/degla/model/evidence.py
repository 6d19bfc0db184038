"""Where a score's evidence lies in a picture: maps from gradients, and the part of the picture that they keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from degla.ranges import Checked, Share

Map = Float[Tensor, "batch height width"]


@dataclass(frozen=True)
class EvidenceConfig(Checked, section="evidence"):
    """Which part of an image has the evidence for its caption, where a loss reads it."""

    threshold: Share = 0.5
    """Evidence, each image's brought to 0 to 1, above which a patch belongs to the part (0.5 in arXiv 2111.14271)."""
    by: Literal["attention", "random"] = "attention"
    """By the gradient of the teacher's similarity in its last attention; or as many patches, drawn by chance;
    "attention" or "random"."""


def attention_evidence(
    row: Float[Tensor, "batch heads length"], gradient: Float[Tensor, "batch heads length"]
) -> Float[Tensor, "batch length"]:
    """Attention times the gradient of a score in it, negative products cut to 0, summed over heads."""
    return (row * gradient).clamp(min=0.0).sum(dim=1)


def grad_cam(
    states: Float[Tensor, "batch channels height width"],
    score: Callable[[Float[Tensor, "batch channels height width"]], Float[Tensor, " batch"]],
) -> Map:
    """Grad-CAM (arXiv 1610.02391): states weighted by the mean gradient of their channel, negative sums cut to 0.

    Args:
        states: of a late layer.
        score: what is explained, one number a picture, as a function of the states alone. Nothing before the states
            is computed again, and no gradient reaches a parameter.

    Returns:
        Evidence at the states' places, 0 or more.
    """
    with torch.enable_grad():
        leaf = states.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(score(leaf).sum(), leaf)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * leaf.detach()).sum(dim=1).clamp(min=0.0)


def enlarge(evidence: Map, size: tuple[int, int]) -> Map:
    """Brought to a picture's size, bilinear."""
    return interpolate(evidence[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def unit_range(evidence: Map) -> Map:
    """Each map brought to 0 to 1; one that is the same everywhere says nothing and is 0."""
    low, high = evidence.amin(dim=(1, 2), keepdim=True), evidence.amax(dim=(1, 2), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (evidence - low) / spread.clamp(min=torch.finfo(spread.dtype).tiny), 0.0)


def above(evidence: Map, threshold: float) -> Map:
    """1 where a map of 0 to 1 is above a threshold, else 0."""
    return (evidence > threshold).to(evidence)


def top_share(evidence: Map, share: float) -> Map:
    """1 at the places with the most evidence, a share of all rounded down to whole places and at least one."""
    flat = evidence.flatten(1)
    count = max(1, int(share * flat.shape[1]))
    kept = torch.zeros_like(flat).scatter_(1, flat.topk(count, dim=1).indices, 1.0)
    return kept.view_as(evidence)
