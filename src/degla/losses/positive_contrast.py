"""Contrast of images with further true texts, each place of a row's texts for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from degla.losses.core import Embeddings, Loss, Processes, Target
from degla.losses.core.places import contrast_by_place, nothing, same_image
from degla.ranges import Factor


@dataclass(frozen=True)
class PositiveContrast(Loss):
    """Pull each image to further true texts, and those to their image; push the further texts of other images away.

    Formula:  1/P sum_p L_p,  L_p = 1/2 mean_i -log e^{s<v_i,r_ip>} / sum_j e^{s<v_i,r_jp>}
                                  + 1/2 mean_i -log e^{s<r_ip,v_i>} / sum_j e^{s<r_ip,v_j>}
              v: images, r: positives, s: `scale`; i and j: rows of the global batch that have a positive in place p of
              P; without any, L_p is 0
    Shapes:   see Embeddings (positive); returns a scalar, the mean over P places of means over rows
    Scope:    global - gathers images, positives and their mask; logits are held in blocks of bounded size
    Source:   CLIC, arXiv 2505.24424 (AmitPeleg/CLIC dc845c7): with `contrastive` without negatives for the caption,
              1/4 of the one and 3/4 of the other are its contrast of four texts
    Differs:  none known
    Cost:     one encoder pass of the positives
    """

    weight: Factor = 0.375
    """Factor of the loss, >= 0 (0.375 in arXiv 2505.24424: half of 3/4)."""
    mask_same_image: bool = False
    """Leave out texts and images of other rows of the same picture, which are no negatives; true or false."""

    reads: ClassVar[frozenset[str]] = frozenset({"positive"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> Float[Tensor, ""]:
        """The mean over places of the mean over all processes' rows that have a positive there."""
        valid = student.require("positive_valid")
        away = (same_image if self.mask_same_image else nothing)(student, processes, places=valid.shape[1])
        return contrast_by_place(student, student.require("positive"), valid, processes=processes, left_out=away)
