"""Image-text contrast over the global batch, with the hard negatives as additional texts for every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.losses.core.partition import Absent, log_partition, with_own
from degla.ranges import Factor


@dataclass(frozen=True)
class Contrastive(Loss):
    """Pull each image to its caption and each caption to its image; push all other captions, images and negatives away.

    Formula:  1/2 mean_i -log e^{s<v_i,t_i>} / (sum_j e^{s<v_i,t_j>} + sum_{(c,k) in N(i)} e^{s<v_i,n_ck>})
            + 1/2 mean_i -log e^{s<t_i,v_i>} / sum_j e^{s<t_i,v_j>}      ("images": twice the first half)
              v: images, t: captions, n: valid negatives, s: `scale`;
              N(i) is empty ("none"), the negatives of caption i ("own"), or those of the whole global batch ("batch")
    Shapes:   see Embeddings; returns a scalar, the mean over all pairs
    Scope:    global - gathers images, captions, negatives and their mask; logits are computed in bounded blocks
    Source:   CLIP, arXiv 2103.00020; with negatives NegCLIP (ICLR 2023) and arXiv 2504.16801, Eq. 2-4
    Differs:  Eq. 4 of DeGLA's paper sums over a caption's own negatives, its code over those of the whole batch, which
              is the default because published weights were trained that way. As in both, negatives are never queries.
    Cost:     one encoder pass over images, captions and (unless "none") negatives
    """

    weight: Factor = 1.0
    """Weight of the loss, >= 0."""
    negative_scope: Literal["none", "own", "batch"] = "batch"
    """Negatives that each image is compared with: "none", "own" or "batch" (the code of arXiv 2504.16801)."""
    queries: Literal["both", "images"] = "both"
    """What retrieves the other: "both", or only "images", whose mean then counts whole (CS-CLIP-SG)."""
    mask_same_image: bool = False
    """Leave out other pairs of the same image, which are not negatives; true or false."""

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the pairs of all processes."""
        captions = processes.gather(student.caption)
        texts, missing = self._texts(captions, student, processes)
        place = processes.places(student.image)
        absent_texts: Absent | Tensor = missing
        absent_images: Absent | None = None
        if self.mask_same_image:
            groups = processes.gather_constant(student.group)

            def others_of_image(rows: slice) -> Bool[Tensor, "rows all"]:
                return (student.group[rows, None] == groups).scatter(1, place[rows, None], value=False)

            def missing_or_others(rows: slice) -> Bool[Tensor, "rows texts"]:
                own = missing.expand(rows.stop - rows.start, -1).clone()
                own[:, : len(captions)] |= others_of_image(rows)
                return own

            absent_texts, absent_images = missing_or_others, others_of_image

        from_image = log_partition(student.image, texts, student.scale, absent=absent_texts, target=place)
        if self.negative_scope == "own" and student.negative.shape[1]:
            from_image = with_own(from_image, student.margins(student.image))
        if self.queries == "images":
            return processes.mean(from_image)
        images = processes.gather(student.image)
        from_caption = log_partition(student.caption, images, student.scale, absent=absent_images, target=place)
        return processes.mean((from_image + from_caption) / 2)

    def _texts(
        self, captions: Float[Tensor, "all dim"], student: Embeddings, processes: Processes
    ) -> tuple[Float[Tensor, "texts dim"], Bool[Tensor, " texts"]]:
        """Return the texts that every image is compared with, and a mask of those that do not exist."""
        missing = torch.zeros(len(captions), dtype=torch.bool, device=captions.device)
        if self.negative_scope != "batch" or student.negative.shape[1] == 0:
            return captions, missing
        negatives = processes.gather(student.negative)
        valid = processes.gather_constant(student.valid)
        return torch.cat([captions, negatives.flatten(0, 1)]), torch.cat([missing, ~valid.flatten()])
