"""Sigmoid loss between the noun phrases of the global batch and the patches they attend to in each image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from degla.losses.concept_sigmoid import equally_many
from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.losses.core.pairwise import false_pair, pair_logits, true_pair
from degla.ranges import Factor

_BLOCK = 2**22
"""Numbers of attended patch features held at a time: 16 MiB."""


@dataclass(frozen=True)
class ConceptAttention(Loss):
    """Match each noun phrase with the patches it attends to in its own image, not with those in any other image.

    Formula:  1/R sum_{i,r} sp(-y_ir z_ir),  z_ir = s<w_ir,c_r> + b,  w_ir = sum_p a_irp u_ip / |sum_p a_irp u_ip|
              a_irp = softmax_p <c_r,u_ip>, y_ir = 1 where phrase r belongs to the caption of image i, else -1
              u_ip: normalised patches of image i, c: the R phrases of the global batch, s: `scale`, b: `bias`,
              sp(z) = log(1 + e^z)
    Shapes:   see Embeddings (concept, patch); returns a scalar, the mean over phrases of a sum over images
    Scope:    global - gathers phrases; each process compares them with its own images, a block of phrases at a time
    Source:   C2LIP, arXiv 2603.25722 (SamsungLabs/concept_centric_clip 9d02526), with weight 0.01
    Differs:  the released code uses the patches of SigLIP's pooling, without queries and keys; here they are the patch
              outputs of open_clip's own transformers, in the joint space
    Cost:     the last block of the image tower for all patches; products [B, R, patches], computed twice
    """

    weight: Factor = 0.01
    """Weight of the loss, >= 0 (0.01 in arXiv 2603.25722)."""

    reads = frozenset({"bias", "concept", "patches"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the phrases of all processes."""
        own, valid = equally_many(student.require("concept"), student.require("concept_valid"), processes)
        concepts, there = processes.gather(own).flatten(0, 1), processes.gather_constant(valid).flatten()
        owner = torch.arange(len(there), device=there.device) // valid.shape[1] - processes.own_rows(len(valid)).start
        patch = normalize(student.require("patch"), dim=-1)
        size = max(1, _BLOCK // max(patch[:, 0].numel(), 1))
        total = student.scale * 0.0
        for start in range(0, len(concepts), size):
            part = slice(start, start + size)
            parts = (concepts[part], there[part], owner[part])
            total = total + checkpoint(_block_loss, student, patch, *parts, use_reentrant=False)
        return total * processes.count / there.sum().clamp(min=1)


def _block_loss(student: Embeddings, patch: Tensor, concept: Tensor, there: Tensor, owner: Tensor) -> Tensor:
    """Return the loss summed over this process's images and some phrases."""
    share = torch.einsum("bpd,rd->brp", patch, concept).softmax(dim=-1)
    feature = normalize(torch.einsum("brp,bpd->brd", share, patch), dim=-1)
    logit = pair_logits(student, torch.einsum("brd,rd->br", feature, concept))
    true = owner[None] == torch.arange(len(patch), device=owner.device)[:, None]
    losses = torch.where(true, true_pair(logit), false_pair(logit))
    return losses.where(there[None], losses.new_zeros(())).sum()
