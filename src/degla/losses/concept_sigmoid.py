"""Sigmoid loss between the images and the noun phrases of the global batch, one term per pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.losses.core.pairwise import false_pairs_of_all, pair_logits, true_pair
from degla.ranges import Factor


@dataclass(frozen=True)
class ConceptSigmoid(Loss):
    """Match each image with the noun phrases of its caption, and with none of those of other captions.

    Formula:  1/R sum_{i,r} sp(-y_ir z(v_i,c_r)),  y_ir = 1 where phrase r belongs to the caption of image i, else -1
              z(v,c) = s<v,c> + b, sp(z) = log(1 + e^z), v: images, c: the R phrases of the global batch, s: `scale`,
              b: `bias`
    Shapes:   see Embeddings (concept); returns a scalar, the mean over phrases of a sum over images
    Scope:    global - each process in turn sends its phrases to the others; logits are computed in bounded blocks
    Source:   C2LIP, arXiv 2603.25722 (SamsungLabs/concept_centric_clip 9d02526), with weight 1
    Differs:  none in one process; in several, the released code gathers phrases without images and fails (C2-1). As
              released, equal phrases of different images are false pairs, unless `mask_same_text` leaves them out
    Cost:     one encoder pass over the phrases: about three per caption, all short
    """

    weight: Factor = 1.0
    """Weight of the loss, >= 0 (1 in arXiv 2603.25722)."""
    mask_same_text: bool = False
    """Leave out phrases that the image's own caption also contains, which are not false pairs; true or false."""
    mask_same_image: bool = False
    """Leave out phrases of other captions of the same image, which are not false pairs; true or false."""

    reads = frozenset({"bias", "concept"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the phrases of all processes."""
        concept, valid = student.require("concept"), student.require("concept_valid")
        similarity = torch.einsum("bd,bmd->bm", student.image, concept)
        true = true_pair(pair_logits(student, similarity)).where(valid, similarity.new_zeros(()))
        concept, there = equally_many(concept, valid, processes)
        most = there.shape[1]
        concept_group = pad(student.require("concept_group"), (0, most - valid.shape[1]), value=-1)
        rows, texts = len(valid), concept.flatten(0, 1)
        owner = torch.arange(rows, device=valid.device).repeat_interleave(most)
        numbers, groups = processes.gather_constant(concept_group), processes.gather_constant(student.group)

        def absent(part: slice, source: int) -> Bool[Tensor, "images texts"]:
            theirs = slice(source * rows, (source + 1) * rows)
            mask = torch.zeros(part.stop - part.start, len(texts), dtype=torch.bool, device=valid.device)
            if source == processes.rank:
                mask |= torch.arange(part.start, part.stop, device=owner.device)[:, None] == owner[None]
            if self.mask_same_image:
                mask |= (student.group[part, None] == groups[None, theirs]).repeat_interleave(most, dim=1)
            if self.mask_same_text:
                same = concept_group[part, :, None] == numbers[theirs].flatten()
                mask |= (same & there[part, :, None]).any(dim=1)
            return mask

        weight = there.flatten().to(texts.dtype)
        false = false_pairs_of_all(student, texts, weight=weight, absent=absent, processes=processes)
        count = processes.total(valid.sum().to(false.dtype)).clamp(min=1)
        return (true.sum() + false.sum()) * processes.count / count


def equally_many(
    concept: Float[Tensor, "batch concepts dim"], valid: Bool[Tensor, "batch concepts"], processes: Processes
) -> tuple[Float[Tensor, "batch most dim"], Bool[Tensor, "batch most"]]:
    """Return phrases and mask with as many places per row as any process has; each process pads its own batch."""
    if processes.count == 1:
        return concept, valid
    own = torch.full((1,), valid.shape[1], device=valid.device)  # A copy from the host would wait for the device.
    most = int(processes.gather_constant(own).max())
    missing = most - valid.shape[1]
    return pad(concept, (0, 0, 0, missing)), pad(valid, (0, missing))
