"""`PrefixTree`: texts as a tree of shared prefixes, so that a causal tower computes each prefix only once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

MASKED = -1
"""Token id for a masked word; no tokenizer uses it."""
_NO_TOKEN = -2

Tokenize = Callable[[list[str]], Int[Tensor, "texts context"]]
"""A function from texts to padded token ids."""


@dataclass(frozen=True)
class PrefixTree:
    """The distinct prefixes of some texts, each stored once, for a causal text tower.

    A node is a prefix of one or more texts: a token after its predecessors. With causal attention, the state of a token
    depends on nothing else, so all texts with the same prefix share it. Tokens after an end token have no node, and
    equal texts are stored once.

    Attributes:
        token: token id of each node, `MASKED` for a mask token; nodes are ordered by position.
        position: position of each node in its texts, from 0.
        path: nodes from the first to the end token of each *distinct* text; 0 after the end token.
        source: index in the flattened `path` of each node's first occurrence.
        end: length of each distinct text minus one: the index of its end token in `path`.
        text: index of the distinct text for each given text.
    """

    token: Int[Tensor, " nodes"]
    position: Int[Tensor, " nodes"]
    path: Int[Tensor, "different length"]
    source: Int[Tensor, " nodes"]
    end: Int[Tensor, " different"]
    text: Int[Tensor, " texts"]

    def __len__(self) -> int:
        return len(self.text)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> PrefixTree:
        """Return the tree on a device."""
        return PrefixTree(**{k: v.to(device, non_blocking=non_blocking) for k, v in vars(self).items()})

    def pin_memory(self) -> PrefixTree:
        """Return the tree in page-locked memory."""
        return PrefixTree(**{name: value.pin_memory() for name, value in vars(self).items()})


def ends_of(tokens: Int[Tensor, "*texts length"], end_token: int | None) -> Int[Tensor, "*texts"]:
    """Return the position of each text's end token: the first `end_token`; with None, of the largest id of the text."""
    return tokens.argmax(dim=-1) if end_token is None else (tokens == end_token).int().argmax(dim=-1)


@dataclass(frozen=True)
class GrowTree:
    """Builds trees for a tower's end-of-text convention; picklable, for data-loading workers.

    Attributes:
        end_token: id of the end token; None if it is the largest id of the text, as in CLIP's vocabulary.
        multiple: round the length of `path` up to a multiple of this, to limit the number of shapes for compilation.
    """

    end_token: int | None = None
    multiple: int = 1

    def __call__(self, tokens: Int[Tensor, "texts length"]) -> PrefixTree:
        """Build the tree of padded texts; a text without end token ends at its first token, as in the towers."""
        rows = tokens.cpu().numpy()
        texts, context = rows.shape
        end = rows.argmax(axis=1) if self.end_token is None else (rows == self.end_token).argmax(axis=1)
        longest = int(end.max(initial=0)) + 1
        rows = np.where(np.arange(longest) <= end[:, None], rows[:, :longest], _NO_TOKEN)
        different, text = np.unique(rows, axis=0, return_inverse=True)
        text = text.reshape(texts)  # NumPy 2.0, and only that version, returns two axes.
        end = (different != _NO_TOKEN).sum(axis=1) - 1

        length = min(context, -(-longest // self.multiple) * self.multiple)
        path = np.zeros((len(different), length), dtype=np.int64)
        token, source = [], []
        nodes = 0
        for position in range(longest if len(different) else 0):
            alive = np.flatnonzero(end >= position)
            before = path[alive, position - 1] if position else np.zeros(len(alive), dtype=np.int64)
            key = before * (int(rows.max()) + 2) + different[alive, position] - MASKED
            _, first, which = np.unique(key, return_index=True, return_inverse=True)
            path[alive, position] = nodes + which.reshape(-1)
            token.append(different[alive[first], position])
            source.append(alive[first] * length + position)
            nodes += len(first)
        counts = [len(part) for part in token]
        return PrefixTree(
            token=torch.from_numpy(np.concatenate([*token, np.zeros(0, dtype=np.int64)])),
            position=torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
            path=torch.from_numpy(path),
            source=torch.from_numpy(np.concatenate([*source, np.zeros(0, dtype=np.int64)])),
            end=torch.from_numpy(end.astype(np.int64)),
            text=torch.from_numpy(text.astype(np.int64)),
        )
