"""Plain tensors by name, as any training loop has them, to the embeddings that losses read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Required, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from degla.errors import InputError
from degla.losses.core.embeddings import EXTRA_FIELDS, MASKS, Embeddings, Extra, Target, TeacherPart
from degla.losses.core.processes import Processes


class LossTensors(TypedDict, total=False):
    """What a loss can be called with. Embeddings are brought to length one here and may have any length; B pairs, K
    negatives and P positives a caption, D dimensions. Under `torch.distributed` these are the rows of one process, and
    every process must have as many.
    """

    image: Required[Float[Tensor, "batch dim"]]
    """Image embeddings [B, D]."""
    caption: Float[Tensor, "batch dim"]
    """Caption embeddings [B, D], one for each image."""
    negative: Float[Tensor, "batch negatives dim"]
    """Embeddings of negatives [B, K, D]; `negative[b]` are those of `caption[b]`. [B, D] is taken as K = 1."""
    valid: Bool[Tensor, "batch negatives"]
    """Which negatives exist [B, K]; all by default."""
    scale: Float[Tensor, ""] | float
    """1 / temperature, already exponentiated, for example `model.logit_scale.exp()`."""
    group: Int[Tensor, " batch"]
    """Equal exactly where two rows show the same image [B], over all processes; by default no two do."""
    rule: Int[Tensor, "batch negatives"]
    """Number of the rule that made each negative [B, K]; 0 by default."""
    text_group: Int[Tensor, " batch"]
    """Equal exactly where two captions are the same text [B], over all processes."""
    partner_image: Float[Tensor, "batch dim"]
    """Embedding of a second image of each row [B, D], of which the caption is not true."""
    partner_caption: Float[Tensor, "batch dim"]
    """Embedding of the text that is true of the second image, and not of the first [B, D]."""
    partner_valid: Bool[Tensor, " batch"]
    """Which rows have a second image [B]; all by default."""
    positive: Float[Tensor, "batch positives dim"]
    """Embeddings of further texts that are true of the image [B, P, D]; [B, D] is taken as P = 1."""
    positive_valid: Bool[Tensor, "batch positives"]
    """Which positives exist [B, P]; all by default."""
    classes: Float[Tensor, "classes dim"]
    """Embeddings of the texts of C classes [C, D], the same in all processes."""
    label: Int[Tensor, " batch"]
    """Number of each image's class [B], -1 where it has none."""
    patch: Float[Tensor, "batch patches dim"]
    """Outputs of the image tower for its patches, in the joint space [B, N, D]; their length stays."""
    caption_token: Float[Tensor, "batch tokens dim"]
    """Outputs of the text tower for the tokens of the captions, in the joint space [B, T, D]; their length stays."""
    caption_token_valid: Bool[Tensor, "batch tokens"]
    """The captions' tokens behind the start token, the end token included [B, T]."""
    negative_token: Float[Tensor, "batch negatives tokens dim"]
    """As `caption_token`, for each negative [B, K, T, D]."""
    negative_token_valid: Bool[Tensor, "batch negatives tokens"]
    """As `caption_token_valid`, for each negative [B, K, T]."""
    raw_image: Float[Tensor, "batch dim"]
    """Image embeddings whose length counts [B, D]; `image` as it was given, by default."""
    teacher_image: Float[Tensor, "batch dim"]
    """The teacher's image embeddings [B, D]; as all of the teacher's, they get no gradient."""
    teacher_caption: Float[Tensor, "batch dim"]
    """The teacher's caption embeddings [B, D]."""
    teacher_negative: Float[Tensor, "batch negatives dim"]
    """The teacher's embeddings of the negatives [B, K, D]; [B, D] is taken as K = 1."""
    teacher_raw_image: Float[Tensor, "batch dim"]
    """The teacher's image embeddings whose length counts [B, D]; `teacher_image` as it was given, by default."""


@dataclass(frozen=True)
class Wanted:
    """What a loss, or a sum of losses, reads.

    Attributes:
        name: of the loss, in messages.
        needs: parts of the teacher's embeddings.
        reads: optional parts of the student's.
        texts: whether captions are read.
        scale: whether the scale is read.
    """

    name: str
    needs: frozenset[TeacherPart]
    reads: frozenset[Extra]
    texts: bool
    scale: bool


_UNIT = ("image", "caption", "negative", "partner_image", "partner_caption", "positive", "classes")
_MANY = ("negative", "positive", "teacher_negative")
_MASKS_BY_DEFAULT = {"partner_valid": "partner_image", "positive_valid": "positive"}
_SHAPES = {
    "image": "BD", "caption": "BD", "negative": "BKD", "valid": "BK", "group": "B", "rule": "BK", "text_group": "B",
    "partner_image": "BD", "partner_caption": "BD", "partner_valid": "B", "positive": "BPD", "positive_valid": "BP",
    "classes": "CD", "label": "B", "patch": "BND", "caption_token": "BTD", "caption_token_valid": "BT",
    "negative_token": "BKTD", "negative_token_valid": "BKT", "raw_image": "BD", "teacher_image": "BE",
    "teacher_caption": "BE", "teacher_negative": "BKE", "teacher_raw_image": "BE",
}  # fmt: skip


def embeddings_of(tensors: LossTensors, wanted: Wanted, processes: Processes) -> tuple[Embeddings, Target]:
    """Check tensors and put them together.

    Args:
        tensors: by name.
        wanted: what must be there.
        processes: that share the batch.

    Raises:
        InputError: a tensor is missing or unknown, or shapes do not fit together.
    """
    given: dict[str, Any] = dict(tensors)
    unknown = sorted(given.keys() - LossTensors.__annotations__.keys())
    if unknown:
        known = ", ".join(LossTensors.__annotations__)
        raise InputError(f"{wanted.name}: unknown tensor {unknown[0]!r}. Known: {known}.")
    given = {name: value for name, value in given.items() if value is not None}
    for name in _MANY:
        if name in given and given[name].ndim == 2:
            given[name] = given[name][:, None]
    _set_defaults(given, wanted, processes)
    _require(given, wanted)
    _check_shapes(given, wanted.name)
    rows = {name: _float(value) if value.is_floating_point() else value for name, value in given.items()}
    # Before they are brought to length one: what is not finite would still spoil the gradient.
    rows |= {name: rows[name].masked_fill(~rows[mask][..., None], 0.0) for name, mask in MASKS.items() if name in rows}
    rows |= {name: normalize(rows[name], dim=-1) for name in _UNIT if name in rows}
    target = {part: rows.pop(f"teacher_{part}") for part in ("image", "caption", "negative", "raw_image")
              if f"teacher_{part}" in rows}  # fmt: skip
    target |= {part: normalize(value, dim=-1) for part, value in target.items() if part != "raw_image"}
    return Embeddings(**rows), Target(**target)


def _set_defaults(given: dict[str, Any], wanted: Wanted, processes: Processes) -> None:
    image = given.get("image")
    if image is None:
        return
    rows, device = len(image), image.device
    if not wanted.texts:
        given.setdefault("caption", torch.zeros_like(image))
    if not wanted.scale:
        given.setdefault("scale", 1.0)
    given.setdefault("negative", image.new_zeros(rows, 0, image.shape[-1]))
    negatives = given["negative"].shape[1]
    given.setdefault("valid", torch.ones(rows, negatives, dtype=torch.bool, device=device))
    given.setdefault("rule", torch.where(given["valid"], 0, -1))
    given.setdefault("group", torch.arange(rows, device=device) + processes.rank * rows)
    for mask, of in _MASKS_BY_DEFAULT.items():
        if of in given:
            places = given[of].shape[:1] if mask == "partner_valid" else given[of].shape[:2]
            given.setdefault(mask, torch.ones(places, dtype=torch.bool, device=device))
    for part in ("raw_image", "teacher_raw_image"):
        whole = part.replace("raw_", "")
        if whole in given:
            given.setdefault(part, given[whole])
    teacher = given.get("teacher_image", given.get("teacher_caption"))
    if not negatives and teacher is not None:
        given.setdefault("teacher_negative", teacher.new_zeros(rows, 0, teacher.shape[-1]))
    if "scale" in given:
        given["scale"] = torch.as_tensor(given["scale"], device=device)


def _require(given: Mapping[str, Any], wanted: Wanted) -> None:
    names = ["image", *(["caption"] if wanted.texts else []), *(["scale"] if wanted.scale else [])]
    names += [name for extra in sorted(wanted.reads) for name in EXTRA_FIELDS[extra]]
    names += [f"teacher_{part}" for part in sorted(wanted.needs)]
    missing = [name for name in names if name not in given]
    if missing:
        shapes = ", ".join(f"{name} [{', '.join(_SHAPES.get(name, ''))}]".replace(" []", "") for name in missing)
        raise InputError(f"{wanted.name}: missing {shapes}.")


def _check_shapes(given: Mapping[str, Any], name: str) -> None:
    """Each letter of `_SHAPES` stands for one size."""
    sizes: dict[str, tuple[int, str]] = {}
    for field, letters in _SHAPES.items():
        if field not in given:
            continue
        shape = tuple(given[field].shape)
        if len(shape) != len(letters):
            raise InputError(f"{name}: {field} has shape {list(shape)}; it must be [{', '.join(letters)}].")
        for letter, size in zip(letters, shape, strict=True):
            known, where = sizes.setdefault(letter, (size, field))
            if size != known:
                raise InputError(
                    f"{name}: {field} has shape {list(shape)}, but {letter} is {known} in {where} "
                    f"{list(given[where].shape)}; it must be [{', '.join(letters)}]."
                )


def _float(value: Tensor) -> Tensor:
    """At least float32: losses are not computed in half precision."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()
