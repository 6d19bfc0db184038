"""How unlikely texts are to a language model that sees no image: the measure of `floors.BlindModel` with a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from degla.errors import InputError

_TEXTS_A_PASS = 32


def open_dislike(model: str) -> tuple[Callable[[Sequence[str]], list[float]], str]:
    """Load a causal language model, in float32.

    Args:
        model: "embedded" for the one of `degla negatives --llm embedded`, else a GGUF file, a folder or a hub id.

    Returns:
        A function of texts to minus their mean log-likelihood a token (nats), and what tells the model apart.

    Raises:
        InputError: the model is not installed, damaged or of no sort that can be used; from the function, a text does
            not fit it.
    """
    from degla.negatives.llm.likelihood import Likelihood, TooLongError, Tree
    from degla.negatives.llm.weights import find_weights, load

    weights = find_weights(None if model == "embedded" else model)
    likelihood = Likelihood(*load(weights, precision="float32"))

    def some(texts: Sequence[str]) -> list[float]:
        # The token that begins a text has no likelihood of its own; its path follows nothing.
        tree = Tree()
        paths = [tree.add((likelihood.start, *likelihood.encode(text)), after=-2)[1:] for text in texts]
        computed = likelihood.compute(tree)
        return [-sum(computed.path(tree, nodes)) / len(nodes) if nodes else 0.0 for nodes in paths]

    def dislike(texts: Sequence[str]) -> list[float]:
        try:
            parts = [texts[start : start + _TEXTS_A_PASS] for start in range(0, len(texts), _TEXTS_A_PASS)]
            return [value for part in parts for value in some(part)]
        except TooLongError as error:
            raise InputError(f"blind:{model}: a text is too long for the language model: {error}.") from None

    return dislike, f"{weights.name} {weights.digest}"
