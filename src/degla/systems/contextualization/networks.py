"""A small text encoder that answers queries by names."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from degla.systems.contextualization.settings import ContextSettings
from degla.systems.contextualization.tasks import PAD

LONGEST_ROW: Final = 48
"""Words that the encoder reads."""
HEADS: Final = 4


class TextEncoder(nn.Module):
    """Pre-norm transformer over words; rows are read at their first word, words are told by the embedding itself."""

    def __init__(self, words: int, settings: ContextSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.words = nn.Embedding(words, dim, padding_idx=PAD)
        self.places = nn.Embedding(LONGEST_ROW, dim)
        layer = nn.TransformerEncoderLayer(dim, HEADS, 4 * dim, dropout=0.1, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)

    def forward(
        self, rows: Int[Tensor, "rows length"], begins: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows length dim"]:
        """A state for each word.

        Args:
            rows: numbers of words.
            begins: words from there on see only what stands before them; None: all see all.
        """
        states = self.words(rows) + self.places(torch.arange(rows.shape[1]))
        mask = None if begins is None else unseen_words(begins, rows.shape[1]).repeat_interleave(HEADS, dim=0)
        return self.norm(self.layers(states, mask=mask, src_key_padding_mask=rows == PAD))  # type: ignore[no-any-return]

    def embed(self, rows: Int[Tensor, "rows length"]) -> Float[Tensor, "rows dim"]:
        """A row of length one for each text."""
        return normalize(self(rows)[:, 0], dim=1)

    def word_loss(self, states: Float[Tensor, "words dim"], true: Int[Tensor, " words"]) -> Float[Tensor, ""]:
        """Mean cross-entropy of words by their states; 0 for none."""
        return cross_entropy(states @ self.words.weight.T, true) if len(true) else states.sum() * 0.0


def unseen_words(begins: Int[Tensor, " rows"], length: int) -> Bool[Tensor, "rows length length"]:
    """Which word (last axis) another word does not see: those behind it, but for words before `begins`."""
    place = torch.arange(length)
    later = place[None, :] > place[:, None]
    return later[None] & (place[None, None, :] >= begins[:, None, None])
