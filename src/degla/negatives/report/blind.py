"""Test whether the text alone gives a negative away, with a small cross-validated text classifier.

A negative is useful for training an image model only as far as the image is needed to tell it from its caption. The
classifier sees pairs of a caption and a negative and learns which of the two is the caption from words, word pairs
and character n-grams (n from 2 to 4): logistic regression on the difference of the two texts' counts, without an
intercept, so chance is exactly one half. All captions of one image are in the same fold, so no text is both trained
and tested on. Texts are normalised as by CLIP's tokenizer: lower case, each run of white space as one space.
(SugarCrepe, arXiv 2306.14610, tests its texts likewise with a grammar and a plausibility model.)

A trigram model with Dirichlet smoothing scores how likely a text is among captions. Each order backs off to the one
below it, weighted as `_PRIOR` extra observations (MacKay and Peto 1995). It is fast enough to judge every candidate:
40,000 texts per CPU second, against two hundred by the embedded language model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from degla.negatives.files.caption_index import CaptionIndex, IndexedCaption
from degla.negatives.grammar import words
from degla.negatives.run.stream import hash_text
from degla.statistics.proportions import Proportion, clustered

FOLDS: Final = 5
CHANCE: Final = 0.5
FEWEST: Final = 40
"""Minimum number of pairs; with fewer, the test would be meaningless and is skipped."""

_MOST_FEATURES: Final = 100_000
"""Number of features kept: those that occur in the most pairs."""
_PENALTIES: Final = (1e-1, 1e-2, 1e-3, 1e-4)
"""Candidate L2 penalties; the best on a held-out training fold is used."""
_CUES: Final = 6
_WORDS: Final = "n words"
"""Name of the feature for the number of words."""


@dataclass(frozen=True, slots=True)
class CaptionNegative:
    """A caption and one of its negatives, each with its log-likelihood (nats per word) if known.

    Pairs of one image stay in one fold.
    """

    caption: str
    negative: str
    image_id: str = ""
    caption_likely: float = 0.0
    negative_likely: float = 0.0

    @property
    def longer(self) -> int:
        """Length of the caption minus that of the negative, in characters."""
        return len(self.caption) - len(self.negative)

    @property
    def likelier(self) -> float:
        """Log-likelihood of the caption minus that of the negative, in nats per word."""
        return self.caption_likely - self.negative_likely


@dataclass(frozen=True)
class Blind:
    """How often the classifier identifies the caption, on pairs that it was not trained on.

    Attributes:
        accuracy: share of pairs, ties counted as one half, with a bootstrap interval over images; chance is 1/2.
        caption_cues: words and word pairs that point to the caption, strongest first.
        negative_cues: words and word pairs that point to the negative, strongest first.
    """

    accuracy: Proportion
    caption_cues: tuple[str, ...]
    negative_cues: tuple[str, ...]

    def plain(self) -> dict[str, object]:
        """Return the result as JSON values."""
        return {
            "accuracy": self.accuracy.plain(),
            "chance": CHANCE,
            "caption_cues": list(self.caption_cues),
            "negative_cues": list(self.negative_cues),
        }


def all_features(text: str) -> Counter[str]:
    """Count a text's features for the classifier; the first character of a name is the kind of feature."""
    counts = words_and_pairs(text)
    number = counts.pop(_WORDS)
    framed = f" {' '.join(text.lower().split())} "
    for size in (2, 3, 4):
        counts.update(f"c{framed[start : start + size]}" for start in range(len(framed) - size + 1))
    counts[_WORDS] = number  # Last: of equally frequent features the first are kept.
    return counts


def words_and_pairs(text: str) -> Counter[str]:
    """Count words and word pairs, and the number of words."""
    pieces = ["<", *(piece for piece, _ in words.split(" ".join(text.lower().split()))), ">"]
    counts = Counter(f"w{piece}" for piece in pieces)
    counts.update(f"p{first} {second}" for first, second in pairwise(pieces))
    counts[_WORDS] = len(pieces) - 2
    return counts


Features = Callable[[str], Counter[str]]
"""A function from a text to its feature counts."""


def bag_of_words(text: str) -> Counter[str]:
    """Count the words, ignoring case, order and punctuation, and the number of words."""
    counts = Counter(
        f"w{piece}" for piece, _ in words.split(" ".join(text.lower().split())) if any(map(str.isalnum, piece))
    )
    counts[_WORDS] = counts.total()
    return counts


def blind_leads(pairs: Sequence[CaptionNegative], *, features: Features) -> NDArray[np.float64] | None:
    """Return how strongly the classifier prefers each caption to its negative, trained only on other images.

    Args:
        pairs: pairs of one rule or part.
        features: the features that the classifier sees.

    Returns:
        Scores `[pairs]`: above 0 where the caption is chosen, 0 where both texts have the same counts; None for
        fewer than 40 pairs or 10 images.
    """
    folds = _folds(pairs, 0)
    return None if folds is None else _cross_validated(_differences(pairs, features)[0], folds)


def solve_blind(pairs: Sequence[CaptionNegative], *, seed: int = 0, halves: bool = False) -> Blind | None:
    """Train and test the classifier.

    Args:
        pairs: pairs of one rule, or of all rules.
        seed: seed of the folds and the bootstrap.
        halves: train on one half of the images and test on the other, as for a balanced file: in it, what some folds of
            a half give away, the others show reversed.

    Returns:
        The result; None for fewer than 40 pairs or 10 images (5 in each half).
    """
    folds = _folds(pairs, seed, halves=halves)
    if folds is None:
        return None
    matrix, names = _differences(pairs, all_features)
    scores = _cross_validated(matrix, folds, [half_of(pair.image_id) for pair in pairs] if halves else None)
    weights = _fit_chosen(matrix, folds, left_out=None)
    return Blind(
        clustered(worth(scores), [pair.image_id for pair in pairs], seed=seed),
        caption_cues=_cues(names, weights),
        negative_cues=_cues(names, -weights),
    )


def blind_across(
    train: Sequence[CaptionNegative],
    test: Sequence[CaptionNegative],
    *,
    features: Features = all_features,
    extra: Sequence[Sequence[float]] | None = None,
) -> float:
    """Return the accuracy of a classifier on pairs of images that it was not trained on; ties count as one half.

    Args:
        train: training pairs, at least five.
        test: test pairs, of other images.
        features: the features that the classifier sees.
        extra: additional differences of each pair, caption minus negative, those of `train` first.
    """
    from scipy.sparse import csr_matrix, hstack

    matrix, _ = _differences([*train, *test], features)
    if extra is not None:
        matrix = hstack([matrix, csr_matrix(np.array(extra))]).tocsr()
    # The last fold is the test set; one of the others is used to choose the penalty.
    folds = np.array([number * (FOLDS - 1) // len(train) for number in range(len(train))] + [FOLDS - 1] * len(test))
    weights = _fit_chosen(matrix, folds, left_out=FOLDS - 1)
    return float(worth(matrix[folds == FOLDS - 1] @ weights).mean())


def _folds(pairs: Sequence[CaptionNegative], seed: int, *, halves: bool = False) -> NDArray[np.int64] | None:
    """Return the fold of each pair, one per image; None if there are too few to learn from."""
    images = sorted({pair.image_id for pair in pairs})
    if len(pairs) < FEWEST or len(images) < 2 * FOLDS:
        return None
    Random(seed).shuffle(images)
    if halves:
        images.sort(key=half_of)  # Each half has images of all folds.
        if not FOLDS <= sum(map(half_of, images)) <= len(images) - FOLDS:
            return None
    fold_of = {image: place % FOLDS for place, image in enumerate(images)}
    return np.array([fold_of[pair.image_id] for pair in pairs])


def _cross_validated(matrix: Any, folds: NDArray[np.int64], halves: Sequence[int] | None = None) -> NDArray[np.float64]:
    """Return the scores of all rows, each from weights trained on the other folds, or on the other half."""
    scores = np.zeros(len(folds))
    tests = [(folds, fold) for fold in range(FOLDS)]
    if halves is not None:
        tests = [(np.where(np.array(halves) == half, FOLDS, folds), FOLDS) for half in (0, 1)]
    # If no pair differs in any count, there is nothing to learn from.
    for parts, left_out in tests if matrix.nnz else ():
        tested = parts == left_out
        scores[tested] = matrix[tested] @ _fit_chosen(matrix, parts, left_out=left_out)
    return scores


def _differences(pairs: Sequence[CaptionNegative], features: Features) -> tuple[Any, list[str]]:
    """Return caption features minus negative features, [pairs, features], rows of norm 1, and the feature names."""
    from scipy.sparse import csr_matrix

    rows = []
    frequencies: Counter[str] = Counter()
    for pair in pairs:
        row = features(pair.caption)
        row.subtract(features(pair.negative))
        row = Counter({name: value for name, value in row.items() if value})
        frequencies.update(row.keys())
        rows.append(row)
    # A feature that occurs in one pair only is never in both training and test set.
    names = [name for name, times in frequencies.most_common(_MOST_FEATURES) if times > 1]
    place = {name: number for number, name in enumerate(names)}
    values, columns, ends = [], [], [0]
    for row in rows:
        entries = [(place[name], value) for name, value in row.items() if name in place]
        length = sum(value * value for _, value in entries) ** 0.5
        columns += [column for column, _ in entries]
        values += [value / length for _, value in entries]
        ends.append(len(columns))
    return csr_matrix((values, columns, ends), shape=(len(rows), len(names)), dtype=np.float64), names


def _fit_chosen(matrix: Any, folds: NDArray[Any], *, left_out: int | None) -> NDArray[np.float64]:
    """Train on all folds but one; the penalty is chosen within the training folds only."""
    train = folds != left_out
    validation = folds == (0 if left_out is None else (left_out + 1) % FOLDS)
    inner = train & ~validation
    accuracy = {}
    weights: NDArray[np.float64] | None = None
    for penalty in _PENALTIES:
        weights = _fit(matrix[inner], penalty=penalty, start=weights)
        accuracy[penalty] = float(worth(matrix[validation] @ weights).mean())
    return _fit(matrix[train], penalty=max(_PENALTIES, key=accuracy.__getitem__), start=None)


def worth(leads: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 where the caption scores higher, one half for ties and 0 elsewhere."""
    values = np.asarray(leads, dtype=np.float64)
    shares: NDArray[np.float64] = (values > 0) + 0.5 * (values == 0)
    return shares


def _fit(matrix: Any, *, penalty: float, start: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Minimise mean log(1 + exp(-w.d)) + penalty / 2 |w|^2 over the differences d by L-BFGS."""
    from scipy.optimize import minimize
    from scipy.special import expit

    transposed = matrix.T.tocsr()

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = matrix @ weights
        slope = transposed @ (-expit(-scores) / len(scores))
        value = float(np.logaddexp(0, -scores).mean() + penalty / 2 * weights @ weights)
        return value, slope + penalty * weights

    first = np.zeros(matrix.shape[1]) if start is None else start
    optimum = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 200, "gtol": 1e-5})
    return np.asarray(optimum.x)


def _cues(names: Sequence[str], weights: NDArray[np.float64]) -> tuple[str, ...]:
    """Return the readable features with the largest weights; "^" is the start of the text and "$" its end."""
    readable = [place for place in np.argsort(-weights, kind="stable") if names[place][0] != "c"]
    return tuple(_show(names[place]) for place in readable[:_CUES] if weights[place] > 0)


def _show(name: str) -> str:
    return "more words" if name == _WORDS else name[1:].replace("<", "^").replace(">", "$")


Likelihoods = Callable[[Sequence[str]], Sequence[float]]
"""A function from texts to mean log-likelihoods per word or token, in nats; NaN for a text that exceeds the context."""

_PRIOR: Final = (1.0, 4.0, 4.0)
"""Weight of the order below, in observations: of the uniform distribution, of unigrams, of bigrams."""
_LEARNED: Final = 50_000
"""Maximum number of captions of a half to learn from."""


class NgramLikelihood:
    """A trigram model: learn from captions with `add`, then call it for log-likelihoods."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._contexts: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Learn from one text."""
        pieces = _pieces(text)
        for place in range(2, len(pieces)):
            for start in (place, place - 1, place - 2):
                gram = pieces[start : place + 1]
                self._counts[gram] += 1
                self._contexts[gram[:-1]] += 1

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """Return the mean log-likelihood (nats) of each text's words and its end."""
        return [
            sum(self._word(pieces, place) for place in range(2, len(pieces))) / (len(pieces) - 2)
            for pieces in map(_pieces, texts)
        ]

    def _word(self, pieces: tuple[str, ...], place: int) -> float:
        counts, contexts = self._counts, self._contexts
        likely = 1 / 100_000
        for prior, start in zip(_PRIOR, (place, place - 1, place - 2), strict=True):
            gram = pieces[start : place + 1]
            likely = (counts[gram] + prior * likely) / (contexts[gram[:-1]] + prior)
        return math.log(likely)


def _pieces(text: str) -> tuple[str, ...]:
    return ("<", "<", *words.content(text), ">")


def half_of(image_id: str) -> int:
    """Return the half, 0 or 1, that an image's captions belong to."""
    return hash_text(f"half {image_id}") % 2


def ngram_likelihoods(captions: CaptionIndex) -> tuple[Likelihoods, Likelihoods]:
    """Return a likelihood model for each half's texts, trained on at most 50,000 captions of the other half."""
    models = (NgramLikelihood(), NgramLikelihood())
    counts: Counter[int] = Counter()
    for _, caption in captions:
        half = half_of(caption.image_id)
        counts[half] += 1
        if counts[half] <= _LEARNED:
            models[1 - half].add(caption.text)
    return models


def likely_pair(caption: IndexedCaption, negative: str, likelihoods: Sequence[Likelihoods]) -> CaptionNegative:
    """Return a pair with its likelihoods under the model trained on captions of the other half."""
    likely, other = likelihoods[half_of(caption.image_id)]([caption.text, negative])
    return CaptionNegative(caption.text, negative, caption.image_id, likely, other)
