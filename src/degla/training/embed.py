"""Embeddings of a batch by student and teacher, in the layout of the objective, some rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from degla.data.batches import Batch, BatchPart
from degla.inputs import INPUTS
from degla.losses.core import Embeddings, Target, TeacherPart
from degla.model.encoder import TowerOutputs
from degla.model.teacher import Teacher


def to_embeddings(
    rows: Sequence[Sequence[Tensor | None]],
    *,
    scale: Float[Tensor, ""],
    batch: Batch,
    bias: Float[Tensor, ""] | None = None,
) -> Embeddings:
    """Put the parts of a batch together, each text beside its row.

    Args:
        rows: what the towers say of each part, in the order of `TowerOutputs`; texts that no loss reads may be None,
            and are zeros then.
        scale: 1 over the temperature.
        batch: whose parts these are.
        bias: of a model of the sigmoid loss.
    """
    found: dict[str, list[Tensor]] = {}
    start = 0
    for outputs in rows:
        image, text, patch, token, raw_image = TowerOutputs(*outputs)
        assert image is not None
        part = _without_texts(image, batch) if text is None else batch.split(image, text, start=start)
        count = len(part["image"])
        start += count
        if patch is not None and token is not None:
            part |= _dense(patch, token, rows=count, batch=batch)
        if raw_image is not None:
            part["raw_image"] = raw_image[:count]
        for name, value in part.items():
            found.setdefault(name, []).append(value)
    joined = {name: _join(values).float() for name, values in found.items()}
    values = {name: value for name, value in batch.tensors().items() if INPUTS[name].kind == "value"}
    model = {"scale": scale.float()} | ({} if bias is None else {"bias": bias.float()})
    return Embeddings.of(joined | values | model)


def _without_texts(image: Tensor, batch: Batch) -> dict[str, Tensor]:
    negative = image.new_zeros(len(image), batch.negative.shape[1], image.shape[1])
    return {"image": image, "caption": torch.zeros_like(image), "negative": negative}


def _dense(patch: Tensor, token: Tensor, *, rows: int, batch: Batch) -> dict[str, Tensor]:
    """Outputs of patches and tokens of one part, all texts as long as those of the batch."""
    negatives, length = batch.negative.shape[1:]
    token = torch.nn.functional.pad(token, (0, 0, 0, length - token.shape[1]))
    negative = torch.unflatten(token[rows : rows * (1 + negatives)], 0, (rows, negatives))
    return {"patch": patch[:rows], "caption_token": token[:rows], "negative_token": negative}


def teacher_target(
    teacher: Teacher | None, parts: Sequence[BatchPart], *, needs: frozenset[TeacherPart], negatives: int
) -> Target:
    """The teacher's embeddings of the same images and texts, and only those that some loss reads."""
    if teacher is None or not needs:
        return Target()
    found: dict[str, list[Tensor]] = {name: [] for name in needs}
    for part in parts:
        rows = part.rows.stop - part.rows.start
        texts = part.texts if "negative" in needs else part.captions if "caption" in needs else None
        alone = "image" in needs and "raw_image" not in needs
        image, text = teacher.encode(part.image[:rows] if alone else None, texts)
        if "raw_image" in needs:  # One pass gives both, where both are read.
            raw = teacher.encode_raw_images(part.image[:rows])
            found["raw_image"].append(raw)
            image = torch.nn.functional.normalize(raw, dim=-1)
        if "image" in needs and image is not None:
            found["image"].append(image)
        if text is not None:
            if "caption" in needs:
                found["caption"].append(text[:rows])
            if "negative" in needs:
                found["negative"].append(torch.unflatten(text[rows : rows * (1 + negatives)], 0, (rows, negatives)))
    joined: dict[str, Any] = {name: _join(values) for name, values in found.items()}
    return Target(**joined)


def _join(rows: Sequence[Tensor]) -> Tensor:
    return rows[0] if len(rows) == 1 else torch.cat(list(rows))
