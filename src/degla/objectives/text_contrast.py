"""Text-text contrast: a caption, or its image, finds its own paraphrase among those of the whole batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from degla.objectives import Embeddings, Extra, Part, Processes, Target
from degla.objectives._partition import log_partition


@dataclass(frozen=True)
class TextContrast:
    """Pull each caption to the further true texts of its image; push those of other images away from it.

    Formula:  mean_{i,p} -log e^{s<q_i,r_ip>} / (e^{s<q_i,r_ip>} + sum_{j!=i,q} e^{s<q_i,r_jq>})
              q: captions ("caption"), images ("image"), or the mean of both values ("both"); r: valid positives of the
              global batch, s: `scale`
    Shapes:   see Embeddings; returns a scalar, the mean over valid positives
    Scope:    global - gathers positives and their mask
    Source:   READ-CLIP, arXiv 2510.16540, sentence alignment, with weight 0.5; TSVLC (CVPR 2023) has "both", weight 1
    Differs:  READ-CLIP's "other caption" can be the caption itself (R-2 in docs/decisions); the data refuse that here.
              With several positives a row, the others of the same row are no negatives
    Cost:     one encoder pass of the positives
    """

    weight: float = 0.5
    """Factor of the term, >= 0 (0.5 in arXiv 2510.16540)."""
    anchor: Literal["caption", "image", "both"] = "caption"
    """What finds the positive: "caption" (READ-CLIP), "image" or "both" (TSVLC)."""
    mask_same_image: bool = False
    """Leave out positives of other rows of the same picture, which are no negatives; true or false."""

    needs: ClassVar[frozenset[Part]] = frozenset()
    reads: ClassVar[frozenset[Extra]] = frozenset({"positive"})

    def __call__(self, student: Embeddings, teacher: Target, processes: Processes) -> Float[Tensor, ""]:
        """Mean over the valid positives of all processes."""
        positive, valid = student.require("positive"), student.require("positive_valid")
        rows, count = valid.shape
        candidates = processes.gather(positive).flatten(0, 1)
        missing = ~processes.gather_constant(valid).flatten()
        own = processes.own_rows(rows * count)
        target = torch.arange(own.start, own.stop, device=valid.device)
        if self.mask_same_image:
            group, groups = student.group, processes.gather_constant(student.group)
        else:
            first = processes.own_rows(rows).start
            group = torch.arange(first, first + rows, device=valid.device)
            groups = torch.arange(rows * processes.count, device=valid.device)
        of_query, of_candidate = group.repeat_interleave(count), groups.repeat_interleave(count)

        def absent(part: slice) -> Bool[Tensor, "queries candidates"]:
            akin = of_query[part, None] == of_candidate[None, :]
            return (akin | missing).scatter(1, target[part, None], value=False)

        anchors = {"caption": (student.caption,), "image": (student.image,), "both": (student.caption, student.image)}
        losses = [
            log_partition(
                query.repeat_interleave(count, dim=0), candidates, student.scale, absent=absent, target=target
            )
            for query in anchors[self.anchor]
        ]
        return processes.mean(torch.stack(losses).mean(dim=0), valid.flatten())
