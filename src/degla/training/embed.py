"""Embeddings of a batch by student and teacher, in the layout of the objective, some rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from degla.data.batches import Batch, BatchPart
from degla.model.teacher import Teacher
from degla.objectives import Embeddings, Part, Target

Rows = tuple[Float[Tensor, "part dim"], Float[Tensor, "texts dim"]]
"""Embeddings of the images and of the texts of one part of a batch."""


def to_embeddings(rows: Sequence[Rows], *, scale: Float[Tensor, ""], batch: Batch) -> Embeddings:
    """Put the parts of a batch together, each negative beside its caption."""
    captions, negatives = [], []
    for image, text in rows:
        captions.append(text[: len(image)])
        negatives.append(torch.unflatten(text[len(image) :], 0, (len(image), batch.negative.shape[1])))
    return Embeddings(
        image=_join([image for image, _ in rows]).float(),
        caption=_join(captions).float(),
        negative=_join(negatives).float(),
        valid=batch.valid,
        scale=scale.float(),
        group=batch.group,
        rule=batch.rule,
    )


def teacher_target(
    teacher: Teacher | None, parts: Sequence[BatchPart], *, needs: frozenset[Part], negatives: int
) -> Target:
    """The teacher's embeddings of the same images and texts, and only those that some term reads."""
    if teacher is None or not needs:
        return Target()
    found: dict[str, list[Tensor]] = {name: [] for name in needs}
    for part in parts:
        rows = len(part.image)
        texts = part.texts if "negative" in needs else part.captions if "caption" in needs else None
        image, text = teacher.encode(part.image if "image" in needs else None, texts)
        if "image" in needs and image is not None:
            found["image"].append(image)
        if text is not None:
            if "caption" in needs:
                found["caption"].append(text[:rows])
            if "negative" in needs:
                found["negative"].append(torch.unflatten(text[rows:], 0, (rows, negatives)))
    joined: dict[str, Any] = {name: _join(values) for name, values in found.items()}
    return Target(**joined)


def _join(rows: Sequence[Tensor]) -> Tensor:
    return rows[0] if len(rows) == 1 else torch.cat(list(rows))
