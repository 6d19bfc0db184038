"""Sigmoid loss of an image with its caption and its own negatives, one term per pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.losses.core.pairwise import false_pair, mean_of_own, pair_logits, true_pair
from degla.ranges import Factor


@dataclass(frozen=True)
class SigmoidImageGrounded(Loss):
    """Match each image with its caption, and with none of the caption's own negatives.

    Formula:  mean_i sp(-z(v_i,t_i)) + w / K_i sum_k sp(z(v_i,n_ik))
              z(v,t) = s<v,t> + b, sp(z) = log(1 + e^z), v: images, t: captions, n: valid negatives, K_i of them,
              s: `scale`, b: `bias`, w: `negative_weight`
    Shapes:   see Embeddings; returns a scalar, the mean over pairs that have a valid negative
    Scope:    local - each image is compared only with its caption and that caption's negatives; no gather
    Source:   the image-grounded contrast of arXiv 2504.16801, with the loss of SigLIP, arXiv 2303.15343
    Differs:  unpublished. It uses the model's own bias, which cancels in a softmax over one image's texts
    Cost:     none beyond the shared encoder pass
    """

    weight: Factor = 0.1
    """Weight of the loss, >= 0 (0.1 in arXiv 2504.16801, for the softmax)."""
    negative_weight: Factor = 1.0
    """Weight of the mean over a caption's negatives, >= 0; at 1 they count together as much as the caption."""

    reads = frozenset({"bias"})
    of_negatives = True

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the pairs of all processes that have a valid negative."""
        own = true_pair(pair_logits(student, (student.image * student.caption).sum(-1)))
        false = false_pair(pair_logits(student, torch.einsum("bd,bkd->bk", student.image, student.negative)))
        losses = own + self.negative_weight * mean_of_own(false, student.valid)
        return processes.mean(losses, student.valid.any(dim=1))
