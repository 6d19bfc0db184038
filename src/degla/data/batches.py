"""The contract types of this room: one `Pair`, and the `Batch` that the model and the objective are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from degla.inputs import INPUTS
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
        extra: the optional inputs that the run's losses read, by their names in `degla.inputs.LossTensors`.
    """

    image: Float[Tensor, "3 height width"]
    caption: Int[Tensor, " context"]
    negative: Int[Tensor, "negatives context"]
    valid: Bool[Tensor, " negatives"]
    rule: Int[Tensor, " negatives"]
    group: int
    id: str
    extra: Mapping[str, Tensor | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Pairs of one device and step. `negative[b, k]` belongs to `caption[b]`; no other layout exists.

    Attributes:
        image: float32, normalised.
        caption: int64 token numbers; `tokens` is the context length, or less where the batch was trimmed.
        negative: int64 token numbers; a masked one repeats its caption: never NaN.
        valid: which negatives are real; the others must not count in any loss.
        rule: int64 number of the rule that made each negative, -1 where it is masked.
        group: int64, equal exactly where two rows show the same image, across all devices.
        ids: `CaptionRecord.id` of each row.
        trees: the texts of `parts` in the form of the text tower, where it takes trees.
        caption_trees: the captions alone, where a teacher reads no negatives.
        extra: the optional inputs that some loss reads, by their names in `degla.inputs.LossTensors`: pictures as
            `image`, texts as `caption` (one a row) or `negative` (several a row), values as losses read them.
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
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def parts(self, size: int) -> Iterator[BatchPart]:
        """Consecutive rows, `size` at a time, which must be what the trees were made for."""
        for number, start in enumerate(range(0, len(self), size)):
            rows = slice(start, min(start + size, len(self)))
            images = [self.image[rows], *(value[rows] for value in self._extra("image").values())]
            yield BatchPart(
                rows=rows,
                image=images[0] if len(images) == 1 else torch.cat(images),
                texts=self.trees[number] if self.trees else torch.cat(list(self._texts(rows).values())),
                captions=self.caption_trees[number] if self.caption_trees else self.caption[rows],
            )

    def _extra(self, kind: str) -> dict[str, Tensor]:
        return {name: value for name, value in self.extra.items() if INPUTS[name].kind == kind}

    def _texts(self, rows: slice) -> dict[str, Int[Tensor, "texts tokens"]]:
        """What the text tower reads for a part; what has no row a pair goes with the first rows of the batch."""
        texts = {"caption": self.caption[rows], "negative": self.negative[rows].flatten(0, 1)}
        for name, value in self._extra("text").items():
            if INPUTS[name].shape[0] == "B":
                texts[name] = value[rows].flatten(0, -2)
            elif rows.start == 0:
                texts[name] = value
        return texts

    def split(
        self, image: Float[Tensor, "images dim"], text: Float[Tensor, "texts dim"], *, start: int
    ) -> dict[str, Tensor]:
        """The embeddings of one part by their names in `Embeddings`, each text beside its row again.

        Args:
            image: of the part's images.
            text: of its texts, in their order.
            start: first row of the part.
        """
        images = ["image", *self._extra("image")]
        split = dict(zip(images, image.chunk(len(images)), strict=True))
        pairs = len(split["image"])
        counts = {name: len(value) for name, value in self._texts(slice(start, start + pairs)).items()}
        for (name, count), value in zip(counts.items(), torch.split(text, list(counts.values())), strict=True):
            several = len(INPUTS[name].shape) == 3
            split[name] = torch.unflatten(value, 0, (pairs, count // pairs)) if several else value
        return split

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, those of `extra` among them."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)} | dict(self.extra)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on a device; `non_blocking` overlaps the copy where memory is pinned."""
        return self._mapped(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, for fast copies to a GPU."""
        return self._mapped(lambda value: value.pin_memory())

    def _mapped(self, change: Callable[[Any], Any]) -> Batch:
        return dataclasses.replace(
            self,
            **{name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)},
            extra={name: change(value) for name, value in self.extra.items()},
            trees=tuple(change(tree) for tree in self.trees),
            caption_trees=tuple(change(tree) for tree in self.caption_trees),
        )


@dataclass(frozen=True)
class BatchPart:
    """Some rows of a batch, as the towers take them.

    Attributes:
        rows: which rows of the batch.
        image: their images, then those of `extra`, one input after the other.
        texts: their captions, then the negatives of each caption in turn, then the texts of `extra`, one input after
            the other: the one place where the negatives' axis is flattened.
        captions: their captions alone.
    """

    rows: slice
    image: Float[Tensor, "images 3 height width"]
    texts: Texts
    captions: Texts
