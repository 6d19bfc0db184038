"""Sigmoid loss of a caption with the teacher's embedding of it and its own negatives, one term per negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.losses.core.pairwise import false_pair, mean_of_own
from degla.losses.text_grounded import text_cosines
from degla.ranges import Factor, Positive


@dataclass(frozen=True)
class SigmoidTextGrounded(Loss):
    """Push each negative further from its caption than the teacher's embedding of the caption is.

    Formula:  mean_i 1 / K_i sum_k sp(c<t_i,n_ik> - c<t_i,y_i>)
              sp(z) = log(1 + e^z), t: student captions, y: teacher captions (no gradient), n: valid student negatives,
              K_i of them, c: `fixed_scale`
    Shapes:   see Embeddings; returns a scalar, the mean over pairs that have a valid negative
    Scope:    local - each caption is compared only with its own negatives; no gather (pairing="published" gathers)
    Source:   the text-grounded contrast of arXiv 2504.16801, with the loss of SigLIP, arXiv 2303.15343
    Differs:  unpublished. The model's bias is for image-text pairs, and two texts are far more similar, so the logit of
              the true pair is used instead. With one negative it equals `text_grounded`
    Cost:     one teacher pass over the captions
    """

    weight: Factor = 0.1
    """Weight of the loss, >= 0 (0.1 in arXiv 2504.16801, for the softmax)."""
    fixed_scale: Positive = 10.0
    """Fixed 1 / temperature of this loss, > 0 (temperature 0.1 in arXiv 2504.16801)."""
    pairing: Literal["own", "published"] = "own"
    """Negatives of a caption: its own, or those that the released code pairs with it; "own" or "published"."""

    needs = frozenset({"caption"})
    same_width = True
    scaled = False
    of_negatives = True

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the pairs of all processes that have a valid negative."""
        true, false, valid = text_cosines(student, teacher, processes, pairing=self.pairing)
        losses = false_pair(self.fixed_scale * (false - true[:, None]))
        return processes.mean(mean_of_own(losses, valid), valid.any(dim=1))
