"""Contrast of images with additional true texts, separately for each place among a row's texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target, log_partition, with_own
from degla.ranges import Factor


@dataclass(frozen=True)
class PositiveContrast(Loss):
    """Pull each image and its additional true texts together; push those of other images away.

    Formula:  1/P sum_p L_p,  L_p = 1/2 mean_i -log e^{s<v_i,r_ip>} / sum_j e^{s<v_i,r_jp>}
                                  + 1/2 mean_i -log e^{s<r_ip,v_i>} / sum_j e^{s<r_ip,v_j>}
              v: images, r: positives, s: `scale`; i and j: rows of the global batch that have a positive in place p of
              P; if none has one, L_p is 0
    Shapes:   see Embeddings (positive); returns a scalar, the mean over P places of means over rows
    Scope:    global - gathers images, positives and their mask; logits are computed in bounded blocks
    Source:   CLIC, arXiv 2505.24424 (AmitPeleg/CLIC dc845c7): 1/4 of `contrastive` without negatives, for the caption,
              plus 3/4 of this loss are its contrast of four texts
    Differs:  none known
    Cost:     one encoder pass over the positives
    """

    weight: Factor = 0.375
    """Weight of the loss, >= 0 (0.375 in arXiv 2505.24424: half of 3/4)."""
    mask_same_image: bool = False
    """Leave out other rows of the same image, which are not negatives; true or false."""

    reads = frozenset({"positive"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over places of the mean over all processes' rows that have a positive there."""
        valid = student.require("positive_valid")
        away = [same_image(student, processes, places=valid.shape[1])] if self.mask_same_image else []
        return contrast_by_place(student, student.require("positive"), valid, processes=processes, masks=away)


def contrast_by_place(
    student: Embeddings,
    texts: Float[Tensor, "batch places dim"],
    valid: Bool[Tensor, "batch places"],
    *,
    processes: Processes,
    masks: Sequence[Bool[Tensor, "batch all places"]],
    foil: Float[Tensor, "batch places"] | None = None,
) -> LossValue:
    """Return the mean over places of CLIP's contrast between images and the texts of that place; 0 if it is empty.

    Args:
        student: images and scale.
        texts: texts of each row; zeros where one is missing.
        valid: which texts exist. A row counts, as query and as candidate, only in places where it has a text.
        processes: processes that share the batch.
        masks: masks of global rows that are not negatives of an own row, for each place.
        foil: logit of one additional candidate of the image minus that of the row's text, -inf where there is none.
    """
    images, everyone = processes.gather(student.image), processes.gather(texts)
    missing, target = ~processes.gather_constant(valid), processes.places(valid)
    total = student.scale * 0.0
    for place in range(valid.shape[1]):

        def absent(rows: slice, place: int = place) -> Bool[Tensor, "rows all"]:
            union = missing[:, place].expand(rows.stop - rows.start, -1)
            for mask in masks:
                union = union | mask[rows, :, place]
            # A missing own text stays, so that its row is finite; the row does not count.
            return union.scatter(1, target[rows, None], value=False)

        there = everyone[:, place].contiguous()
        from_image = log_partition(student.image, there, student.scale, absent=absent, target=target)
        if foil is not None:
            from_image = with_own(from_image, foil[:, place, None])
        from_text = log_partition(texts[:, place], images, student.scale, absent=absent, target=target)
        total = total + processes.mean((from_image + from_text) / 2, valid[:, place])
    return total / max(valid.shape[1], 1)


def same_image(student: Embeddings, processes: Processes, *, places: int) -> Bool[Tensor, "batch all places"]:
    """Mask the rows of the global batch with the same image as an own row, equally for all places."""
    groups = processes.gather_constant(student.group)
    return (student.group[:, None] == groups[None])[..., None].expand(-1, -1, places)
