"""Sigmoid loss over the image-text pairs of the global batch, with hard negatives as additional false pairs."""

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
    """Match each image with its caption, and with no other caption or negative.

    Formula:  mean_i sp(-z(v_i,t_i)) + sum_{j != i} sp(z(v_i,t_j)) + w sum_{(c,k) in N(i)} sp(z(v_i,n_ck))
              z(v,t) = s<v,t> + b, sp(z) = log(1 + e^z), v: images, t: captions, n: valid negatives, s: `scale`,
              b: `bias`, w: `negative_weight`; N(i) is empty ("none"), the negatives of caption i ("own"), or those of
              the whole global batch ("batch")
    Shapes:   see Embeddings; returns a scalar, the mean over images of a sum over texts
    Scope:    global - each process in turn sends its texts to the others; logits are computed in bounded blocks
    Source:   SigLIP, arXiv 2303.15343; the negatives are NegCLIP's (ICLR 2023), each one a false pair
    Differs:  none known for captions; no published method uses such negatives
    Cost:     one encoder pass over images, captions and (unless "none") negatives
    """

    weight: Factor = 1.0
    """Weight of the loss, >= 0."""
    negative_scope: Literal["none", "own", "batch"] = "batch"
    """Negatives that each image is compared with: "none", "own" or "batch"."""
    negative_weight: Factor = 1.0
    """Weight of a pair with a negative, >= 0; at 1 it counts as much as a pair with another caption."""
    mask_same_image: bool = False
    """Leave out other captions of the same image, which are not false pairs; true or false."""

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

        def absent(rows: slice, source: int) -> Bool[Tensor, "rows texts"]:
            mask = torch.zeros(rows.stop - rows.start, len(texts), dtype=torch.bool, device=texts.device)
            if self.mask_same_image:
                theirs = everyone[source * pairs : (source + 1) * pairs]
                mask[:, :pairs] = student.group[rows, None] == theirs[None, :]
            if source == processes.rank:
                mask |= own_place(rows, texts)
            return mask

        losses = own + false_pairs_of_all(student, texts, weight=weight, absent=absent, processes=processes)
        if self.negative_scope == "own":
            similarity = torch.einsum("bd,bkd->bk", student.image, student.negative)
            false = false_pair(pair_logits(student, similarity)).where(student.valid, similarity.new_zeros(()))
            losses = losses + self.negative_weight * false.sum(dim=1)
        return processes.mean(losses)
