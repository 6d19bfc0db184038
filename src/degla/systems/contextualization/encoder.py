"""A word vocabulary, the training tasks of contexts, and a small text encoder that answers queries by names.

The tasks are to fill masked words, and to write the context of a triple.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from degla.systems.contextualization.settings import ContextSettings

SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNKNOWN_WORD, START, BREAK, MASK = range(len(SPECIAL))
SELECTED: Final = 0.15
"""Share of words to be reconstructed; of these 80 % are masked, 10 % replaced, 10 % kept (BERT)."""
_WORDS: Final = re.compile(r"\w+|[^\w\s]")
LONGEST_ROW: Final = 48
"""Maximum number of words that the encoder reads."""
HEADS: Final = 4


@dataclass(frozen=True)
class Words:
    """A vocabulary of whole words in lower case, special ones first."""

    vocabulary: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[str], texts: Iterable[str]) -> Words:
        """Build a vocabulary of all words in names, and those that occur at least twice in texts."""
        always = {word for name in names for word in split_words(name)}
        counts = Counter(word for text in texts for word in split_words(text))
        return cls((*SPECIAL, *sorted(always | {word for word, count in counts.items() if count > 1})))

    @cached_property
    def _place(self) -> dict[str, int]:
        return {word: at for at, word in enumerate(self.vocabulary)}

    def numbers(self, text: str) -> list[int]:
        """Return the number of each word; `UNKNOWN_WORD` for unknown ones."""
        return [self._place.get(word, UNKNOWN_WORD) for word in split_words(text)]

    def rows(self, parts: Iterable[Sequence[str]], *, longest: int) -> Int[Tensor, "rows length"]:
        """Encode each row as [CLS], then its texts, each followed by [SEP]; truncate to `longest`, fill with [PAD]."""
        rows = [([START] + [n for text in row for n in (*self.numbers(text), BREAK)])[:longest] for row in parts]
        width = max((len(row) for row in rows), default=1)
        return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def split_words(text: str) -> list[str]:
    """Split a text into words and punctuation, in lower case."""
    return _WORDS.findall(text.lower())


def corrupt(
    rows: Int[Tensor, "rows length"], *, words: int
) -> tuple[Int[Tensor, "rows length"], Bool[Tensor, "rows length"]]:
    """Corrupt words as BERT does: 15 % are selected; of these 80 % become [MASK], 10 % another word, 10 % stay.

    Args:
        rows: word numbers; special words are never selected.
        words: size of the vocabulary.

    Returns:
        The corrupted rows, and which words were selected.
    """
    selected = (torch.rand(rows.shape) < SELECTED) & (rows >= len(SPECIAL))
    draw = torch.rand(rows.shape)
    other = torch.randint(len(SPECIAL), words, rows.shape)
    hidden = torch.where(draw < 0.8, torch.full_like(rows, MASK), torch.where(draw < 0.9, other, rows))
    return torch.where(selected, hidden, rows), selected


def writing_task(
    words: Words, triples: Sequence[tuple[str, str, str]], contexts: Sequence[str], *, longest: int
) -> tuple[Int[Tensor, "rows length"], Int[Tensor, " rows"]]:
    """Return rows "[CLS] head [SEP] relation [SEP] tail [SEP] context [SEP]", and where each context begins.

    Args:
        words: the vocabulary.
        triples: head, relation and tail in words, including the answer.
        contexts: one context per triple.
        longest: maximum number of words of a row.
    """
    begins = [len(words.rows([triple], longest=longest)[0]) for triple in triples]
    rows = words.rows([(*triple, context) for triple, context in zip(triples, contexts, strict=True)], longest=longest)
    return rows, torch.tensor(begins)


class TextEncoder(nn.Module):
    """Pre-norm transformer over words; reads a row at its first word, and predicts words with tied embeddings."""

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
        """Return a state for each word.

        Args:
            rows: word numbers.
            begins: words from this position on attend only to previous words; with None, all attend to all.
        """
        states = self.words(rows) + self.places(torch.arange(rows.shape[1]))
        mask = None if begins is None else unseen_words(begins, rows.shape[1]).repeat_interleave(HEADS, dim=0)
        return self.norm(self.layers(states, mask=mask, src_key_padding_mask=rows == PAD))  # type: ignore[no-any-return]

    def embed(self, rows: Int[Tensor, "rows length"]) -> Float[Tensor, "rows dim"]:
        """Return a unit-length row for each text."""
        return normalize(self(rows)[:, 0], dim=1)

    def word_loss(self, states: Float[Tensor, "words dim"], true: Int[Tensor, " words"]) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of words given their states; 0 without words."""
        return cross_entropy(states @ self.words.weight.T, true) if len(true) else states.sum() * 0.0


def unseen_words(begins: Int[Tensor, " rows"], length: int) -> Bool[Tensor, "rows length length"]:
    """Mask the words (last axis) that a word does not attend to: later ones, except words before `begins`."""
    place = torch.arange(length)
    later = place[None, :] > place[:, None]
    return later[None] & (place[None, None, :] >= begins[:, None, None])
