"""Contrast with distractor images: a negated caption is a negative for its image, and the positive of another."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target, log_partition
from degla.ranges import Factor


@dataclass(frozen=True)
class Distractor(Loss):
    """Pull images to captions, captions to images, and distractor images to negated captions, among both kinds.

    Formula:  image mean_i -log e^{s<v_i,t_i>} / sum_j (e^{s<v_i,t_j>} + e^{s<v_i,u_j>})
            + caption mean_i -log e^{s<t_i,v_i>} / sum_j (e^{s<t_i,v_j>} + e^{s<t_i,w_j>})
            + distractor mean_i -log e^{s<w_i,u_i>} / sum_j (e^{s<w_i,u_j>} + e^{s<w_i,t_j>})
              v: images, t: captions, w: distractor images, u: negated captions of the global batch, s: `scale`
    Shapes:   see Embeddings (distractor: its image and the negated caption); returns a scalar: means over all pairs,
              the last one over pairs that have a distractor
    Scope:    global - gathers images, captions, distractor images, negated captions and their mask
    Source:   CoN-CLIP, arXiv 2403.20312; negated captions are never queries
    Differs:  in the released data only the negated captions lack commas (Co-3), so punctuation gives them away; here
              texts are used unchanged
    Cost:     one encoder pass over distractor images and negated captions
    """

    weight: Factor = 1.0
    """Weight of the whole loss, >= 0."""
    image: Factor = 1 / 3
    """Weight of the image part, >= 0 (1/3 in arXiv 2403.20312)."""
    caption: Factor = 1 / 3
    """Weight of the caption part, >= 0 (1/3 in arXiv 2403.20312)."""
    distractor: Factor = 1 / 3
    """Weight of the distractor image part, >= 0 (1/3 in arXiv 2403.20312)."""

    reads = frozenset({"distractor"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Weighted sum of the three means over the pairs of all processes."""
        valid = student.require("distractor_valid")
        own_distractor, own_negated = student.require("distractor_image"), student.require("distractor_caption")
        gathered = (processes.gather(rows) for rows in (student.image, student.caption, own_distractor, own_negated))
        images, captions, distractors, negated = gathered
        missing = ~processes.gather_constant(valid)
        absent = torch.cat([torch.zeros_like(missing), missing])

        place = processes.places(valid)
        texts = torch.cat([captions, negated])
        from_image = log_partition(student.image, texts, student.scale, absent=absent, target=place)
        from_caption = log_partition(
            student.caption, torch.cat([images, distractors]), student.scale, absent=absent, target=place
        )
        from_distractor = log_partition(
            own_distractor, texts, student.scale, absent=absent, target=place + len(captions)
        )
        return (
            self.image * processes.mean(from_image)
            + self.caption * processes.mean(from_caption)
            + self.distractor * processes.mean(from_distractor, valid)
        )
