"""The contract types of this room: one `Pair`, and the `Batch` that the model and the objective are given."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """One row of one epoch, ready to be batched.

    Attributes:
        image: normalised picture.
        caption: token numbers, padded to the context length.
        negative: token numbers of K negatives; a masked one repeats the caption.
        valid: which negatives are real.
        rule: number of the rule that made each negative, -1 where it is masked.
        group: equal exactly where two rows show the same image.
        id: `CaptionRecord.id`.
    """

    image: Float[Tensor, "3 height width"]
    caption: Int[Tensor, " context"]
    negative: Int[Tensor, "negatives context"]
    valid: Bool[Tensor, " negatives"]
    rule: Int[Tensor, " negatives"]
    group: int
    id: str


@dataclass(frozen=True)
class Batch:
    """Pairs of one device and step. `negative[b, k]` belongs to `caption[b]`; no other layout exists.

    Attributes:
        image: float32, normalised.
        caption: int64 token numbers; `tokens` is the context length, or less where the batch was trimmed.
        negative: int64 token numbers; a masked one repeats its caption: never NaN.
        valid: which negatives are real; the others must not count in any term.
        rule: int64 number of the rule that made each negative, -1 where it is masked.
        group: int64, equal exactly where two rows show the same image, across all devices.
        ids: `CaptionRecord.id` of each row.
    """

    image: Float[Tensor, "batch 3 height width"]
    caption: Int[Tensor, "batch tokens"]
    negative: Int[Tensor, "batch negatives tokens"]
    valid: Bool[Tensor, "batch negatives"]
    rule: Int[Tensor, "batch negatives"]
    group: Int[Tensor, " batch"]
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by field name."""
        return {
            entry.name: value
            for entry in dataclasses.fields(self)
            if isinstance(value := getattr(self, entry.name), Tensor)
        }

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on a device; `non_blocking` overlaps the copy where memory is pinned."""
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in self.tensors().items()}
        return dataclasses.replace(self, **moved)  # type: ignore[arg-type]

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, for fast copies to a GPU."""
        pinned = {name: value.pin_memory() for name, value in self.tensors().items()}
        return dataclasses.replace(self, **pinned)  # type: ignore[arg-type]
