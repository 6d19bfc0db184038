"""Logit distillation: keep the teacher's ranking of the batch's captions for each image, and of images for captions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.ranges import Factor, Positive


@dataclass(frozen=True)
class LogitDistillation(Loss):
    """Pull the student's distribution over captions (of an image) and over images (of a caption) to the teacher's.

    Formula:  T^2 mean_i H(softmax_j(s<v*_i,t*_j> / T), softmax_j(s<v_i,t_j> / T))
            + T^2 mean_i H(softmax_j(s<t*_i,v*_j> / T), softmax_j(s<t_i,v_j> / T))
              H: cross entropy; v: images, t: captions of the global batch, *: teacher (no gradient), s: `scale` (no
              gradient), T: temperature
    Shapes:   see Embeddings; returns a scalar, the mean over pairs
    Scope:    global - gathers images and captions of student and teacher
    Source:   GIFT, arXiv 2503.04229, contrastive distillation on generated pairs
    Differs:  GIFT freezes the scale; here it gets no gradient from this loss. One variant in the released code swaps
              student and teacher (G-3), so that the gradient flows through the targets; here it never does.
    Cost:     one teacher pass over images and captions
    """

    weight: Factor = 1.0
    """Weight of the loss, >= 0 (1 in arXiv 2503.04229)."""
    temperature: Positive = 2.0
    """Temperature of both distributions, > 0 (2 in arXiv 2503.04229)."""

    needs = frozenset({"image", "caption"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the pairs of all processes."""
        images, captions = processes.gather(student.image), processes.gather(student.caption)
        image, caption = teacher.require("image"), teacher.require("caption")
        scale = student.scale.detach() / self.temperature
        rows = _cross_entropy(
            scale * image @ processes.gather_constant(caption).T, scale * student.image @ captions.T
        ) + _cross_entropy(scale * caption @ processes.gather_constant(image).T, scale * student.caption @ images.T)
        return self.temperature**2 * processes.mean(rows)


def _cross_entropy(target: Tensor, logits: Tensor) -> Float[Tensor, " batch"]:
    """Return H(softmax(target), softmax(logits)) for each row."""
    return -(torch.softmax(target, dim=1) * torch.log_softmax(logits, dim=1)).sum(dim=1)
