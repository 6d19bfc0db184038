"""Words as numbers, what contexts teach, and a small text encoder that answers queries by names.

Contexts teach to fill masked words, and to write the context of a triple.
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
"""Share of words that reconstruction asks for; of these 80 % are masked, 10 % replaced, 10 % kept (BERT)."""
_WORDS: Final = re.compile(r"\w+|[^\w\s]")
LONGEST_ROW: Final = 48
"""Words that the encoder reads."""
HEADS: Final = 4


@dataclass(frozen=True)
class Words:
    """A vocabulary of whole words in lower case, the special ones first."""

    known: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[str], texts: Iterable[str]) -> Words:
        """All words of names, and those that occur twice or more in texts."""
        always = {word for name in names for word in split_words(name)}
        counts = Counter(word for text in texts for word in split_words(text))
        return cls((*SPECIAL, *sorted(always | {word for word, count in counts.items() if count > 1})))

    @cached_property
    def _place(self) -> dict[str, int]:
        return {word: at for at, word in enumerate(self.known)}

    def numbers(self, text: str) -> list[int]:
        """Of each word; `UNKNOWN_WORD` for one that is not known."""
        return [self._place.get(word, UNKNOWN_WORD) for word in split_words(text)]

    def rows(self, parts: Iterable[Sequence[str]], *, longest: int) -> Int[Tensor, "rows length"]:
        """Each row [CLS], then its texts with [SEP] behind each, cut at `longest` and filled with [PAD]."""
        made = [([START] + [n for text in row for n in (*self.numbers(text), BREAK)])[:longest] for row in parts]
        width = max((len(row) for row in made), default=1)
        return torch.tensor([row + [PAD] * (width - len(row)) for row in made])


def split_words(text: str) -> list[str]:
    """Words and marks, in lower case."""
    return _WORDS.findall(text.lower())


def corrupt(
    rows: Int[Tensor, "rows length"], *, words: int
) -> tuple[Int[Tensor, "rows length"], Bool[Tensor, "rows length"]]:
    """BERT's corruption: 15 % of the words are selected; 80 % of these become [MASK], 10 % another word, 10 % stay.

    Args:
        rows: numbers of words; special ones are never selected.
        words: size of the vocabulary.

    Returns:
        Rows with some words hidden, and which were selected.
    """
    selected = (torch.rand(rows.shape) < SELECTED) & (rows >= len(SPECIAL))
    draw = torch.rand(rows.shape)
    other = torch.randint(len(SPECIAL), words, rows.shape)
    hidden = torch.where(draw < 0.8, torch.full_like(rows, MASK), torch.where(draw < 0.9, other, rows))
    return torch.where(selected, hidden, rows), selected


def writing_task(
    words: Words, triples: Sequence[tuple[str, str, str]], contexts: Sequence[str], *, longest: int
) -> tuple[Int[Tensor, "rows length"], Int[Tensor, " rows"]]:
    """Rows "[CLS] head [SEP] relation [SEP] tail [SEP] context [SEP]", and where each context begins.

    Args:
        words: the vocabulary.
        triples: head, relation and tail as people say them: the whole triple, its answer too.
        contexts: its own, one a triple.
        longest: words of a row.
    """
    begins = [len(words.rows([triple], longest=longest)[0]) for triple in triples]
    rows = words.rows([(*triple, context) for triple, context in zip(triples, contexts, strict=True)], longest=longest)
    return rows, torch.tensor(begins)


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
