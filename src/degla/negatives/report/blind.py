"""Whether the text alone gives a negative away: a small text classifier, cross-validated, chooses between two texts.

A negative is of use for training an image model only as far as the image is needed to tell it from its caption. The
classifier sees pairs of a caption and a negative and learns which of the two is the caption from their words, pairs
of words and runs of two to four characters: logistic regression on the difference of the two texts' counts, without an
intercept, so that its chance is exactly one half. Captions of one image are always in one fold: no text that was
learned from is asked about. Texts are taken as CLIP's tokenizer takes them: without capitals, white space as one space.
(SugarCrepe, arXiv 2306.14610, asks the same of its texts, with a grammar and a plausibility model.)

How likely a text is among captions is told by words, pairs and triples of words: a trigram model with Dirichlet
smoothing. Each order leans on the one below it as on `_PRIOR` further observations (MacKay and Peto 1995). Fast enough
to judge every candidate (40,000 texts a processor-second), where the embedded language model judges two hundred.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
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
"""Pairs; with fewer the test says nothing and is left out."""

_MOST_FEATURES: Final = 100_000
"""The features that occur in most pairs; the others are left out."""
_PENALTIES: Final = (1e-1, 1e-2, 1e-3, 1e-4)
"""Weights of the squared norm; the best on a held-out fifth of the training folds is taken."""
_CUES: Final = 6
_WORDS: Final = "n words"
"""The feature that is the number of words."""


@dataclass(frozen=True, slots=True)
class CaptionNegative:
    """A caption and a negative of it, each with its log-likelihood (nats a word) where that is known.

    Pairs of one image stay together.
    """

    caption: str
    negative: str
    image_id: str = ""
    caption_likely: float = 0.0
    negative_likely: float = 0.0

    @property
    def longer(self) -> int:
        """By how many letters the caption is longer."""
        return len(self.caption) - len(self.negative)

    @property
    def likelier(self) -> float:
        """By how much the caption is likelier, nats a word."""
        return self.caption_likely - self.negative_likely


@dataclass(frozen=True)
class Blind:
    """How often the classifier tells the caption from the negative, on pairs that it has not learned from.

    Attributes:
        accuracy: share of pairs, ties one half; interval by a bootstrap over images; chance is 1/2.
        caption_cues: words and pairs of words that speak for the caption, strongest first.
        negative_cues: those that speak for the negative.
    """

    accuracy: Proportion
    caption_cues: tuple[str, ...]
    negative_cues: tuple[str, ...]

    def plain(self) -> dict[str, object]:
        """JSON values."""
        return {
            "accuracy": self.accuracy.plain(),
            "chance": CHANCE,
            "caption_cues": list(self.caption_cues),
            "negative_cues": list(self.negative_cues),
        }


def features(text: str) -> Counter[str]:
    """Counts of what the classifier sees of a text; the first sign says what it is."""
    found = words_and_pairs(text)
    number = found.pop(_WORDS)
    framed = f" {' '.join(text.lower().split())} "
    for size in (2, 3, 4):
        found.update(f"c{framed[start : start + size]}" for start in range(len(framed) - size + 1))
    found[_WORDS] = number  # Last: of equally frequent features the first are kept.
    return found


def words_and_pairs(text: str) -> Counter[str]:
    """Counts of words, pairs of words, and how many there are."""
    pieces = ["<", *(piece for piece, _ in words.split(" ".join(text.lower().split()))), ">"]
    found = Counter(f"w{piece}" for piece in pieces)
    found.update(f"p{first} {second}" for first, second in pairwise(pieces))
    found[_WORDS] = len(pieces) - 2
    return found


Features = Callable[[str], Counter[str]]
"""A text to the counts that a classifier sees of it."""


def bag_of_words(text: str) -> Counter[str]:
    """Words without capitals, order and punctuation, and their number: all that a bag of words holds."""
    found = Counter(
        f"w{piece}" for piece, _ in words.split(" ".join(text.lower().split())) if any(map(str.isalnum, piece))
    )
    found[_WORDS] = found.total()
    return found


def blind_leads(pairs: Sequence[CaptionNegative], *, features: Features) -> NDArray[np.float64] | None:
    """By how much the classifier prefers each caption to its negative, `[pairs]`, learned from other images alone.

    Args:
        pairs: of one rule or part.
        features: what the classifier sees of a text.

    Returns:
        Above 0 where the caption is chosen, 0 where both texts have the same counts; None where there are fewer than
        40 pairs or fewer than 10 images.
    """
    folds = _folds(pairs, 0)
    return None if folds is None else _cross_validated(_differences(pairs, features)[0], folds)


def solve_blind(pairs: Sequence[CaptionNegative], *, seed: int = 0) -> Blind | None:
    """Train and test the classifier.

    Args:
        pairs: of one rule, or of all.
        seed: of the folds and of the bootstrap.

    Returns:
        None where there are fewer than 40 pairs or fewer than 10 images.
    """
    folds = _folds(pairs, seed)
    if folds is None:
        return None
    matrix, names = _differences(pairs, features)
    scores = _cross_validated(matrix, folds)
    weights = _fit_chosen(matrix, folds, left_out=None)
    return Blind(
        clustered(worth(scores), [pair.image_id for pair in pairs], seed=seed),
        caption_cues=_cues(names, weights),
        negative_cues=_cues(names, -weights),
    )


def blind_across(
    learned: Sequence[CaptionNegative],
    asked: Sequence[CaptionNegative],
    *,
    features: Features = features,
    extra: Sequence[Sequence[float]] | None = None,
) -> float:
    """The share of pairs that a classifier tells, which has learned from others; ties one half.

    Args:
        learned: pairs of some images, at least five.
        asked: pairs of other images.
        features: what the classifier sees of a text.
        extra: further differences of each pair, caption less negative, those of `learned` first.
    """
    from scipy.sparse import csr_matrix, hstack

    matrix, _ = _differences([*learned, *asked], features)
    if extra is not None:
        matrix = hstack([matrix, csr_matrix(np.array(extra))]).tocsr()
    # The last fold is what is asked; of the others, one chooses the penalty.
    folds = np.array(
        [number * (FOLDS - 1) // len(learned) for number in range(len(learned))] + [FOLDS - 1] * len(asked)
    )
    weights = _fit_chosen(matrix, folds, left_out=FOLDS - 1)
    return float(worth(matrix[folds == FOLDS - 1] @ weights).mean())


def _folds(pairs: Sequence[CaptionNegative], seed: int) -> NDArray[np.int64] | None:
    """The fold of each pair, one an image; None where there are too few to learn from."""
    images = sorted({pair.image_id for pair in pairs})
    if len(pairs) < FEWEST or len(images) < 2 * FOLDS:
        return None
    Random(seed).shuffle(images)
    fold_of = {image: place % FOLDS for place, image in enumerate(images)}
    return np.array([fold_of[pair.image_id] for pair in pairs])


def _cross_validated(matrix: Any, folds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scores of all rows, each by weights that were learned from the other folds."""
    scores = np.zeros(len(folds))
    # Texts that differ in no count leave nothing to learn from.
    for fold in range(FOLDS) if matrix.nnz else ():
        tested = folds == fold
        scores[tested] = matrix[tested] @ _fit_chosen(matrix, folds, left_out=fold)
    return scores


def _differences(pairs: Sequence[CaptionNegative], features: Features) -> tuple[Any, list[str]]:
    """The features of each caption less those of its negative, [pairs, features], rows of length 1; and their names."""
    from scipy.sparse import csr_matrix

    rows = []
    seen: Counter[str] = Counter()
    for pair in pairs:
        row = features(pair.caption)
        row.subtract(features(pair.negative))
        row = Counter({name: value for name, value in row.items() if value})
        seen.update(row.keys())
        rows.append(row)
    # A feature of one pair cannot have been learned where it is asked about.
    names = [name for name, times in seen.most_common(_MOST_FEATURES) if times > 1]
    place = {name: number for number, name in enumerate(names)}
    values, columns, ends = [], [], [0]
    for row in rows:
        kept = [(place[name], value) for name, value in row.items() if name in place]
        length = sum(value * value for _, value in kept) ** 0.5
        columns += [column for column, _ in kept]
        values += [value / length for _, value in kept]
        ends.append(len(columns))
    return csr_matrix((values, columns, ends), shape=(len(rows), len(names)), dtype=np.float64), names


def _fit_chosen(matrix: Any, folds: NDArray[Any], *, left_out: int | None) -> NDArray[np.float64]:
    """Weights learned from all folds but one; the penalty is chosen among them alone."""
    known = folds != left_out
    held = folds == (0 if left_out is None else (left_out + 1) % FOLDS)
    learned = known & ~held
    accuracy = {}
    weights: NDArray[np.float64] | None = None
    for penalty in _PENALTIES:
        weights = _fit(matrix[learned], penalty=penalty, start=weights)
        accuracy[penalty] = float(worth(matrix[held] @ weights).mean())
    return _fit(matrix[known], penalty=max(_PENALTIES, key=accuracy.__getitem__), start=None)


def worth(leads: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where the caption leads, one half where neither text does."""
    values = np.asarray(leads, dtype=np.float64)
    shares: NDArray[np.float64] = (values > 0) + 0.5 * (values == 0)
    return shares


def _fit(matrix: Any, *, penalty: float, start: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Least mean of log(1 + exp(-w.d)) + penalty / 2 |w|^2 over the differences d, by L-BFGS."""
    from scipy.optimize import minimize
    from scipy.special import expit

    transposed = matrix.T.tocsr()

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = matrix @ weights
        slope = transposed @ (-expit(-scores) / len(scores))
        value = float(np.logaddexp(0, -scores).mean() + penalty / 2 * weights @ weights)
        return value, slope + penalty * weights

    first = np.zeros(matrix.shape[1]) if start is None else start
    found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 200, "gtol": 1e-5})
    return np.asarray(found.x)


def _cues(names: Sequence[str], weights: NDArray[np.float64]) -> tuple[str, ...]:
    """What a person can read of the weights: words, pairs of words, length; "^" is the start and "$" the end."""
    readable = [place for place in np.argsort(-weights, kind="stable") if names[place][0] != "c"]
    return tuple(_show(names[place]) for place in readable[:_CUES] if weights[place] > 0)


def _show(name: str) -> str:
    return "more words" if name == _WORDS else name[1:].replace("<", "^").replace(">", "$")


Likelihoods = Callable[[Sequence[str]], Sequence[float]]
"""Texts to their mean log-likelihoods a word or token, nats; NaN for one that the model cannot read to its end."""

_PRIOR: Final = (1.0, 4.0, 4.0)
"""Observations that the order below counts for: of even words, of words, of pairs."""
_LEARNED: Final = 50_000
"""Captions of a half that are learned from, at most."""


class NgramLikelihood:
    """Learns from captions, then tells log-likelihoods; `add` first, then call."""

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

    def __call__(self, text: str) -> float:
        """Mean log-likelihood (nats) of a text's words and of its end."""
        pieces = _pieces(text)
        return sum(self._word(pieces, place) for place in range(2, len(pieces))) / (len(pieces) - 2)

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
    """The half, 0 or 1, that the captions of an image are in."""
    return hash_text(f"half {image_id}") % 2


def ngram_likelihoods(captions: CaptionIndex) -> tuple[Likelihoods, Likelihoods]:
    """The likelihoods of two halves' texts, each learned from captions of the other half, at most 50,000."""
    models = (NgramLikelihood(), NgramLikelihood())
    learned: Counter[int] = Counter()
    for _, caption in captions:
        half = half_of(caption.image_id)
        learned[half] += 1
        if learned[half] <= _LEARNED:
            models[1 - half].add(caption.text)
    return partial(_score, models[0]), partial(_score, models[1])


def likely_pair(caption: IndexedCaption, negative: str, likelihoods: Sequence[Likelihoods]) -> CaptionNegative:
    """A pair with its likelihoods, by what was learned from captions of the other half."""
    likely, other = likelihoods[half_of(caption.image_id)]([caption.text, negative])
    return CaptionNegative(caption.text, negative, caption.image_id, likely, other)


def _score(model: NgramLikelihood, texts: Sequence[str]) -> list[float]:
    return [model(text) for text in texts]
