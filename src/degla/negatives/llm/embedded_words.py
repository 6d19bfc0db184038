"""Words that a language model expects at a place: its likeliest next tokens, completed to whole words.

A token that begins a word may be all of it ("dog") or a piece ("skate" of "skateboard"). Each is followed by the model
until the word ends, so that no piece is taken for a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from degla.negatives.llm.likelihood import Likelihood, Tree

PROPOSALS: Final = 16
"""Beginnings of words that are followed at each place."""
_PIECES: Final = 2
"""Tokens of a word, at most: everyday words have no more, and every one costs a pass."""
_OPENING: Final = re.compile(r"[Ġ▁][A-Za-z]+")
_GOING_ON: Final = re.compile(r"[A-Za-z]+")


class WordTokens:
    """Which tokens begin a word and which go on with one, of a tokenizer that marks spaces as GPT-2's or Llama's do."""

    def __init__(self, likelihood: Likelihood) -> None:
        weight = likelihood.model.get_input_embeddings().weight
        size = int(weight.shape[0])
        tokenizer = likelihood.tokenizer
        named = len(tokenizer)
        tokens = [*tokenizer.convert_ids_to_tokens(list(range(min(size, named)))), *[""] * (size - named)]
        self.letters = [(token or "").lstrip("Ġ▁") for token in tokens]
        """Each token's letters."""
        self.opens = weight.new_tensor([bool(_OPENING.fullmatch(token or "")) for token in tokens]).bool()
        """`[vocabulary]`, True for a space and letters."""
        self.goes_on = weight.new_tensor([bool(_GOING_ON.fullmatch(token or "")) for token in tokens]).bool()
        """`[vocabulary]`, True for letters alone."""


@dataclass
class _Word:
    place: int
    node: int
    text: str
    likelihood: float


def propose(
    likelihood: Likelihood, vocabulary: WordTokens, tree: Tree, ends: Sequence[int], present: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """Words for each place, likeliest first, in lower case.

    Args:
        likelihood: the model.
        vocabulary: its tokens.
        tree: not computed yet; grows by the words.
        ends: for each place the node that the word follows.
        present: for each place the word that stands there, which is not proposed.
    """
    computed = likelihood.compute(tree, ask=ends)
    open_words = []
    for place, end in enumerate(ends):
        expected = _only(computed.after(end), vocabulary.opens).topk(min(PROPOSALS, int(vocabulary.opens.sum())))
        for value, token in zip(expected.values.tolist(), expected.indices.tolist(), strict=True):
            node = tree.add([token], after=end)[0]
            if node < tree.computed:
                continue  # The word that stands there, or its first piece.
            open_words.append(_Word(place, node, vocabulary.letters[token], value))
    words_of: list[dict[str, float]] = [{} for _ in ends]
    for _ in range(_PIECES):
        if not open_words:
            break
        open_words = _follow(likelihood, vocabulary, tree, open_words, words_of)
    return tuple(
        tuple(word for word, _ in sorted(words.items(), key=lambda item: -item[1]) if word != stands.lower())
        for words, stands in zip(words_of, present, strict=True)
    )


def _follow(
    likelihood: Likelihood, vocabulary: WordTokens, tree: Tree, words: list[_Word], words_of: list[dict[str, float]]
) -> list[_Word]:
    """Put the words that end into `words_of`; returns the others, each one token longer."""
    computed = likelihood.compute(tree, ask=[word.node for word in words])
    letters = _only(computed.rows, vocabulary.goes_on)
    going_on = letters.logsumexp(1).exp().tolist()
    values, pieces = (tensor.tolist() for tensor in letters.max(1))
    longer = []
    for word in words:
        row = computed.row[word.node]
        if going_on[row] < 0.5:
            text = word.text.lower()
            words_of[word.place][text] = max(word.likelihood, words_of[word.place].get(text, -math.inf))
            continue
        node = tree.add([pieces[row]], after=word.node)[0]
        text = word.text + vocabulary.letters[pieces[row]]
        longer.append(_Word(word.place, node, text, word.likelihood + values[row]))
    return longer


def _only(values: Any, allowed: Any) -> Any:
    return values.masked_fill(~allowed, -math.inf)
