"""Image-grounded contrast: an image, its caption and its own negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target, with_own
from degla.ranges import Factor, Share

MissingNegative = Literal["left_out", "published"]


def own_negatives_loss(
    positive: Float[Tensor, " batch"],
    negative: Float[Tensor, "batch negatives"],
    valid: Bool[Tensor, "batch negatives"],
) -> Float[Tensor, " batch"]:
    """Return -log softmax of the positive logit among itself and the row's valid negatives; 0 without any."""
    return with_own(positive, negative.masked_fill(~valid, -torch.inf)) - positive


def calibrated_own_negatives_loss(
    positive: Float[Tensor, " batch"],
    negative: Float[Tensor, "batch negatives"],
    valid: Bool[Tensor, "batch negatives"],
    *,
    smoothing: float,
    focus: float,
    missing: MissingNegative = "left_out",
) -> Float[Tensor, " batch"]:
    """Return `own_negatives_loss` with label smoothing and a focal factor; the same if both are 0.

    With p the softmax over the caption and its K_i valid negatives, and the target y, which is smoothing / (1 + K_i)
    everywhere, plus 1 - smoothing for the caption: - sum_c y_c (1 - p_c)^focus log p_c. If `missing` is
    "published", the softmax has a logit of 0 for each missing negative.

    Source: FSC-CLIP, arXiv 2410.05210, selective calibrated regularisation.
    """
    # With "published" the softmax has the missing negatives, but the target is spread over caption and valid ones only.
    candidates = valid
    if missing == "published":
        negative, candidates = negative.masked_fill(~valid, 0.0), torch.ones_like(valid)
    if smoothing == 0 and focus == 0:
        return own_negatives_loss(positive, negative, candidates)
    logits = torch.cat([positive[:, None], negative.masked_fill(~candidates, -torch.inf)], dim=1)
    log_share = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    log_share = log_share.masked_fill(torch.isneginf(logits), 0.0)  # 0 times -inf is NaN.
    has_target = torch.cat([valid.new_ones(len(valid), 1), valid], dim=1)
    even = smoothing / has_target.sum(dim=1, keepdim=True).to(logits.dtype)
    target = even * has_target
    target[:, 0] += 1 - smoothing
    rest = -torch.expm1(log_share)  # 1 - p, exact where p is near 1.
    # At exactly 0 a power below 1 has no finite gradient; the clamp gives it the gradient 0 there.
    weight = rest.clamp(min=1e-12) ** focus if focus else torch.ones_like(rest)
    return -(target * weight * log_share).sum(dim=1)


@dataclass(frozen=True)
class ImageGrounded(Loss):
    """Pull each image to its caption; push the caption's own negatives away from the image.

    Formula:  mean_i -log e^{s<v_i,t_i>} / (e^{s<v_i,t_i>} + sum_k e^{s<v_i,n_ik>})
              v: images, t: captions, n: valid negatives, s: `scale`; with smoothing b or focus g instead
              mean_i - sum_c y_c (1 - p_c)^g log p_c, p: the softmax over the caption and its K_i negatives,
              y: b / (1 + K_i) everywhere, plus 1 - b for the caption
    Shapes:   see Embeddings; returns a scalar, the mean over pairs that have a valid negative
    Scope:    local - each image is compared only with its caption and that caption's negatives; no gather
    Source:   arXiv 2504.16801, image-grounded contrast; TSVLC (CVPR 2023) before it; smoothing and focus FSC-CLIP,
              arXiv 2410.05210
    Differs:  the released code masks a B x B(1+K) matrix built on the CPU (D-15 in docs/decisions) and has no validity
              mask. FSC-CLIP's code gives missing negatives the logit 0 (F-1); here they are left out, unless
              `missing="published"`
    Cost:     none beyond the shared encoder pass
    """

    weight: Factor = 0.1
    """Weight of the loss, >= 0 (0.1 in arXiv 2504.16801; 0.5 in FSC-CLIP)."""
    smoothing: Share = 0.0
    """Label smoothing: share of the target spread evenly, 0 to 1 (0.02 in FSC-CLIP)."""
    focus: Factor = 0.0
    """Focal exponent, with which confident rows count less, >= 0 (2 in FSC-CLIP)."""
    missing: MissingNegative = "left_out"
    """Missing negatives are left out, or are candidates with the logit 0; "left_out" or "published" (FSC-CLIP)."""

    of_negatives = True

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the pairs of all processes that have a valid negative."""
        positive = student.scale * (student.image * student.caption).sum(-1)
        negative = student.scale * torch.einsum("bd,bkd->bk", student.image, student.negative)
        losses = calibrated_own_negatives_loss(
            positive, negative, student.valid, smoothing=self.smoothing, focus=self.focus, missing=self.missing
        )
        return processes.mean(losses, student.valid.any(dim=1))
