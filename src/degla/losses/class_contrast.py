"""Class contrast: an image finds the text of its class among those of all classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.ranges import Factor, Share


@dataclass(frozen=True)
class ClassContrast(Loss):
    """Pull each image to the text of its class; push the texts of the other classes away from it.

    Formula:  mean_i - sum_c y_ic log (e^{s<v_i,p_c>} / sum_d e^{s<v_i,p_d>})
              v: images, p: texts of the C classes, s: `scale`, y: b / C everywhere, plus 1 - b for the image's
              class, b: `smoothing`
    Shapes:   see Embeddings; returns a scalar, the mean over images that have a class
    Scope:    local - each image is compared with all classes and no other pair; no gather
    Source:   GIFT, arXiv 2503.04229, with smoothing 0.2; TeCoA, arXiv 2212.07016, without smoothing, on attacked images
    Differs:  none known
    Cost:     one encoder pass over the class texts at every step
    """

    weight: Factor = 1.0
    """Weight of the loss, >= 0 (1 in arXiv 2503.04229 and arXiv 2212.07016)."""
    smoothing: Share = 0.0
    """Label smoothing: share of the target spread evenly over all classes, 0 to 1 (0.2 in arXiv 2503.04229)."""

    reads = frozenset({"classes"})
    reads_captions = False

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the images of all processes that have a class."""
        label = student.require("label")
        log_share = torch.log_softmax(student.scale * student.image @ student.require("classes").T, dim=1)
        right = log_share.gather(1, label.clamp(min=0)[:, None])[:, 0]
        losses = -(1 - self.smoothing) * right - self.smoothing * log_share.mean(dim=1)
        return processes.mean(losses, label >= 0)
