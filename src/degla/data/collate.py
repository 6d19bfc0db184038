"""Pairs to one batch: stacks, and cuts texts to the longest of the batch where that changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from degla.data.batches import Batch, Pair


@dataclass(frozen=True)
class Collate:
    """Stack pairs into a `Batch`.

    Attributes:
        trim: cut `tokens` to the longest text of the batch; only for towers that read the end token
            (`model.text.can_trim`).
        multiple: round the length up to a multiple of this many tokens, for kernels and compiled graphs that
            like few different lengths.
    """

    trim: bool = False
    multiple: int = 1

    def __call__(self, pairs: Sequence[Pair]) -> Batch:
        """Stack pairs, in order."""
        caption = torch.stack([pair.caption for pair in pairs])
        negative = torch.stack([pair.negative for pair in pairs])
        if self.trim:
            longest = max(text_length(caption), text_length(negative))
            length = min(caption.shape[-1], -(-longest // self.multiple) * self.multiple)
            caption, negative = caption[..., :length].contiguous(), negative[..., :length].contiguous()
        return Batch(
            image=torch.stack([pair.image for pair in pairs]),
            caption=caption,
            negative=negative,
            valid=torch.stack([pair.valid for pair in pairs]),
            rule=torch.stack([pair.rule for pair in pairs]),
            group=torch.tensor([pair.group for pair in pairs], dtype=torch.int64),
            ids=tuple(pair.id for pair in pairs),
        )


def text_length(tokens: Int[Tensor, "*texts context"]) -> int:
    """Tokens of the longest text, its end token included; 0 without a text.

    The end token has the largest number of CLIP's vocabulary, so `argmax` points at it, and the padding is 0.
    Texts of other tokenizers are never cut either: the last token that is not 0 counts as well.
    """
    if tokens.numel() == 0:
        return 0
    context = tokens.shape[-1]
    end = tokens.argmax(dim=-1) + 1
    positions = torch.arange(1, context + 1, device=tokens.device)
    last = (positions * (tokens != 0)).amax(dim=-1)
    return int(torch.maximum(end, last).max())
