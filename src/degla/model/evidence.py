"""Evidence for a score within an image: gradient-based maps, and the part of the image that they select."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize

from degla.model.image import SeesAttention
from degla.ranges import Checked, Share

Map = Float[Tensor, "batch height width"]


@dataclass(frozen=True)
class EvidenceConfig(Checked, section="evidence"):
    """The part of an image with the evidence for its caption, if a loss reads it."""

    threshold: Share = 0.5
    """Evidence, scaled to 0 to 1 per image, above which a patch belongs to the part (0.5 in arXiv 2111.14271)."""
    by: Literal["attention", "random"] = "attention"
    """How the part is chosen: by the gradient of the teacher's similarity with respect to its last attention, or as
    many patches at random; "attention" or "random"."""


def attention_evidence(
    row: Float[Tensor, "batch heads length"], gradient: Float[Tensor, "batch heads length"]
) -> Float[Tensor, "batch length"]:
    """Return attention times the gradient of a score with respect to it, clamped at 0 and summed over heads."""
    return (row * gradient).clamp(min=0.0).sum(dim=1)


def patch_evidence(
    encode: Callable[[Tensor, SeesAttention], Tensor],
    images: Float[Tensor, "batch 3 height width"],
    texts: Float[Tensor, "batch dim"],
) -> Float[Tensor, "batch patches"]:
    """Return how much each patch adds to the similarity of an image and a text (`attention_evidence`).

    Args:
        encode: `Encoder.see_class_token` of a model whose image tower is read at its class token.
        images: transformed.
        texts: unit-length embeddings, one per image.
    """
    leaves: list[Tensor] = []

    def see(row: Tensor, values: Tensor) -> Tensor:
        leaves.append(row.detach().requires_grad_())
        return leaves[0]

    # The graph starts at the attention of the last block: nothing before it is kept.
    with torch.enable_grad():
        raw = encode(images, see)
        similarity = (normalize(raw.float(), dim=-1) * texts).sum()
        (gradient,) = torch.autograd.grad(similarity, leaves[0])
    return attention_evidence(leaves[0].detach().float(), gradient.float())[:, 1:]


def gradient_at(values: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the gradient of a score, one number per row or their sum, at some values; it reaches no parameter."""
    with torch.enable_grad():
        leaf = values.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(score(leaf).sum(), leaf)
    return gradient


def pixel_evidence(
    images: Float[Tensor, "batch 3 height width"],
    score: Callable[[Float[Tensor, "batch 3 height width"]], Float[Tensor, " batch"]],
    *,
    grid: tuple[int, int],
) -> Map:
    """Return gradient of a score times pixels, for any image tower, summed over colours and clamped at 0.

    Args:
        images: transformed, so that 0 is the mean colour, the neutral value.
        score: the score to explain, one number per image.
        grid: number of squares down and across, each with the mean over its pixels.
    """
    return adaptive_avg_pool2d((images.detach() * gradient_at(images, score)).sum(dim=1).clamp(min=0.0), grid)


def keep_patches(
    images: Float[Tensor, "batch 3 height width"], mask: Float[Tensor, "batch down across"]
) -> Float[Tensor, "batch 3 height width"]:
    """Keep images where a patch mask is 1, and set the rest to the mean colour, 0."""
    return images * interpolate(mask[:, None].to(images), size=images.shape[2:], mode="nearest")


def grad_cam(
    states: Float[Tensor, "batch channels height width"],
    score: Callable[[Float[Tensor, "batch channels height width"]], Float[Tensor, " batch"]],
) -> Map:
    """Grad-CAM (arXiv 1610.02391): states weighted by the mean gradient of their channel, summed and clamped at 0.

    Args:
        states: of a late layer.
        score: the score to explain, one number per image, as a function of only the states. Nothing before the states
            is recomputed, and no gradient reaches a parameter.

    Returns:
        Evidence at each position of the states, 0 or more.
    """
    weights = gradient_at(states, score).mean(dim=(2, 3), keepdim=True)
    return (weights * states.detach()).sum(dim=1).clamp(min=0.0)


def enlarge(evidence: Map, size: tuple[int, int]) -> Map:
    """Resize a map to an image's size, bilinearly."""
    return interpolate(evidence[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def unit_range(evidence: Map) -> Map:
    """Scale each map to 0 to 1; a constant map becomes 0."""
    low, high = evidence.amin(dim=(1, 2), keepdim=True), evidence.amax(dim=(1, 2), keepdim=True)
    width = high - low
    return torch.where(width > 0, (evidence - low) / width.clamp(min=torch.finfo(width.dtype).tiny), 0.0)


def above(evidence: Map, threshold: float) -> Map:
    """Return 1 where a map of 0 to 1 is above a threshold, else 0."""
    return (evidence > threshold).to(evidence)


def top_share(evidence: Map, share: float) -> Map:
    """Return 1 at the positions with the most evidence: a share of all, rounded down, but at least one."""
    flat = evidence.flatten(1)
    count = max(1, int(share * flat.shape[1] + 1e-9))
    mask = torch.zeros_like(flat).scatter_(1, flat.topk(count, dim=1).indices, 1.0)
    return mask.view_as(evidence)


def relative_drop(before: Float[Tensor, " batch"], after: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return max(0, p - q) / p: the share of a probability lost when only the explanation's part is kept."""
    return (before - after).clamp(min=0.0) / before


def increased(before: Float[Tensor, " batch"], after: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return 1 where q > p: the part kept by the explanation makes the answer more probable on its own."""
    return (after > before).to(before)
