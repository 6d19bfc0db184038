"""Soft alignment: contrast over the global batch in which images of the same text share their targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.ranges import Factor, Share


@dataclass(frozen=True)
class SoftAlignment(Loss):
    """Pull all images and captions with the same text together equally; push pairs with other texts away.

    Formula:  mean_i H(y_i, softmax_j(s<v_i,t_j>)) + mean_i H(y_i, softmax_j(s<t_i,v_j>))
              H: cross entropy; v: images, t: captions of the global batch, s: `scale`; y_ij: b / B everywhere, plus
              (1 - b) / m_i for the m_i pairs j with the same text as caption i, b: `smoothing`
    Shapes:   see Embeddings; returns a scalar, the mean over pairs
    Scope:    global - gathers images, captions and the numbers of their texts
    Source:   GIFT, arXiv 2503.04229, image-text alignment on generated pairs
    Differs:  none known; as published, both directions are added, while `contrastive` averages them
    Cost:     none beyond the shared encoder pass
    """

    weight: Factor = 0.25
    """Weight of the loss, >= 0 (0.25 in arXiv 2503.04229)."""
    smoothing: Share = 0.2
    """Label smoothing: share of the target spread evenly over the batch, 0 to 1 (0.2 in arXiv 2503.04229)."""

    reads = frozenset({"text_group"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the pairs of all processes."""
        group = student.require("text_group")
        equal = group[:, None] == processes.gather_constant(group)[None, :]
        images, captions = processes.gather(student.image), processes.gather(student.caption)
        from_image = self._cross_entropy(student.scale * student.image @ captions.T, equal)
        from_caption = self._cross_entropy(student.scale * student.caption @ images.T, equal)
        return processes.mean(from_image + from_caption)

    def _cross_entropy(
        self, logits: Float[Tensor, "batch all"], equal: Bool[Tensor, "batch all"]
    ) -> Float[Tensor, " batch"]:
        log_share = torch.log_softmax(logits, dim=1)
        alike = log_share.where(equal, log_share.new_zeros(())).sum(dim=1) / equal.sum(dim=1)
        return -(1 - self.smoothing) * alike - self.smoothing * log_share.mean(dim=1)
