"""Image-text contrast over the global batch, with the hard negatives as further texts for every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from degla.objectives import Embeddings, Part, Processes, Target


@dataclass(frozen=True)
class Contrastive:
    """Pull each image to its caption and each caption to its image; push all other captions, images and negatives away.

    Formula:  1/2 mean_i -log e^{s<v_i,t_i>} / (sum_j e^{s<v_i,t_j>} + sum_{(c,k) in N(i)} e^{s<v_i,n_ck>})
            + 1/2 mean_i -log e^{s<t_i,v_i>} / sum_j e^{s<t_i,v_j>}
              v: images, t: captions, n: valid negatives, s: `scale`;
              N(i) is empty ("none"), the negatives of caption i ("own"), or those of the whole global batch ("batch")
    Shapes:   see Embeddings; returns a scalar, the mean over all pairs
    Scope:    global - gathers images, captions, negatives and their mask
    Source:   CLIP, arXiv 2103.00020; with negatives NegCLIP (ICLR 2023) and arXiv 2504.16801, Eq. 2-4
    Differs:  DeGLA's paper sums the own negatives in Eq. 4, its code those of the whole batch; "batch" is the default
              because published weights were made with it. Negatives never act as queries, as in both.
    Cost:     one encoder pass of images, captions and (unless "none") negatives
    """

    weight: float = 1.0
    """Factor of the term, >= 0."""
    negative_scope: Literal["none", "own", "batch"] = "batch"
    """Whose negatives an image meets: "none", "own" or "batch" (arXiv 2504.16801's code)."""
    mask_same_image: bool = False
    """Leave out captions and images of the same picture, which are no negatives; true or false."""

    needs: ClassVar[frozenset[Part]] = frozenset()

    def __call__(self, student: Embeddings, teacher: Target, processes: Processes) -> Float[Tensor, ""]:
        """Mean over the pairs of all processes."""
        images, captions = processes.gather(student.image), processes.gather(student.caption)
        rows = len(student.image)
        own = torch.arange(rows, device=images.device) + processes.rank * rows

        to_captions = student.scale * student.image @ captions.T
        to_images = student.scale * student.caption @ images.T
        if self.mask_same_image:
            groups = processes.gather_constant(student.group)
            same = student.group[:, None] == groups[None, :]
            same[torch.arange(rows, device=same.device), own] = False
            to_captions = to_captions.masked_fill(same, -torch.inf)
            to_images = to_images.masked_fill(same, -torch.inf)

        texts = torch.cat([to_captions, *self._to_negatives(student, processes)], dim=1)
        from_image = torch.nn.functional.cross_entropy(texts, own, reduction="none")
        from_caption = torch.nn.functional.cross_entropy(to_images, own, reduction="none")
        return processes.mean((from_image + from_caption) / 2)

    def _to_negatives(self, student: Embeddings, processes: Processes) -> list[Float[Tensor, "batch negatives"]]:
        if self.negative_scope == "none" or student.negative.shape[1] == 0:
            return []
        if self.negative_scope == "own":
            logits = student.scale * torch.einsum("bd,bkd->bk", student.image, student.negative)
            return [logits.masked_fill(~student.valid, -torch.inf)]
        negatives = processes.gather(student.negative)
        valid = processes.gather_constant(student.valid)
        logits = student.scale * torch.einsum("bd,ckd->bck", student.image, negatives)
        return [logits.masked_fill(~valid, -torch.inf).flatten(1)]
