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
        partner_image: the second image; the first again where there is none. This and what follows are None unless some
            loss reads them.
        partner_caption: token numbers of its text; the caption again where there is none.
        partner_valid: whether there is a second image.
        positive: token numbers of P further true texts; a masked one repeats the caption.
        positive_valid: which of them are real.
        label: number of the class, -1 where there is none.
        text_group: equal exactly where two captions are the same text.
    """

    image: Float[Tensor, "3 height width"]
    caption: Int[Tensor, " context"]
    negative: Int[Tensor, "negatives context"]
    valid: Bool[Tensor, " negatives"]
    rule: Int[Tensor, " negatives"]
    group: int
    id: str
    partner_image: Float[Tensor, "3 height width"] | None = None
    partner_caption: Int[Tensor, " context"] | None = None
    partner_valid: bool | None = None
    positive: Int[Tensor, "positives context"] | None = None
    positive_valid: Bool[Tensor, " positives"] | None = None
    label: int | None = None
    text_group: int | None = None


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
        partner_image: second images; None, as all that follows, unless some loss reads it.
        partner_caption: token numbers of their texts; of the captions where there is none.
        partner_valid: which rows have a second image.
        positive: token numbers of further true texts; a masked one repeats its caption.
        positive_valid: which of them are real.
        label: int64 number of each image's class, -1 where it has none.
        text_group: int64, equal exactly where two captions are the same text, across all devices.
        classes: token numbers of the texts of all classes.
        caption_token_valid: which tokens of the captions stand behind the start token, the end token included.
        negative_token_valid: the same for the negatives.
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
    partner_image: Float[Tensor, "batch 3 height width"] | None = None
    partner_caption: Int[Tensor, "batch tokens"] | None = None
    partner_valid: Bool[Tensor, " batch"] | None = None
    positive: Int[Tensor, "batch positives tokens"] | None = None
    positive_valid: Bool[Tensor, "batch positives"] | None = None
    label: Int[Tensor, " batch"] | None = None
    text_group: Int[Tensor, " batch"] | None = None
    classes: Int[Tensor, "classes tokens"] | None = None
    caption_token_valid: Bool[Tensor, "batch tokens"] | None = None
    negative_token_valid: Bool[Tensor, "batch negatives tokens"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def parts(self, size: int) -> Iterator[BatchPart]:
        """Consecutive rows, `size` at a time, which must be what the trees were made for."""
        for number, start in enumerate(range(0, len(self), size)):
            rows = slice(start, min(start + size, len(self)))
            images = [self.image[rows]] + ([] if self.partner_image is None else [self.partner_image[rows]])
            yield BatchPart(
                rows=rows,
                image=images[0] if len(images) == 1 else torch.cat(images),
                texts=self.trees[number] if self.trees else torch.cat(self._texts(rows)),
                captions=self.caption_trees[number] if self.caption_trees else self.caption[rows],
            )

    def _texts(self, rows: slice) -> list[Int[Tensor, "texts tokens"]]:
        """What the text tower reads for a part; the classes are those of the whole batch and go with its first rows."""
        texts = [self.caption[rows], self.negative[rows].flatten(0, 1)]
        if self.partner_caption is not None:
            texts.append(self.partner_caption[rows])
        if self.positive is not None:
            texts.append(self.positive[rows].flatten(0, 1))
        if self.classes is not None and rows.start == 0:
            texts.append(self.classes)
        return texts

    def split(
        self, image: Float[Tensor, "images dim"], text: Float[Tensor, "texts dim"], *, first: bool
    ) -> dict[str, Tensor]:
        """The embeddings of one part by their names in `Embeddings`, each text beside its row again.

        Args:
            image: of the part's images.
            text: of its texts, in their order.
            first: whether it is the batch's first part.
        """
        found = {"image": image}
        if self.partner_image is not None:
            found["image"], found["partner_image"] = image.chunk(2)
        rows = len(found["image"])
        counts = {"negative": self.negative.shape[1]}
        sizes = {"caption": rows, "negative": rows * counts["negative"]}
        if self.partner_caption is not None:
            sizes["partner_caption"] = rows
        if self.positive is not None:
            counts["positive"] = self.positive.shape[1]
            sizes["positive"] = rows * counts["positive"]
        if self.classes is not None and first:
            sizes["classes"] = len(self.classes)
        found |= dict(zip(sizes, torch.split(text, list(sizes.values())), strict=True))
        return found | {name: torch.unflatten(found[name], 0, (rows, count)) for name, count in counts.items()}

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
        image: their images, then their second images.
        texts: their captions, then the negatives of each caption in turn, the texts of second images, the positives of
            each caption in turn, and the classes: the one place where the negatives' axis is flattened.
        captions: their captions alone.
    """

    rows: slice
    image: Float[Tensor, "images 3 height width"]
    texts: Texts
    captions: Texts
