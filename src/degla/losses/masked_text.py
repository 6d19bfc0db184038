"""Masked text: masked words of a caption are predicted from the image, so that the text tower keeps what this needs."""

from __future__ import annotations

from dataclasses import dataclass

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.losses.core.pairwise import mean_of_own
from degla.ranges import Factor


@dataclass(frozen=True)
class MaskedText(Loss):
    """Keep in each caption's tokens what a predictor needs to recover the masked words from the image.

    Formula:  mean_i mean_q -log p(w_iq | m_i, v_i)
              w: masked tokens of caption i; m: its token outputs with the mask token instead of w; v: the patches
    Shapes:   prediction and its mask, see Embeddings; returns a scalar, the mean over captions with a masked token
    Scope:    local - each caption is compared only with its own image; no gather
    Source:   MACCO, arXiv 2606.13288 (hiker-lw/MACCO 97fbae1), its text half
    Differs:  none known. As released, the image gets no gradient
    Cost:     the last block of both towers for all patches and tokens; predictor and vocabulary logits of masked ones
    """

    weight: Factor = 20.0
    """Weight of the loss, >= 0 (20 in MACCO)."""

    scaled = False
    reads = frozenset({"prediction"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the captions of all processes that have a masked token."""
        losses, valid = student.require("prediction"), student.require("prediction_valid")
        return processes.mean(mean_of_own(losses, valid), valid.any(dim=1))
