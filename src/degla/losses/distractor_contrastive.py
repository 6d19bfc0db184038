"""Contrast of second images with their texts, with captions as negatives: the roles are exchanged."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target, log_partition
from degla.ranges import Factor


@dataclass(frozen=True)
class DistractorContrastive(Loss):
    """Pull each second image and its text together; push the captions, and other second images and texts, away.

    Formula:  1/2 mean_i -log e^{s<w_i,u_i>} / (sum_j e^{s<w_i,u_j>} + sum_j e^{s<w_i,t_j>})
            + 1/2 mean_i -log e^{s<u_i,w_i>} / sum_j e^{s<u_i,w_j>}
              w: second images, u: their texts, t: captions of the global batch, s: `scale`
    Shapes:   see Embeddings; returns a scalar, the mean over pairs that have a second image
    Scope:    global - gathers second images and their texts, their mask, and the captions
    Source:   TripletCLIP, arXiv 2411.02545: its loss is `contrastive` with the second images' texts as negatives, plus
              this loss
    Differs:  none known; as in the released code, a text is compared only with images of its own kind
    Cost:     one encoder pass over second images and their texts
    """

    weight: Factor = 1.0
    """Weight of the loss, >= 0 (1 in arXiv 2411.02545, which adds the two contrasts instead of averaging them)."""

    reads = frozenset({"distractor"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the pairs of all processes that have a second image."""
        image, text = student.require("distractor_image"), student.require("distractor_caption")
        valid = student.require("distractor_valid")
        images, texts, captions = (processes.gather(rows) for rows in (image, text, student.caption))
        missing = ~processes.gather_constant(valid)

        place = processes.places(image)
        absent = torch.cat([missing, torch.zeros_like(missing)])
        from_image = log_partition(image, torch.cat([texts, captions]), student.scale, absent=absent, target=place)
        from_text = log_partition(text, images, student.scale, absent=missing, target=place)
        return processes.mean((from_image + from_text) / 2, valid)
