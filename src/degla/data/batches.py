"""The contract types of this room: one `Pair`, and the `Batch` that the model and the objective are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from degla.prefixes import PrefixTree

Texts = Int[Tensor, "texts length"] | PrefixTree


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
        trees: the texts of `parts` in the form of the text tower, where it takes trees: first the part's captions,
            then their negatives.
        caption_trees: the captions alone, where a teacher reads no negatives.
    """

    image: Float[Tensor, "batch 3 height width"]
    caption: Int[Tensor, "batch tokens"]
    negative: Int[Tensor, "batch negatives tokens"]
    valid: Bool[Tensor, "batch negatives"]
    rule: Int[Tensor, "batch negatives"]
    group: Int[Tensor, " batch"]
    ids: tuple[str, ...]
    trees: tuple[PrefixTree, ...] = ()
    caption_trees: tuple[PrefixTree, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def parts(self, size: int) -> Iterator[BatchPart]:
        """Consecutive rows, `size` at a time, which must be what the trees were made for."""
        for number, start in enumerate(range(0, len(self), size)):
            rows = slice(start, min(start + size, len(self)))
            caption, negative = self.caption[rows], self.negative[rows]
            yield BatchPart(
                rows=rows,
                image=self.image[rows],
                texts=self.trees[number] if self.trees else torch.cat([caption, negative.flatten(0, 1)]),
                captions=self.caption_trees[number] if self.caption_trees else caption,
            )

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by field name."""
        return {
            entry.name: value
            for entry in dataclasses.fields(self)
            if isinstance(value := getattr(self, entry.name), Tensor)
        }

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on a device; `non_blocking` overlaps the copy where memory is pinned."""
        return self._mapped(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, for fast copies to a GPU."""
        return self._mapped(lambda value: value.pin_memory())

    def _mapped(self, change: Callable[[Any], Any]) -> Batch:
        return dataclasses.replace(
            self,
            **{name: change(value) for name, value in self.tensors().items()},
            trees=tuple(change(tree) for tree in self.trees),
            caption_trees=tuple(change(tree) for tree in self.caption_trees),
        )


@dataclass(frozen=True)
class BatchPart:
    """Some rows of a batch, as the towers take them.

    Attributes:
        rows: which rows of the batch.
        image: their images.
        texts: their captions, then the negatives of each caption in turn: the one place where the negatives' axis is
            flattened.
        captions: their captions alone.
    """

    rows: slice
    image: Float[Tensor, "part 3 height width"]
    texts: Texts
    captions: Texts
