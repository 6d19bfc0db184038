"""Whether a language model that was not trained on these texts finds the caption likelier than its negative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from degla.negatives.llm.likelihood import Likelihood, Tree
from degla.negatives.llm.weights import find_weights, load
from degla.negatives.report.counts import Drawn
from degla.statistics.proportions import Proportion, clustered

MOST_PAIRS: Final = 500
"""Pairs a rule: a small model on one core judges about a hundred a second."""

EMBEDDED: Final = "embedded"
"""Name of the embedded language model."""

_AT_ONCE: Final = 16
"""Pairs that go through the model together."""


class Judge:
    """Compares mean log-likelihoods a token, in nats, of texts without any prompt.

    Attributes:
        name: of the language model.
    """

    def __init__(self, model: str = EMBEDDED) -> None:
        """Load the model.

        Args:
            model: "embedded", a GGUF file, a folder, or a name of the hub.

        Raises:
            InputError: it is not installed or cannot be loaded (the message has the command that installs it).
        """
        weights = find_weights(None if model == EMBEDDED else model)
        self.name = weights.name
        self._likelihood = Likelihood(*load(weights))

    def __call__(self, drawn: Sequence[Drawn]) -> Proportion:
        """The share of pairs whose caption is likelier, ties one half; interval by a bootstrap over images.

        At most 500 pairs; those with a text that the model cannot read to its end are left out.
        """
        worth: list[float] = []
        images: list[str] = []
        asked = drawn[:MOST_PAIRS]
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            scores = self.score([text for pair in part for text in (pair.caption.text, pair.negative)])
            for pair, caption, negative in zip(part, scores[::2], scores[1::2], strict=True):
                if caption is not None and negative is not None:
                    worth.append((caption > negative) + 0.5 * (caption == negative))
                    images.append(pair.caption.image_id)
        return clustered(np.array(worth), images)

    def score(self, texts: Sequence[str]) -> list[float | None]:
        """Mean log-likelihood a token (nats) of each text; None where it has none or does not fit the context."""
        encoded = [self._likelihood.encode(text) for text in texts]
        encoded = [tokens if len(tokens) < self._likelihood.context else () for tokens in encoded]
        tree = Tree()
        start = self._likelihood.start
        paths = [tree.add((start, *tokens), after=-2)[1:] for tokens in encoded]
        if not any(paths):
            return [None] * len(texts)
        computed = self._likelihood.compute(tree)
        return [float(np.mean(computed.path(tree, path))) if path else None for path in paths]
