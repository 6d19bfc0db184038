"""The contract types of this room, `Pair` and `Batch`, and the collation of pairs: stacked and trimmed to length."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from degla.inputs import INPUTS, FrozenStates, ImageInput, TowerInput
from degla.prefixes import GrowTree, PrefixTree, ends_of

Texts = Int[Tensor, "texts length"] | PrefixTree


@dataclass(frozen=True)
class Pair:
    """One row of one epoch, ready to be batched.

    Attributes:
        image: normalised image, or its embedding.
        caption: token ids, padded to the context length.
        negative: token ids of K negatives; a masked one repeats the caption.
        valid: which negatives are real.
        rule: number of the rule that made each negative, -1 where it is masked.
        group: equal if and only if two rows show the same image.
        id: `CaptionRecord.id`.
        extra: the optional inputs that the run's losses read, by their names in `degla.inputs.LossTensors`.
    """

    image: Float[Tensor, "3 height width"] | Float[Tensor, " dim"] | Float[Tensor, "rows dim"]
    caption: Int[Tensor, " context"]
    negative: Int[Tensor, "negatives context"]
    valid: Bool[Tensor, " negatives"]
    rule: Int[Tensor, " negatives"]
    group: int
    id: str
    extra: Mapping[str, Tensor | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """The pairs of one device and step. `negative[b, k]` belongs to `caption[b]`; no other layout exists.

    Attributes:
        image: float32, normalised; or embeddings.
        caption: int64 token ids; `tokens` is the context length, or less if the batch was trimmed.
        negative: int64 token ids; a masked one repeats its caption, so embeddings are never NaN.
        valid: which negatives are real; the others must not count in any loss.
        rule: int64 number of the rule that made each negative, -1 where it is masked.
        group: int64, equal if and only if two rows show the same image, across all devices.
        ids: `CaptionRecord.id` of each row.
        trees: the texts of `parts` as prefix trees, if the text tower takes them.
        caption_trees: only the captions, if there are other texts and a teacher reads no negatives.
        extra: the optional inputs that some loss reads, by their names in `degla.inputs.LossTensors`: images as
            `image`, texts as `caption` (one per row) or `negative` (several per row), values as losses read them.
    """

    image: ImageInput
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

    @property
    def captions_alone(self) -> bool:
        """Whether the captions are the only texts, so their trees are the trees of all texts."""
        return not self.negative.shape[1] and not self._extra("text")

    def parts(self, size: int | None) -> Iterator[BatchPart]:
        """Yield consecutive rows, `size` at a time (None: all together); `size` must match the trees."""
        caption_trees, size = self.trees if self.captions_alone else self.caption_trees, size or len(self)
        for number, start in enumerate(range(0, len(self), size)):
            rows = slice(start, min(start + size, len(self)))
            images = [self.image[rows], *(value[rows] for value in self._extra("image").values())]
            yield BatchPart(
                rows=rows,
                image=images[0] if len(images) == 1 else torch.cat(images),
                texts=self.trees[number] if self.trees else torch.cat(list(self._texts(rows).values())),
                captions=caption_trees[number] if caption_trees else self.caption[rows],
            )

    def _extra(self, kind: str) -> dict[str, Tensor]:
        return {name: value for name, value in self.extra.items() if INPUTS[name].kind == kind}

    def _texts(self, rows: slice) -> dict[str, Int[Tensor, "texts tokens"]]:
        """Texts the text tower reads for a part; inputs without a row per pair are added to the first part."""
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
        """Split the embeddings of one part by their names in `Embeddings`, each text back at its row.

        Args:
            image: embeddings of the part's images.
            text: embeddings of its texts, in their order.
            start: first row of the part.
        """
        images = ["image", *self._extra("image")]
        split = dict(zip(images, image.chunk(len(images)), strict=True))
        return split | self.split_texts(text, rows=slice(start, start + len(split["image"])))

    def split_texts(self, text: Float[Tensor, "texts ..."], *, rows: slice) -> dict[str, Tensor]:
        """Split one value per text of a part by the texts' names, each back at its row."""
        counts = {name: len(value) for name, value in self._texts(rows).items()}
        split, pairs = {}, rows.stop - rows.start
        for (name, count), value in zip(counts.items(), torch.split(text, list(counts.values())), strict=True):
            several = len(INPUTS[name].shape) == 3
            split[name] = torch.unflatten(value, 0, (pairs, count // pairs)) if several else value
        return split

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, including those of `extra`."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)} | dict(self.extra)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the batch on a device; `non_blocking` overlaps the copy if memory is pinned."""
        return self._mapped(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory, for fast copies to a GPU."""
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
    """Some rows of a batch, in the form the towers take.

    Attributes:
        rows: which rows of the batch.
        image: their images, then those of `extra`, one input after the other.
        texts: their captions, then the negatives of each caption in turn, then the texts of `extra`, one input after
            the other. The negatives axis is flattened only here.
        captions: only their captions.
        kept: indices of the patches of each image that the student reads; None for all.
        frozen: states of the images after frozen blocks; None if the towers run all blocks.
    """

    rows: slice
    image: ImageInput
    texts: Texts
    captions: Texts
    kept: Int[Tensor, "images kept"] | None = None
    frozen: FrozenStates | None = None

    def __len__(self) -> int:
        return int(self.rows.stop - self.rows.start)

    @property
    def tower_input(self) -> TowerInput:
        """What the image towers take."""
        return self.image if self.frozen is None else self.frozen


@dataclass(frozen=True)
class Collate:
    """Stack pairs into a `Batch`.

    Attributes:
        trim: trim `tokens` to the longest text of the batch; only for towers that read the end token
            (`model.text.can_trim`).
        padding: the padding token id.
        grow: builds the prefix trees that the text tower takes; None passes tokens.
        part_size: rows per tree; the whole batch by default.
        caption_trees: also build trees of only the captions.
        classes: token ids of the texts of all classes, added to every batch.
        tokens: mark the tokens after the start token, up to the end token as `grow` finds it.
    """

    trim: bool = False
    padding: int = 0
    grow: GrowTree | None = None
    part_size: int | None = None
    caption_trees: bool = False
    classes: Int[Tensor, "classes context"] | None = None
    tokens: bool = False

    def __call__(self, pairs: Sequence[Pair]) -> Batch:
        """Stack pairs, in order."""
        extra = {name: _stack([pair.extra[name] for pair in pairs]) for name in pairs[0].extra}
        for name in extra:
            if INPUTS[name].shape[:2] == "BM":  # As many places as the longest row needs.
                extra[name] = extra[name][:, : _most(pairs, INPUTS[name].part)]
        if self.classes is not None:
            extra["classes"] = self.classes
        texts = {name: _stack([getattr(pair, name) for pair in pairs]) for name in ("caption", "negative")}
        texts |= {name: value for name, value in extra.items() if INPUTS[name].kind == "text"}
        if self.trim:
            longest = max(text_length(tokens, padding=self.padding) for tokens in texts.values())
            texts = {name: tokens[..., :longest].contiguous() for name, tokens in texts.items()}
        if self.tokens:
            extra |= self._token_masks(texts)
        batch = Batch(
            image=torch.stack([pair.image for pair in pairs]),
            caption=texts.pop("caption"),
            negative=texts.pop("negative"),
            valid=torch.stack([pair.valid for pair in pairs]),
            rule=torch.stack([pair.rule for pair in pairs]),
            group=torch.tensor([pair.group for pair in pairs], dtype=torch.int64),
            ids=tuple(pair.id for pair in pairs),
            extra=extra | texts,
        )
        if self.grow is None:
            return batch
        parts = list(batch.parts(self.part_size))
        captions = parts if self.caption_trees and not batch.captions_alone else []
        return replace(
            batch,
            trees=tuple(self.grow(cast(Tensor, part.texts)) for part in parts),
            caption_trees=tuple(self.grow(cast(Tensor, part.captions)) for part in captions),
        )

    def _token_masks(self, texts: dict[str, Tensor]) -> dict[str, Tensor]:
        end_token = None if self.grow is None else self.grow.end_token

        def mask(tokens: Tensor) -> Tensor:
            end = ends_of(tokens, end_token)
            place = torch.arange(tokens.shape[-1])
            return (place > 0) & (place <= end[..., None])

        return {f"{name}_token_valid": mask(texts[name]) for name in ("caption", "negative")}


def _most(pairs: Sequence[Pair], part: str) -> int:
    """Largest number of texts in a row, for an input with a mask; at least 1."""
    return max(1, *(int(torch.as_tensor(pair.extra[f"{part}_valid"]).sum()) for pair in pairs))


def _stack(values: Sequence[Tensor | int]) -> Tensor:
    return torch.stack([torch.as_tensor(value) for value in values])


def text_length(tokens: Int[Tensor, "*texts context"], *, padding: int = 0) -> int:
    """Return the number of tokens of the longest text, including its end token; 0 if there is no text.

    The end token has the largest id in CLIP's vocabulary, so `argmax` finds it, and the padding is 0.
    Texts of other tokenizers are not cut either: the last token that is not padding counts as well.
    """
    if tokens.numel() == 0:
        return 0
    context = tokens.shape[-1]
    end = tokens.argmax(dim=-1) + 1
    positions = torch.arange(1, context + 1, device=tokens.device)
    last = (positions * (tokens != padding)).amax(dim=-1)
    return int(torch.maximum(end, last).max())
