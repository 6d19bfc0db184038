"""Image-grounded contrast of additional true texts: an image, each of its texts and the caption's own negatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.losses.image_grounded import own_negatives_loss
from degla.ranges import Factor


@dataclass(frozen=True)
class PositiveGrounded(Loss):
    """Pull each image to its additional true texts; push its caption's own negatives away from the image.

    Formula:  mean_{i,p} -log e^{s<v_i,r_ip>} / (e^{s<v_i,r_ip>} + sum_k e^{s<v_i,n_ik>})
              v: images, r: valid positives, n: valid negatives of the caption, s: `scale`
    Shapes:   see Embeddings (positive); returns a scalar, the mean over valid positives of rows with a valid negative
    Scope:    local - each image is compared only with its own positives and negatives; no gather
    Source:   CLIC, arXiv 2505.24424 (AmitPeleg/CLIC dc845c7): 1/4 of `image_grounded` plus 3/4 of this loss are its
              loss of four texts against one negative
    Differs:  none known
    Cost:     one encoder pass over the positives
    """

    weight: Factor = 0.375
    """Weight of the loss, >= 0 (0.375 in arXiv 2505.24424: half of 3/4)."""

    reads = frozenset({"positive"})
    of_negatives = True

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the valid positives of all processes' rows that have a valid negative."""
        positive, there = student.require("positive"), student.require("positive_valid")
        places = there.shape[1]
        right = student.scale * torch.einsum("bd,bpd->bp", student.image, positive)
        wrong = student.scale * torch.einsum("bd,bkd->bk", student.image, student.negative)
        losses = own_negatives_loss(
            right.flatten(), wrong.repeat_interleave(places, dim=0), student.valid.repeat_interleave(places, dim=0)
        )
        return processes.mean(losses, (there & student.valid.any(dim=1, keepdim=True)).flatten())
