"""Text-text contrast: an additional true text has to find its caption among those of the whole batch, or vice versa."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target, log_partition
from degla.ranges import Factor


@dataclass(frozen=True)
class TextContrast(Loss):
    """Pull each caption and the additional true texts of its image together; push those of other images away.

    Formula:  mean_{i,p} -log e^{s<r_ip,t_i>} / (e^{s<r_ip,t_i>} + sum_{j!=i} e^{s<r_ip,t_j>})             ("positive")
              mean_{i,p} -log e^{s<q_i,r_ip>} / (e^{s<q_i,r_ip>} + sum_{j!=i,q} e^{s<q_i,r_jq>})        (the others)
              r: valid positives, t: captions, both of the global batch, s: `scale`; q: captions ("caption"), images
              ("image"), or the mean of both values ("both")
    Shapes:   see Embeddings; returns a scalar, the mean over valid positives
    Scope:    global - gathers captions ("positive"), or positives and their mask
    Source:   READ-CLIP, arXiv 2510.16540, sentence alignment, with weight 0.5: "positive" in the released code
              (JiH00nKw0n/READ-CLIP b2f096c); TSVLC (CVPR 2023) has "both", weight 1
    Differs:  READ-CLIP's paper writes "caption", which gives another value on the same rows. Its "other caption" can be
              the caption itself (R-2 in docs/decisions); here the data set prevents that. With several positives per
              row, the others of the same row are not negatives. TSVLC gathers no positives from other processes
    Cost:     one encoder pass over the positives
    """

    weight: Factor = 0.5
    """Weight of the loss, >= 0 (0.5 in arXiv 2510.16540)."""
    anchor: Literal["positive", "caption", "image", "both"] = "positive"
    """Query: the positive, which has to find its caption ("positive", READ-CLIP's code); or what has to find the
    positive: the caption ("caption", READ-CLIP's paper), the image ("image") or each of them ("both", TSVLC)."""
    mask_same_image: bool = False
    """Leave out texts of other rows of the same image, which are not negatives; true or false."""

    reads = frozenset({"positive"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the valid positives of all processes."""
        positive, valid = student.require("positive"), student.require("positive_valid")
        rows, count = valid.shape
        # Candidates: for each row of the global batch its caption, or its `count` positives.
        per_row = 1 if self.anchor == "positive" else count
        own, owners = processes.places(valid), torch.arange(rows * processes.count, device=valid.device)
        row = own.repeat_interleave(count)
        place = torch.arange(rows * count, device=valid.device) % count
        target = row * per_row + place % per_row
        if self.mask_same_image:
            group, groups = student.group, processes.gather_constant(student.group)
        else:
            group, groups = own, owners
        of_query, of_candidate = group.repeat_interleave(count), groups.repeat_interleave(per_row)
        if self.anchor == "positive":
            pairs = [(positive.flatten(0, 1), processes.gather(student.caption))]
            missing = torch.zeros_like(of_candidate, dtype=torch.bool)
        else:
            caption, image = student.caption, student.image
            anchors = {"caption": (caption,), "image": (image,), "both": (caption, image)}
            candidates = processes.gather(positive).flatten(0, 1)
            pairs = [(query.repeat_interleave(count, dim=0), candidates) for query in anchors[self.anchor]]
            missing = ~processes.gather_constant(valid).flatten()

        def absent(part: slice) -> Bool[Tensor, "queries candidates"]:
            akin = of_query[part, None] == of_candidate[None, :]
            return (akin | missing).scatter(1, target[part, None], value=False)

        losses = [log_partition(*pair, student.scale, absent=absent, target=target) for pair in pairs]
        return processes.mean(torch.stack(losses).mean(dim=0), valid.flatten())
