"""Words of a caption behind the mask token: its token numbers and the words enter, token numbers leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxtyping import Int
from torch import Tensor

from degla.prefixes import MASKED, Tokenize


def mask_words(caption: Int[Tensor, " context"], words: Sequence[str], tokenize: Tokenize) -> Int[Tensor, " context"]:
    """The same tokens with `MASKED` where each word stands first; a word that stands nowhere masks nothing.

    Args:
        caption: token numbers, from a start token to an end token.
        words: parts of the caption, as it writes them.
        tokenize: what made the token numbers.
    """
    masked, numbers = caption.clone(), caption.tolist()
    for parts in _tokens_of(words, tokenize):
        last = len(numbers) - len(parts)
        place = next((at for at in range(last + 1) if numbers[at : at + len(parts)] == parts), None)
        if parts and place is not None:
            masked[place : place + len(parts)] = MASKED
    return masked


def _tokens_of(words: Sequence[str], tokenize: Tokenize) -> Iterator[list[int]]:
    """The tokens of each word, without those of a text's start and end."""
    nothing, *rows = tokenize(["", *words]).tolist()
    end = nothing[1]
    for row in rows:
        yield row[1 : row.index(end, 1)] if end in row[1:] else []
