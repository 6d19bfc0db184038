"""Text-grounded contrast: a caption, the teacher's embedding of it and its own negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.losses.image_grounded import own_negatives_loss
from degla.ranges import Factor, Positive


@dataclass(frozen=True)
class TextGrounded(Loss):
    """Pull each caption to the teacher's embedding of the same caption; push its own negatives away from it.

    Formula:  mean_i -log e^{c<t_i,y_i>} / (e^{c<t_i,y_i>} + sum_k e^{c<t_i,n_ik>})
              t: student captions, y: teacher captions (no gradient), n: valid student negatives, c: `fixed_scale`
    Shapes:   see Embeddings; returns a scalar, the mean over pairs that have a valid negative
    Scope:    local - each caption is compared only with its own negatives; no gather (pairing="published" gathers)
    Source:   arXiv 2504.16801, text-grounded contrast
    Differs:  the released code pairs a caption with others' negatives: row i with the rows i + m B (m = 0..K-1) of the
              flattened negatives [B K] of the global batch (D-2 in docs/decisions); `pairing="published"` reproduces it
    Cost:     one teacher pass over the captions
    """

    weight: Factor = 0.1
    """Weight of the loss, >= 0 (0.1 in arXiv 2504.16801, made with the published pairing)."""
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
        losses = own_negatives_loss(self.fixed_scale * true, self.fixed_scale * false, valid)
        return processes.mean(losses, valid.any(dim=1))


def text_cosines(
    student: Embeddings, teacher: Target, processes: Processes, *, pairing: Literal["own", "published"]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch negatives"], Bool[Tensor, "batch negatives"]]:
    """Return the cosines of each caption with its teacher embedding and its negatives, and which negatives count."""
    negatives, valid = student.negative, student.valid
    if pairing == "published":
        negatives, valid = published_pairing(student, processes)
    true = (student.caption * teacher.require("caption")).sum(-1)
    return true, torch.einsum("bd,bkd->bk", student.caption, negatives), valid


def published_pairing(
    student: Embeddings, processes: Processes
) -> tuple[Float[Tensor, "batch negatives dim"], Bool[Tensor, "batch negatives"]]:
    """Return the negatives that the released mask selects, as if they were the row's own."""
    everyone, everyone_valid = processes.gather(student.negative), processes.gather_constant(student.valid)
    total, count, _ = everyone.shape
    # The released mask repeats the identity over the columns, which reads the axis as (negative, caption), while
    # the columns are laid out as (caption, negative).
    column = processes.places(student.caption)[:, None] + total * torch.arange(count, device=everyone.device)[None, :]
    caption, negative = column // max(count, 1), column % max(count, 1)
    return everyone[caption, negative], everyone_valid[caption, negative]
