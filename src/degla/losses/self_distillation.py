"""Self-distillation: stay near the teacher's embeddings of the same images and texts."""

from __future__ import annotations

from dataclasses import dataclass

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.ranges import Factor


@dataclass(frozen=True)
class SelfDistillation(Loss):
    """Pull every embedding of the student to the teacher's embedding of the same input; push nothing.

    Formula:  image mean_i |v_i - v*_i|^2 + text mean_x |x - x*|^2
              v: images, x: captions and valid negatives together, *: teacher (no gradient)
    Shapes:   see Embeddings; returns a scalar; squared Euclidean distance of unit vectors, 0 to 4
    Scope:    local - no gather
    Source:   arXiv 2504.16801, self-distillation
    Differs:  the released code takes the *sum* over the global batch with weight 0.005, so its strength depends on B
              and K (D-13 in docs/decisions); `published_sum` converts such a weight into this batch-independent form
    Cost:     one teacher pass over images, captions and negatives
    """

    weight: Factor = 1.0
    """Weight of the whole loss, >= 0."""
    image: Factor = 1.28
    """Weight of the mean over images, >= 0 (arXiv 2504.16801: 0.005 summed over B = 256)."""
    text: Factor = 6.4
    """Weight of the mean over texts, >= 0 (arXiv 2504.16801: 0.005 summed over 256 captions and 4 negatives each)."""

    needs = frozenset({"image", "caption", "negative"})
    same_width = True
    scaled = False

    @classmethod
    def published_sum(cls, weight: float, *, batch_size: int, negatives: int) -> SelfDistillation:
        """Return the mean form that equals a published weight of the sum.

        Args:
            weight: published weight of the summed squared distances, 0.005 in arXiv 2504.16801.
            batch_size: global batch size of the published weight, 256.
            negatives: negatives per caption of the published weight, 4.
        """
        return cls(image=weight * batch_size, text=weight * batch_size * (1 + negatives))

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the images, and over the captions and valid negatives, of all processes."""
        image = (student.image - teacher.require("image")).square().sum(-1)
        caption = (student.caption - teacher.require("caption")).square().sum(-1)
        negative = (student.negative - teacher.require("negative")).square().sum(-1)
        negative = negative.where(student.valid, negative.new_zeros(()))

        # This process's share of the mean over all texts, as `Processes.mean` has it; missing negatives do not count.
        texts = processes.total(student.valid.sum() + caption.numel()).clamp(min=1)
        text = (caption.sum() + negative.sum()) * processes.count / texts
        return self.image * processes.mean(image) + self.text * text
