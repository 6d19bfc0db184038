"""Image-text pairs of the global batch, each judged alone by a sigmoid, with hard negatives as further false pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.losses.core.pairwise import false_pair, false_pairs_of_all, pair_logits, true_pair
from degla.losses.core.partition import own_place
from degla.ranges import Factor


@dataclass(frozen=True)
class SigmoidContrastive(Loss):
    """Say yes to each image with its caption, and no to each image with any other caption or negative.

    Formula:  mean_i sp(-z(v_i,t_i)) + sum_{j != i} sp(z(v_i,t_j)) + w sum_{(c,k) in N(i)} sp(z(v_i,n_ck))
              z(v,t) = s<v,t> + b, sp(z) = log(1 + e^z), v: images, t: captions, n: valid negatives, s: `scale`,
              b: `bias`, w: `negative_weight`; N(i) is empty ("none"), the negatives of caption i ("own"), or those of
              the whole global batch ("batch")
    Shapes:   see Embeddings; returns a scalar, the mean over images of a sum over texts
    Scope:    global - texts of one process at a time visit the others; logits are held in blocks of bounded size
    Source:   SigLIP, arXiv 2303.15343; the negatives are NegCLIP's (ICLR 2023), each one a false pair
    Differs:  none known for captions; no method with such negatives is published
    Cost:     one encoder pass of images, captions and (unless "none") negatives
    """

    weight: Factor = 1.0
    """Factor of the loss, >= 0."""
    negative_scope: Literal["none", "own", "batch"] = "batch"
    """Whose negatives an image meets: "none", "own" or "batch"."""
    negative_weight: Factor = 1.0
    """Factor of the pair with a negative, >= 0; at 1 it counts as much as that with another caption."""
    mask_same_image: bool = False
    """Leave out captions of the same picture, which are no false pairs; true or false."""

    reads = frozenset({"bias"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the images of all processes."""
        pairs, negatives = student.valid.shape
        own = true_pair(pair_logits(student, (student.image * student.caption).sum(-1)))
        texts, weight = student.caption, torch.ones_like(own)
        if self.negative_scope == "batch" and negatives:
            texts = torch.cat([texts, student.negative.flatten(0, 1)])
            weight = torch.cat([weight, self.negative_weight * student.valid.flatten().to(weight.dtype)])
        everyone = processes.gather_constant(student.group)

        def left_out(rows: slice, source: int) -> Bool[Tensor, "rows texts"]:
            left = torch.zeros(rows.stop - rows.start, len(texts), dtype=torch.bool, device=texts.device)
            if self.mask_same_image:
                theirs = everyone[source * pairs : (source + 1) * pairs]
                left[:, :pairs] = student.group[rows, None] == theirs[None, :]
            if source == processes.rank:
                left |= own_place(rows, texts)
            return left

        losses = own + false_pairs_of_all(student, texts, weight=weight, left_out=left_out, processes=processes)
        if self.negative_scope == "own":
            similarity = torch.einsum("bd,bkd->bk", student.image, student.negative)
            false = false_pair(pair_logits(student, similarity)).where(student.valid, similarity.new_zeros(()))
            losses = losses + self.negative_weight * false.sum(dim=1)
        return processes.mean(losses)
