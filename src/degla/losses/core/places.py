"""Contrast of images with several texts a row, place by place: the texts of one place meet no other place."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from degla.losses.core.embeddings import Embeddings
from degla.losses.core.partition import log_partition
from degla.losses.core.processes import Processes


def contrast_by_place(
    student: Embeddings,
    texts: Float[Tensor, "batch places dim"],
    valid: Bool[Tensor, "batch places"],
    *,
    processes: Processes,
    left_out: Bool[Tensor, "batch all places"],
    foil: Float[Tensor, "batch places"] | None = None,
) -> Float[Tensor, ""]:
    """The mean over places of CLIP's contrast between images and the texts of that place; 0 for an empty place.

    Args:
        student: images and scale.
        texts: of each row; zeros where one is missing.
        valid: which there are. A row counts, as query and as candidate, only in places where it has a text.
        processes: that share the batch.
        left_out: rows of the global batch that are no negatives of an own row, place by place.
        foil: logit of one further candidate of the image less that of the row's text, -inf where there is none.
    """
    images, everyone = processes.gather(student.image), processes.gather(texts)
    missing, own = ~processes.gather_constant(valid), processes.own_rows(len(valid))
    target = torch.arange(own.start, own.stop, device=valid.device)
    total = student.scale * 0.0
    for place in range(valid.shape[1]):

        def absent(rows: slice, place: int = place) -> Bool[Tensor, "rows all"]:
            left = left_out[rows, :, place] | missing[:, place]
            # An own text that is missing stays, so that its row is finite; it counts nowhere.
            return left.scatter(1, target[rows, None], value=False)

        there = everyone[:, place].contiguous()
        from_image = log_partition(student.image, there, student.scale, absent=absent, target=target)
        if foil is not None:
            from_image = torch.stack([from_image, foil[:, place]], dim=1).logsumexp(dim=1)
        from_text = log_partition(texts[:, place], images, student.scale, absent=absent, target=target)
        total = total + processes.mean((from_image + from_text) / 2, valid[:, place])
    return total / max(valid.shape[1], 1)


def same_image(student: Embeddings, processes: Processes, *, places: int) -> Bool[Tensor, "batch all places"]:
    """Rows of the global batch that show the picture of an own row, for each place alike."""
    groups = processes.gather_constant(student.group)
    return (student.group[:, None] == groups[None])[..., None].expand(-1, -1, places)


def nothing(student: Embeddings, processes: Processes, *, places: int) -> Bool[Tensor, "batch all places"]:
    """No row is left out."""
    rows = len(student.image)
    none = torch.zeros(1, 1, 1, dtype=torch.bool, device=student.image.device)
    return none.expand(rows, rows * processes.count, places)
