"""Linear probes: what a linear classifier can read from a model's image embeddings, without its texts.

A probe is a logistic regression from image embeddings to classes. It is fitted on the training split of a data set and
scored on the images that zero-shot classification is scored on. If fine-tuning lowers zero-shot scores but not those
of probes, the images are still told apart: what was lost is the match of images and class names.

The strength of the regularisation is chosen as in arXiv 2103.00020, appendix A.3, on a fifth of the training images.
Where there is no training split, each fifth of the scored images is classified by a probe fitted on the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from degla.errors import InputError
from degla.evaluation.benchmark import Classification, Entry
from degla.evaluation.data_sets.reading import BENCHMARK_NAME, read_training_set
from degla.evaluation.embed import EmbeddedItems
from degla.evaluation.questions import BenchmarkQuestions, require_entries, without_missing_images
from degla.evaluation.scoring import EmbeddingRows
from degla.progress import TaskProgress
from degla.records import ItemImage
from degla.results import FittedProbe

log = logging.getLogger(__name__)

FOLDS: Final = 5
_FIRST_COSTS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
"""Powers of ten of the costs that are tried first."""
_FINER = (1.0, 0.5, 0.25, 0.125)
"""Distances of further powers of ten from the best so far."""
_MOST_ITERATIONS = 1000
_GRADIENT = 1e-5
"""Largest entry of the gradient at which a fit ends."""
_BLOCK = 2**24
"""Logits that are held at once: ImageNet's training split has 1.3 billion."""
_LACK = "has no images of classes to probe. Omit the benchmark: zeroshot and world have some"


@dataclass(frozen=True)
class ProbeTask:
    """A classification to probe.

    Attributes:
        entry: images to classify, with their classes.
        training: images to fit on, with the same classes; None: those of `entry`, by cross-validation.
    """

    entry: Classification
    training: Classification | None

    @property
    def images(self) -> Iterable[ItemImage]:
        """All images that are embedded."""
        return self.entry.images if self.training is None else (*self.entry.images, *self.training.images)


def only_classes(every: Iterable[BenchmarkQuestions]) -> list[BenchmarkQuestions]:
    """Return the questions of benchmarks with the classifications only.

    Raises:
        InputError: a benchmark has no classification.
    """
    return [questions.only(_has_classes) for questions in require_entries(every, _has_classes, lack=f"{_LACK}.")]


def _has_classes(entry: Entry) -> bool:
    return isinstance(entry, Classification)


def probe_tasks(questions: BenchmarkQuestions, root: Path, *, allow_missing: bool) -> dict[str, ProbeTask]:
    """Return what is to be probed, by part, before any model is loaded.

    Args:
        questions: of one benchmark, from `only_classes`.
        root: folder with the benchmarks' files.
        allow_missing: leave out training images that are missing, with a warning.

    Raises:
        InputError: a training split is wrong or lacks images; without one, a class has a single image; or two
            classifications are one part.
    """
    tasks: dict[str, ProbeTask] = {}
    for entry in questions.entries:
        assert isinstance(entry, Classification)
        if entry.part in tasks:
            raise InputError(
                f"{questions.benchmark.title}: two classifications are called {entry.part!r}; a probe is fitted for "
                "each part. Give each its own `part`."
            )
        training = None
        if entry.benchmark == BENCHMARK_NAME == questions.benchmark.name:
            training = read_training_set(entry, root=root)
        if training is not None:
            title = f"{questions.benchmark.title}, {entry.part}, training split"
            training = without_missing_images(training, root, title=title, allow=allow_missing)
        else:
            sizes = np.bincount(entry.labels, minlength=len(entry.classes))
            if 1 in sizes:
                alone = entry.classes[sizes.tolist().index(1)]
                raise InputError(
                    f"{questions.benchmark.title}, {entry.part}: class {alone!r} has one image, and there are no "
                    "training images, so a probe would be fitted without that class. Add images to it, or a training "
                    "split."
                )
        tasks[entry.part] = ProbeTask(entry, training)
    return tasks


@dataclass(frozen=True)
class ProbedPart:
    """The result of a `ProbeTask`.

    Attributes:
        logits: `[N, C]` of the images of the entry, in its order.
        fitted: what the probes were fitted on.
    """

    logits: EmbeddingRows
    fitted: FittedProbe


def probe_all(
    tasks: Mapping[str, ProbeTask], embeddings: EmbeddedItems, *, device: str | torch.device, progress: TaskProgress
) -> dict[str, ProbedPart]:
    """Fit the probes of one model, and classify the images.

    Args:
        tasks: by part.
        embeddings: with the unit rows of all their images.
        device: to fit on, in float64; one that has none of that takes the CPU.
        progress: shows the progress.
    """
    place = torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)
    probed = {}
    for part, task in tasks.items():
        fits = _Fits(task, embeddings, place)
        with progress.task(f"probe {part}", fits.count) as advance:
            probed[part] = fits.run(advance)
    return probed


class _Fits:
    """All fits of one task."""

    def __init__(self, task: ProbeTask, embeddings: EmbeddedItems, device: torch.device) -> None:
        self._task, self._embeddings, self._device = task, embeddings, device
        self.count = (1 if task.training is not None else FOLDS) * (len(_FIRST_COSTS) + 2 * len(_FINER) + 1)

    def run(self, advance: Callable[[int], None]) -> ProbedPart:
        task, classes = self._task, len(self._task.entry.classes)
        rows, labels, digests = self._read(task.entry)
        costs: list[float] = []
        if task.training is not None:
            training, own, training_digests = self._read(task.training)
            copies = len(set(digests).intersection(training_digests))
            power, weights = choose_probe(training, own, training_digests, classes=classes, advance=advance)
            costs.append(10**power)
            logits = logits_of(weights, rows)
        else:
            copies, logits = 0, rows.new_zeros(len(rows), classes)
            folds = folds_of(digests, labels.tolist())
            self._warn_of_copies(folds)
            for fold in range(FOLDS):
                inside, outside = (torch.from_numpy(np.flatnonzero(mask)) for mask in (folds == fold, folds != fold))
                if not len(inside):
                    continue
                kept = [digests[number] for number in outside.tolist()]
                power, weights = choose_probe(rows[outside], labels[outside], kept, classes=classes, advance=advance)
                costs.append(10**power)
                logits[inside] = logits_of(weights, rows[inside])
        known, folds_used = (task.entry, FOLDS) if task.training is None else (task.training, 0)
        fitted = FittedProbe(images=len(known.images), folds=folds_used, costs=tuple(costs), copies=copies)
        return ProbedPart(logits.float().cpu().numpy(), fitted)

    def _warn_of_copies(self, folds: NDArray[np.int64]) -> None:
        entry = self._task.entry
        for label, name in enumerate(entry.classes):
            if len(set(folds[np.equal(entry.labels, label)])) == 1:
                log.warning(
                    "%s: all images of class %r are copies of one image, so they are always classified wrong: the "
                    "probe that classifies them has seen none of them. Add other images to it, or a training split.",
                    entry.part,
                    name,
                )

    def _read(self, entry: Classification) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"], list[str]]:
        rows = self._embeddings.images[[self._embeddings.image_row[image] for image in entry.images]]
        digests = [f"{self._embeddings.digests[image.path]}:{image.crop}" for image in entry.images]
        labels = torch.tensor(entry.labels, device=self._device)
        return torch.from_numpy(rows).to(self._device, torch.float64), labels, digests


def folds_of(digests: Sequence[str], labels: Sequence[int]) -> NDArray[np.int64]:
    """Return the fold, 0 to 4, of each image `[N]`: each class is spread evenly, and images with equal bytes share one.

    Args:
        digests: N digests of the images' content, which decide, so that the order of files does not.
        labels: N classes.
    """
    fold: dict[str, int] = {}
    of_class: dict[int, list[str]] = {}
    for digest, label in zip(digests, labels, strict=True):
        of_class.setdefault(label, []).append(digest)
    for number, label in enumerate(sorted(of_class)):
        # Each class begins with another fold: else the first ones would hold all images of small classes.
        for place, digest in enumerate(sorted(set(of_class[label]) - fold.keys()), start=number):
            fold[digest] = place % FOLDS
    return np.array([fold[digest] for digest in digests], dtype=np.int64)


def choose_probe(
    rows: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    digests: Sequence[str],
    *,
    classes: int,
    advance: Callable[[int], None] = lambda done: None,
) -> tuple[float, Float[Tensor, "c d_and_one"]]:
    """Choose the cost on one fold of the images, and fit a probe on all of them.

    Costs from 1e-6 to 1e6 are tried, then those beside the best, at distances that are halved down to an eighth of a
    power of ten (arXiv 2103.00020, appendix A.3). Of equally accurate ones the lowest is taken.

    Args:
        rows: embeddings, float64.
        labels: their classes.
        digests: N digests of the images' content.
        classes: number of classes.
        advance: is called after each fit.

    Returns:
        The cost's power of ten, and the weights for `logits_of`.
    """
    fold = torch.from_numpy(folds_of(digests, labels.tolist()) == 0).to(rows.device)
    accuracy: dict[float, float] = {}
    fitted: dict[float, Tensor] = {}

    def attempt(power: float, near: float | None) -> None:
        if power not in accuracy and _FIRST_COSTS[0] <= power <= _FIRST_COSTS[-1]:
            start = None if near is None else fitted[near]
            fitted[power] = fit_probe(rows[~fold], labels[~fold], classes=classes, cost=10**power, start=start)
            right = logits_of(fitted[power], rows[fold]).argmax(dim=1) == labels[fold]
            accuracy[power] = right.double().mean().item() if len(right) else 0.0
        advance(1)

    def best() -> float:
        return min(accuracy, key=lambda power: (-accuracy[power], power))

    near: float | None = None
    for power in _FIRST_COSTS:
        attempt(power, near)
        near = power
    for distance in _FINER:
        centre = best()
        for power in (centre - distance, centre + distance):
            attempt(power, centre)
    chosen = best()
    weights = fit_probe(rows, labels, classes=classes, cost=10**chosen, start=fitted[chosen])
    advance(1)
    return chosen, weights


def fit_probe(
    rows: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, classes: int, cost: float, start: Tensor | None = None
) -> Float[Tensor, "c d_and_one"]:
    """Fit a multinomial logistic regression: the minimum of |W|^2 / 2 + cost * the sum of cross-entropies.

    Rows count as multiples of their root mean square distance from their mean, times the root of their dimension. So a
    cost means the same for models whose embeddings fill a narrow cone; the classes told apart are the same.

    Args:
        rows: embeddings, float64.
        labels: their classes, 0 to `classes` - 1.
        classes: number of classes.
        cost: factor of the errors, above 0; a small one keeps weights small. As `C` of scikit-learn.
        start: weights of an earlier fit, to begin with; they do not change the minimum.

    Returns:
        Weights for rows as they are given, the bias last; for `logits_of`.
    """
    from scipy.optimize import minimize

    count, mean = len(rows), rows.mean(dim=0)
    around = rows - mean
    unit = around.square().mean().sqrt().clamp(min=1e-12)  # All rows are equal if the model sees no images.
    around /= unit
    decay, size = 1 / (cost * count), max(1, _BLOCK // classes)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = torch.from_numpy(flat).to(rows.device).view(classes, -1)
        slopes, gradient = weights[:, :-1], torch.zeros_like(weights)
        value = rows.new_zeros(())
        for block, own in zip(around.split(size), labels[:, None].split(size), strict=True):
            likelihood = torch.log_softmax(logits_of(weights, block), dim=1)
            value -= likelihood.gather(1, own).sum() / count
            error = likelihood.exp().scatter_add_(1, own, rows.new_full(own.shape, -1)) / count
            gradient[:, :-1] += error.T @ block
            gradient[:, -1] += error.sum(dim=0)
        value += decay / 2 * slopes.square().sum()
        gradient[:, :-1] += decay * slopes
        return value.item(), gradient.cpu().numpy().ravel()

    first = rows.new_zeros(classes, rows.shape[1] + 1)
    if start is not None:
        first[:, :-1] = start[:, :-1] * unit
        first[:, -1] = logits_of(start, mean[None])[0]
    options = {"maxiter": _MOST_ITERATIONS, "gtol": _GRADIENT, "ftol": 0}
    found = minimize(loss, first.cpu().numpy().ravel(), jac=True, method="L-BFGS-B", options=options)
    weights = torch.from_numpy(found.x).to(rows.device).view(classes, -1)
    slopes = weights[:, :-1] / unit
    return torch.cat([slopes, (weights[:, -1] - slopes @ mean)[:, None]], dim=1)


def logits_of(weights: Float[Tensor, "c d_and_one"], rows: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
    """Return the logits of each row."""
    return rows @ weights[:, :-1].T + weights[:, -1]
