"""Intra-modal contrast of CE-CLIP: captions are pushed away from all hard negatives of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target, log_partition
from degla.ranges import Factor


@dataclass(frozen=True)
class IntraModal(Loss):
    """Pull each caption to its image; push the negatives of the whole batch away from the caption, text against text.

    Formula:  mean_i -log e^{s<v_i,t_i>} / (e^{s<v_i,t_i>} + sum_{c,k} e^{s<t_i,n_ck>})
              v: images, t: captions, n: valid negatives of the global batch, s: `scale`
    Shapes:   see Embeddings; returns a scalar, the mean over all pairs (0 where no caption has a valid negative)
    Scope:    global - gathers the negatives
    Source:   CE-CLIP, arXiv 2306.08832, intra-modal contrast
    Differs:  the released code omits the positive and uses the first negative of the first caption as the target of
              every row (CE-1 in docs/decisions); `target="published"` reproduces it. Missing negatives stay in its
              denominator (CE-3), but never here.
    Cost:     none beyond the shared encoder pass
    """

    weight: Factor = 0.2
    """Weight of the loss, >= 0 (0.2 in DeGLA's reproduction of CE-CLIP, 0.3 in CE-CLIP's script)."""
    target: Literal["correct", "published"] = "correct"
    """The caption's own image, or the released code's target; "correct" or "published"."""

    of_negatives = True

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the pairs of all processes."""
        negatives = processes.gather(student.negative)
        valid = processes.gather_constant(student.valid)
        positive = student.scale * (student.image * student.caption).sum(-1)
        among = log_partition(student.caption, negatives.flatten(0, 1), student.scale, absent=~valid.flatten())
        if self.target == "correct":
            return processes.mean(torch.logaddexp(among, positive) - positive)
        if not bool(valid.any()):
            return processes.mean(0.0 * positive)
        first = negatives.flatten(0, 1)[int(valid.flatten().to(torch.uint8).argmax())]
        return processes.mean(among - student.scale * (student.caption @ first))
