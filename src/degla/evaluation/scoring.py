"""Score embeddings against gold answers, in float32, with exact ties counted and non-finite numbers
rejected.

Every similarity is a float32 cosine between rows normalised in float32, whatever precision the
model computed them in. Rows that are bitwise equal get equal similarities, so a tie depends on the
model and not on the summation order of a matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from degla.errors import DeglaError

if TYPE_CHECKING:
    from degla.evaluation.benchmark import TieRule

EmbeddingRows = NDArray[np.float32]
"""`[N, D]`."""
Similarities = NDArray[np.float32]
"""Cosines, or leads of one over another."""
_TIE_WORTH = {"strict": 0.0, "half": 0.5, "lenient": 1.0}
_CHUNK_BYTES = 64 << 20
"""Size of the similarities of queries that are ranked at once."""
_PAIRS_BYTES = 4 << 20
"""Size of the products of embeddings that are summed at once."""


@dataclass(frozen=True)
class PairVerdicts:
    """Verdicts of N items of equal shape, in the order of the items.

    Attributes:
        text_ok: `[N]` float64: for each image, every true text is above every false one.
        image_ok: `[N]`: for each text, every image it is true of is above every other.
        group_ok: `[N]`: both (their product).
        text_ties, image_ties: `[N]` int: comparisons of a positive with a negative that came out equal.
        margin: `[N]` float32: the smallest lead of a positive over a negative, over both directions.
    """

    text_ok: NDArray[np.float64]
    image_ok: NDArray[np.float64]
    group_ok: NDArray[np.float64]
    text_ties: NDArray[np.int64]
    image_ties: NDArray[np.int64]
    margin: Similarities


@dataclass(frozen=True)
class RankVerdicts:
    """Verdicts of N queries that each pick from candidates.

    Attributes:
        better: `[N]` int: false candidates strictly above the best true one.
        ties: `[N]` int: false candidates exactly equal to it.
        margin: `[N]` float32: lead of the best true candidate over the best false one.
    """

    better: NDArray[np.int64]
    ties: NDArray[np.int64]
    margin: Similarities

    def within(self, k: int, tie: TieRule) -> NDArray[np.float64]:
        """Return the value `[N]` of "the true one is among the first k".

        Strict ranks it after its ties, lenient before them; half is the expectation over a random order of
        the ties, which for k = 1 and one tie is 1/2.
        """
        if tie == "half":
            return np.clip((k - self.better) / (self.ties + 1), 0.0, 1.0)
        above = self.better + (self.ties if tie == "strict" else 0)
        return (above < k).astype(np.float64)


def unit_rows(rows: NDArray[Any]) -> EmbeddingRows:
    """Normalise rows `[N, D]` of any float type to length one in float32; zero or non-finite rows become NaN."""
    wide = np.asarray(rows, dtype=np.float32)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.asarray(wide / np.sqrt((wide * wide).sum(axis=-1, keepdims=True)), dtype=np.float32)


def pair_similarities(
    images: EmbeddingRows, texts: EmbeddingRows, image_index: NDArray[Any], text_index: NDArray[Any]
) -> Similarities:
    """Compute the cosines `[N, K, L]` of each item's images and texts.

    Args:
        images: `[I, D]` unit rows, indexed by `image_index` `[N, K]`.
        texts: `[J, D]` unit rows, indexed by `text_index` `[N, L]`.
        image_index: see `images`.
        text_index: see `texts`.
    """
    count, K, L = len(image_index), image_index.shape[1], text_index.shape[1]
    result = np.empty((count, K, L), dtype=np.float32)
    step = max(1, _PAIRS_BYTES // (4 * K * L * max(1, images.shape[1])))
    for start in range(0, count, step):
        part = slice(start, start + step)
        # Multiply and sum along the row: the summation order is the same for every pair. A matrix product
        # sums edge columns in another order and so breaks ties of identical rows in the last bit.
        product = images[image_index[part]][:, :, None, :] * texts[text_index[part]][:, None, :, :]
        result[part] = product.sum(axis=-1)
    return result


def score_pairs(
    similarities: NDArray[Any], gold: NDArray[Any], *, tie: TieRule, ids: Sequence[str] = ()
) -> PairVerdicts:
    """Score N items of K images and L texts.

    For each image, every text that is true of it is compared with every text that is not. A comparison
    is worth 1 if the true one is strictly above, the tie's worth if they are equal, else 0. An item's
    worth is the product. `image_ok` does the same over columns.

    Args:
        similarities: `[N, K, L]`, finite.
        gold: `[N, K, L]` of 0 and 1.
        tie: what an exact tie is worth.
        ids: N names for the error message.

    Raises:
        DeglaError: a similarity is not finite; names the first such item.
    """
    values = np.asarray(similarities, dtype=np.float32)
    truth = np.asarray(gold, dtype=bool)
    if values.shape != truth.shape or values.ndim != 3:
        raise ValueError(f"similarities {values.shape} and gold {truth.shape} must be the same [N, K, L]")
    _refuse_non_finite(values.reshape(len(values), -1), ids, "item")
    text_ok, text_ties, text_margin = _compare(values, _comparisons(truth), tie)
    image_ok, image_ties, image_margin = _compare(values.swapaxes(1, 2), _comparisons(truth.swapaxes(1, 2)), tie)
    return PairVerdicts(
        text_ok, image_ok, text_ok * image_ok, text_ties, image_ties, np.minimum(text_margin, image_margin)
    )


def score_texts(
    similarities: NDArray[Any], same: NDArray[Any], *, tie: TieRule, ids: Sequence[str] = ()
) -> tuple[NDArray[np.float64], NDArray[np.int64], Similarities]:
    """Score N items of L texts without an image.

    Texts with the same meaning must be closer to each other than to any text with another meaning. With two
    equivalent texts, p and q, and another one, n: p-q must be above both p-n and q-n.

    Args:
        similarities: `[N, L, L]` of texts with texts, finite.
        same: `[N, L]`, 1 for the texts with the same meaning.
        tie: what an exact tie is worth.
        ids: N names for the error message.

    Returns:
        Worth, number of ties and smallest margin, `[N]` each.

    Raises:
        DeglaError: a similarity is not finite; the first such item is named.
    """
    values = np.asarray(similarities, dtype=np.float32)
    alike = np.asarray(same, dtype=bool)
    if values.shape != (*alike.shape, alike.shape[-1]):
        raise ValueError(f"similarities {values.shape} must be [N, L, L] for same {alike.shape}")
    _refuse_non_finite(values.reshape(len(values), -1), ids, "item")
    # [N, p, q, n]: texts p and q are two with the same meaning, and n has another; row p compares its entries q and n.
    partners = alike[:, :, None] & alike[:, None, :] & ~np.eye(alike.shape[1], dtype=bool)
    return _compare(values, partners[..., None] & ~alike[:, None, None, :], tie)


def score_ranking(
    similarities: NDArray[Any], gold: NDArray[Any], *, ids: Sequence[str] = ()
) -> tuple[NDArray[np.float64], NDArray[np.int64], Similarities]:
    """Compute the average precision of N texts, each over the same K images.

    The mean over the true images of the share of true ones among all that are at least as similar: images with equal
    similarity count together, whatever their order.

    Args:
        similarities: `[N, K]`, finite.
        gold: `[K]`, 1 for the images that the texts are true of.
        ids: N names for the error message.

    Returns:
        Average precision, number of ties of a true and a false image, and the true images' smallest lead, `[N]`.

    Raises:
        DeglaError: a similarity is not finite; the first such item is named.
    """
    values, truth = np.asarray(similarities, dtype=np.float32), np.asarray(gold, dtype=bool)
    _refuse_non_finite(values, ids, "item")
    true, false = values[:, truth], values[:, ~truth]
    above_true = (true[:, None, :] >= true[:, :, None]).sum(axis=2)
    above_false = (false[:, None, :] >= true[:, :, None]).sum(axis=2)
    ties = (false[:, None, :] == true[:, :, None]).sum(axis=(1, 2))
    return (above_true / (above_true + above_false)).mean(axis=1), ties, true.min(axis=1) - false.max(axis=1)


def ranking_chance(gold: Sequence[int]) -> float:
    """Return the expected average precision of K images in random order, with true images by gold `[K]`."""
    count, true = len(gold), sum(gold)
    first = float((1 / np.arange(1, count + 1)).sum()) / count
    return first + (1 - first) * (true - 1) / max(1, count - 1)


def _comparisons(truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether to compare entry p of a row with its entry n, `[N, R, C, C]` of `[N, R, C]`: p is true and n is not."""
    return truth[..., :, None] & ~truth[..., None, :]


def _compare(
    values: Similarities, comparisons: NDArray[np.bool_], tie: TieRule
) -> tuple[NDArray[np.float64], NDArray[np.int64], Similarities]:
    """Worth, ties and smallest margin `[N]` of comparisons `[N, R, C, C]` within the rows of values `[N, R, C]`."""
    lead = values[..., :, None] - values[..., None, :]
    above = values[..., :, None] > values[..., None, :]
    equal = values[..., :, None] == values[..., None, :]
    worth = np.where(comparisons, np.where(above, 1.0, np.where(equal, _TIE_WORTH[tie], 0.0)), 1.0)
    count = len(values)
    margin = np.where(comparisons, lead, np.inf).reshape(count, -1).min(axis=1).astype(np.float32)
    return (
        worth.reshape(count, -1).prod(axis=1),
        (comparisons & equal).reshape(count, -1).sum(axis=1).astype(np.int64),
        margin,
    )


def class_rows(prompts: EmbeddingRows, classes: int) -> EmbeddingRows:
    """Return one unit row per class: the normalised mean of its unit prompt embeddings.

    Args:
        prompts: `[classes * templates, D]` unit rows, grouped by class.
        classes: number of classes.
    """
    return unit_rows(prompts.reshape(classes, -1, prompts.shape[1]).mean(axis=1, dtype=np.float32))


def rank(
    queries: EmbeddingRows, candidates: EmbeddingRows, truth: Sequence[Sequence[int]], ids: Sequence[str]
) -> RankVerdicts:
    """Rank the candidates of each query by cosine and find the rank of its best true one.

    Args:
        queries: `[N, D]` unit rows.
        candidates: `[M, D]` unit rows.
        truth: N lists of indices of the true candidates, none of them empty.
        ids: N names for the error message.

    Raises:
        DeglaError: a similarity is not finite; the first such query is named.
    """
    # Equal candidates are scored once: a matrix product could separate them by rounding.
    distinct, inverse = _distinct(candidates)
    count = len(queries)
    better = np.empty(count, dtype=np.int64)
    ties = np.empty(count, dtype=np.int64)
    margin = np.empty(count, dtype=np.float32)
    step = max(1, _CHUNK_BYTES // (4 * max(1, len(candidates))))
    for start in range(0, count, step):
        with np.errstate(invalid="ignore", over="ignore"):
            values = (queries[start : start + step] @ distinct.T)[:, inverse]
        _refuse_non_finite(values, ids[start : start + step], "query")
        for offset, row in enumerate(values):
            wrong = np.ones(len(row), dtype=bool)
            wrong[list(truth[start + offset])] = False
            best, rivals = row[~wrong].max(), row[wrong]
            better[start + offset] = (rivals > best).sum()
            ties[start + offset] = (rivals == best).sum()
            margin[start + offset] = best - rivals.max() if len(rivals) else np.inf
    return RankVerdicts(better, ties, margin)


def _distinct(rows: EmbeddingRows) -> tuple[EmbeddingRows, NDArray[np.int64]]:
    """Rows without repetition, and for each old row the index of its new one."""
    numbers: dict[bytes, int] = {}
    inverse = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows], dtype=np.int64)
    first = np.zeros(len(numbers), dtype=np.int64)
    first[inverse[::-1]] = np.arange(len(rows))[::-1]
    return rows[first], inverse


def _refuse_non_finite(values: NDArray[Any], ids: Sequence[str], noun: str) -> None:
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        index = int(bad.argmax())
        name = ids[index] if index < len(ids) else f"number {index}"
        raise DeglaError(
            f"{noun} {name!r}: the model's similarity is {values[index][~np.isfinite(values[index])][0]} "
            f"(in {int(bad.sum())} of {len(values)}). A model that overflows cannot be scored: load it in "
            "fp32, or check its training for a loss that became NaN."
        )
