"""Words as numbers, and what contexts teach: to fill masked words, and to write the context of a triple."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNKNOWN_WORD, START, BREAK, MASK = range(len(SPECIAL))
SELECTED: Final = 0.15
"""Share of words that reconstruction asks for; of these 80 % are masked, 10 % replaced, 10 % kept (BERT)."""
_WORDS: Final = re.compile(r"\w+|[^\w\s]")


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", {word: at for at, word in enumerate(self.known)})

    def numbers(self, text: str) -> list[int]:
        """Of each word; `UNKNOWN_WORD` for one that is not known."""
        place: dict[str, int] = self._place  # type: ignore[attr-defined]
        return [place.get(word, UNKNOWN_WORD) for word in split_words(text)]

    def rows(self, parts: Iterable[Sequence[str]], *, longest: int) -> Int[Tensor, "rows length"]:
        """Each row [CLS], then its texts with [SEP] behind each, cut at `longest` and filled with [PAD]."""
        made = [([START] + [n for text in row for n in (*self.numbers(text), BREAK)])[:longest] for row in parts]
        width = max((len(row) for row in made), default=1)
        return torch.tensor([row + [PAD] * (width - len(row)) for row in made])


def split_words(text: str) -> list[str]:
    """Words and marks, in lower case."""
    return _WORDS.findall(text.lower())


class Corrupted(NamedTuple):
    """Rows with some words hidden, and which were selected."""

    rows: Int[Tensor, "rows length"]
    selected: Bool[Tensor, "rows length"]


def corrupt(rows: Int[Tensor, "rows length"], *, words: int) -> Corrupted:
    """BERT's corruption: 15 % of the words are selected; 80 % of these become [MASK], 10 % another word, 10 % stay.

    Args:
        rows: numbers of words; special ones are never selected.
        words: size of the vocabulary.
    """
    selected = (torch.rand(rows.shape) < SELECTED) & (rows >= len(SPECIAL))
    draw = torch.rand(rows.shape)
    other = torch.randint(len(SPECIAL), words, rows.shape)
    hidden = torch.where(draw < 0.8, torch.full_like(rows, MASK), torch.where(draw < 0.9, other, rows))
    return Corrupted(torch.where(selected, hidden, rows), selected)


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
