"""Raw distillation: an image's embedding before normalisation stays where the teacher has it."""

from __future__ import annotations

from dataclasses import dataclass

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.ranges import Factor


@dataclass(frozen=True)
class RawDistillation(Loss):
    """Pull the student's image embedding to the teacher's, in length and direction; push nothing, read no text.

    Formula:  mean_i sum_d (f_id - f*_id)^2
              f: image embeddings in the joint space, not normalised, *: teacher (no gradient)
    Shapes:   see Embeddings; returns a scalar, the mean over images of a squared Euclidean distance
    Scope:    local - no gather
    Source:   FARE, arXiv 2402.12336: f of an attacked image, f* of the clean one by the model before fine-tuning
    Differs:  none known; `attack.epsilon` sets the attack, and `teacher.kind` the frozen teacher
    Cost:     one teacher pass over the images; if no other loss reads texts, no text is embedded
    """

    weight: Factor = 1.0
    """Weight of the loss, >= 0 (1 in arXiv 2402.12336)."""

    needs = frozenset({"raw_image"})
    same_width = True
    scaled = False
    reads = frozenset({"raw_image"})
    reads_captions = False

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the images of all processes."""
        gap = student.require("raw_image") - teacher.require("raw_image")
        return processes.mean(gap.square().sum(dim=-1))
