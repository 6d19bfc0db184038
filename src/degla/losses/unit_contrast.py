"""Contrast of single units of a caption, an object or a relation, each with a foil that differs in one detail."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.losses.positive_contrast import contrast_by_place, same_image
from degla.ranges import Factor


@dataclass(frozen=True)
class UnitContrast(Loss):
    """Pull each image to the units of its caption; push the units of other captions and each unit's own foil away.

    Formula:  1/P sum_p L_p,  L_p = 1/2 mean_i -log e^{s<v_i,u_ip>} / (sum_j e^{s<v_i,u_jp>} + e^{s<v_i,f_ip>})
                                  + 1/2 mean_i -log e^{s<u_ip,v_i>} / sum_j e^{s<u_ip,v_j>}
              v: images, u: units, f: their foils (left out where one is missing), s: `scale`;
              i and j: rows of the global batch that have a unit in place p of P; if none has one, L_p is 0
    Shapes:   see Embeddings (unit and foil); returns a scalar, the mean over P places of means over rows
    Scope:    global - gathers images, units and their mask; logits are computed in bounded blocks
    Source:   CS-CLIP, arXiv 2602.23906 (kargibora/CS-CLIP 98b40c0), with weight 0.5
    Differs:  none known in value: as released, units are compared only within a place. The released gather sends
              gradients only to the process's own rows; here all rows get theirs. As released, equal units of different
              rows push each other away (CS-3), unless `mask_same_text` leaves them out
    Cost:     one encoder pass over units and foils, which are short
    """

    weight: Factor = 0.5
    """Weight of the loss, >= 0 (0.5 in arXiv 2602.23906)."""
    mask_same_text: bool = False
    """Leave out equal units of other rows, which are not negatives; true or false."""
    mask_same_image: bool = False
    """Leave out other rows of the same image, which are not negatives; true or false."""

    reads = frozenset({"unit"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over places of the mean over all processes' rows that have a unit there."""
        unit, valid, foil = student.require("unit"), student.require("unit_valid"), student.require("foil")
        margin = student.scale * torch.einsum("bd,bpd->bp", student.image, foil - unit)
        margin = margin.masked_fill(~student.require("foil_valid"), -torch.inf)
        away = [same_image(student, processes, places=valid.shape[1])] if self.mask_same_image else []
        if self.mask_same_text:
            text = student.require("unit_group")
            away.append(text[:, None] == processes.gather_constant(text)[None])
        return contrast_by_place(student, unit, valid, processes=processes, masks=away, foil=margin)
