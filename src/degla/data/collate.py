"""Pairs to one batch: stacks, cuts texts to the longest of the batch, and finds what they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from degla.data.batches import Batch, Pair
from degla.inputs import INPUTS
from degla.prefixes import GrowTree


@dataclass(frozen=True)
class Collate:
    """Stack pairs into a `Batch`.

    Attributes:
        trim: cut `tokens` to the longest text of the batch; only for towers that read the end token
            (`model.text.can_trim`).
        padding: what texts are filled up with.
        multiple: round the length up to a multiple of this many tokens, for kernels and compiled graphs that
            like few different lengths.
        grow: makes the trees of texts that the text tower takes; None gives it tokens.
        part_size: rows a tree; all of the batch by default.
        caption_trees: make trees of the captions alone, too.
        classes: token numbers of the texts of all classes, which go along with every batch.
        tokens: mark the tokens behind the start token, up to the end token as `grow` finds it.
    """

    trim: bool = False
    padding: int = 0
    multiple: int = 1
    grow: GrowTree | None = None
    part_size: int | None = None
    caption_trees: bool = False
    classes: Int[Tensor, "classes context"] | None = None
    tokens: bool = False

    def __call__(self, pairs: Sequence[Pair]) -> Batch:
        """Stack pairs, in order."""
        extra = {name: _stack([pair.extra[name] for pair in pairs]) for name in pairs[0].extra}
        if self.classes is not None:
            extra["classes"] = self.classes
        texts = {name: _stack([getattr(pair, name) for pair in pairs]) for name in ("caption", "negative")}
        texts |= {name: value for name, value in extra.items() if INPUTS[name].kind == "text"}
        if self.trim:
            longest = max(text_length(tokens, padding=self.padding) for tokens in texts.values())
            length = min(texts["caption"].shape[-1], -(-longest // self.multiple) * self.multiple)
            texts = {name: tokens[..., :length].contiguous() for name, tokens in texts.items()}
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
        return batch if self.grow is None else self._with_trees(batch, self.grow)

    def _token_masks(self, texts: dict[str, Tensor]) -> dict[str, Tensor]:
        end_token = None if self.grow is None else self.grow.end_token

        def mask(tokens: Tensor) -> Tensor:
            end = tokens.argmax(dim=-1) if end_token is None else (tokens == end_token).int().argmax(dim=-1)
            place = torch.arange(tokens.shape[-1])
            return (place > 0) & (place <= end[..., None])

        return {f"{name}_token_valid": mask(texts[name]) for name in ("caption", "negative")}

    def _with_trees(self, batch: Batch, grow: GrowTree) -> Batch:
        parts = list(batch.parts(self.part_size or len(batch)))
        trees = tuple(grow(part.texts) for part in parts if isinstance(part.texts, Tensor))
        captions = [part.captions for part in parts if isinstance(part.captions, Tensor)] if self.caption_trees else []
        return replace(batch, trees=trees, caption_trees=tuple(grow(tokens) for tokens in captions))


def _stack(values: Sequence[Tensor | int]) -> Tensor:
    return torch.stack([torch.as_tensor(value) for value in values])


def text_length(tokens: Int[Tensor, "*texts context"], *, padding: int = 0) -> int:
    """Tokens of the longest text, its end token included; 0 without a text.

    The end token has the largest number of CLIP's vocabulary, so `argmax` points at it, and the padding is 0.
    Texts of other tokenizers are never cut either: the last token that is not padding counts as well.
    """
    if tokens.numel() == 0:
        return 0
    context = tokens.shape[-1]
    end = tokens.argmax(dim=-1) + 1
    positions = torch.arange(1, context + 1, device=tokens.device)
    last = (positions * (tokens != padding)).amax(dim=-1)
    return int(torch.maximum(end, last).max())
