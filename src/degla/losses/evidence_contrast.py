"""Evidence contrast: an image part that supports the caption is another image of it, any other part a background."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target, log_partition, with_own
from degla.ranges import Factor


@dataclass(frozen=True)
class EvidenceContrast(Loss):
    """Pull the part of an image with the teacher's evidence to its caption, or push captions away from that part.

    Formula:  positive mean_i [i in F] log(1 + sum_{k valid} e^{s<m_i,n_ik> - s<m_i,t_i>})
            + background mean_i log(1 + sum_{j in G} e^{s<t_i,m_j>} / sum_j e^{s<t_i,v_j>})
              m: the part of each image with the evidence for its caption, F: those for which the teacher ranks the
              caption above its negatives, G: the others of the global batch; v: images, t: captions, n: negatives
    Shapes:   see Embeddings (evidence_image); returns a scalar; means over all pairs
    Scope:    global - gathers images, parts and masks
    Source:   ExCon, arXiv 2111.14271, with the caption as the class and the teacher as the classifier
    Differs:  ExCon's classes are labels, and its classifier is trained jointly; here hard negatives judge each part.
              With `background` half of a contrastive loss's weight, the two equal that loss with G in the denominator
              of captions
    Cost:     one pass of the student and one of the teacher over the parts; the teacher's embeddings of the batch, and
              a gradient with respect to the attention of its last block
    """

    weight: Factor = 1.0
    """Weight of the loss, >= 0."""
    positive: Factor = 0.1
    """Weight of the parts that support their caption, >= 0; 0 ignores them."""
    background: Factor = 0.5
    """Weight of the other parts, >= 0; 0 ignores them (ExCon), above 0 they are backgrounds (ExConB)."""

    needs = frozenset({"caption", "negative"})
    reads = frozenset({"evidence"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the pairs of all processes."""
        part, there = student.require("evidence_image"), student.require("evidence_valid")
        teacher_part = student.require("evidence_seen").to(part)
        supports = there & before_negatives(
            teacher_part, teacher.require("caption"), teacher.require("negative"), student.valid
        )
        own = with_own(part.new_zeros(len(part)), student.margins(part))
        absent = ~processes.gather_constant(there & ~supports)
        backgrounds = log_partition(student.caption, processes.gather(part), student.scale, absent=absent)
        images = log_partition(student.caption, processes.gather(student.image), student.scale)
        # Without a background the logarithm of their sum is -inf, and nothing is pushed.
        none, zero = absent.all(), images.new_zeros(())
        pushed = softplus(torch.where(none, zero, backgrounds) - images).where(~none, zero)
        return processes.mean(self.positive * own.where(supports, own.new_zeros(())) + self.background * pushed)


def before_negatives(
    images: Float[Tensor, "batch dim"],
    captions: Float[Tensor, "batch dim"],
    negatives: Float[Tensor, "batch negatives dim"],
    valid: Bool[Tensor, "batch negatives"],
) -> Bool[Tensor, " batch"]:
    """Return whether each image is more similar to its caption than to all of its negatives; true without any."""
    own = (images * captions).sum(dim=1, keepdim=True)
    others = torch.einsum("bd,bkd->bk", images, negatives).masked_fill(~valid, -torch.inf)
    return (own > others).all(dim=1)
