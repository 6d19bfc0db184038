"""Hinge on own negatives: a caption must beat each of its negatives by a fixed margin in similarity to the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.ranges import CosineMargin, Factor


@dataclass(frozen=True)
class OwnHinge(Loss):
    """Push each negative's similarity to the image below its caption's by a margin, and no further.

    Formula:  mean_{i,k} relu(margin + <v_i,n_ik> - <v_i,t_i>)
              v: images, t: captions, n: valid negatives
    Shapes:   see Embeddings; cosines, without the scale; returns a scalar, the mean over valid negatives
    Scope:    local - each image is compared only with its caption and that caption's negatives; no gather
    Source:   Structure-CLIP, arXiv 2305.06152, with weight 5 and one negative; the scene-graph CS-CLIP with weight 1
    Differs:  none known
    Cost:     none beyond the shared encoder pass
    """

    weight: Factor = 5.0
    """Weight of the loss, >= 0 (5 in arXiv 2305.06152)."""
    margin: CosineMargin = 0.1
    """Margin between the cosines, 0 to 2 (0.1 in arXiv 2305.06152)."""

    scaled = False
    of_negatives = True

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the valid negatives of all processes."""
        positive = (student.image * student.caption).sum(-1)
        negative = torch.einsum("bd,bkd->bk", student.image, student.negative)
        return processes.mean(torch.relu(self.margin + negative - positive[:, None]), student.valid)
