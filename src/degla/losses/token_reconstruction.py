"""Token reconstruction: a frozen decoder predicts another true text of the image from the caption's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.losses.core.pairwise import mean_of_own
from degla.ranges import Factor


@dataclass(frozen=True)
class TokenReconstruction(Loss):
    """Keep in each caption's state what a frozen language decoder needs to predict another caption of its image.

    Formula:  mean of -log p(y_l | y_<l, W e_i) over the tokens y_l of all texts, or over texts of the mean of each
              e: the state of caption i at its end token, after the last norm, before the projection; W: trained jointly
    Shapes:   reconstruction and its mask, see Embeddings; returns a scalar
    Scope:    local - each caption is compared only with a text of its own image; no gather
    Source:   READ-CLIP, arXiv 2510.16540 (JiH00nKw0n/READ-CLIP b2f096c)
    Differs:  the released code leaves the decoder's dropout on; here it is in evaluation mode
    Cost:     a forward and backward pass of the decoder over the texts, and its weights in memory
    """

    weight: Factor = 0.1
    """Weight of the loss, >= 0 (0.1 in READ-CLIP)."""
    reduction: Literal["token", "sentence"] = "token"
    """Unit of the average: "token", so that long texts count more (READ-CLIP's code), or "sentence"."""

    scaled = False
    reads = frozenset({"reconstruction"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the tokens, or the texts, of all processes."""
        losses, valid = student.require("reconstruction"), student.require("reconstruction_valid")
        if self.reduction == "token":
            return processes.mean(losses, valid)
        return processes.mean(mean_of_own(losses, valid), valid.any(dim=1))
