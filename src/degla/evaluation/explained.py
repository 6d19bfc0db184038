"""Measure drop and increase of a model's explanations on benchmarks.

After ExCon (arXiv 2111.14271), with texts as the classes. A model answers a question with its most probable text. The
evidence for that text selects the squares of the image that are kept; the rest becomes the mean colour, and the
probability of the same text is computed again. The same number of random squares serves as a control, since part of an
image may keep an answer whatever it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from degla.data.randomness import random_for
from degla.errors import InputError
from degla.evaluation.benchmark import Classification, Entry
from degla.evaluation.embed import Embedder, drawn_numbers, open_images
from degla.evaluation.image_files import content_digest
from degla.evaluation.questions import BenchmarkQuestions, questions_digest, require_entries
from degla.evaluation.results import EvidenceBy, ExplainedBenchmark, ExplainedPart, ExplainedResult, sample_fields
from degla.evaluation.verdicts import class_embeddings, texts_of
from degla.model.attack import at_rest
from degla.model.encoder import Encoder
from degla.model.evidence import increased, keep_patches, patch_evidence, pixel_evidence, relative_drop, top_share
from degla.progress import TaskProgress
from degla.records import ItemImage, PairItem
from degla.results import Interval, Score
from degla.statistics.proportions import FloatArray, cluster_numbers, contributions, drawn_means, share_interval

SQUARES: Final = (8, 8)
"""Rows and columns of squares when evidence is computed from pixels."""
_METRICS: Final = ("drop", "increase", "drop by chance", "increase by chance")


@dataclass(frozen=True)
class ExplainSettings:
    """Settings of explanations; invalid values raise `InputError`.

    Attributes:
        share: share of squares that are kept, above 0 and below 1 (0.15 in ExCon's code).
        images: largest number of images per part, drawn at random, 1 or more; None: all.
        by: "attention": attention of the class token times its gradient in the last block; "gradient": gradient times
            pixels, for any tower; None: "attention" if there is a class token, else "gradient".
        seed: for drawn images, squares and intervals.
    """

    share: float = 0.15
    images: int | None = None
    by: EvidenceBy | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"--share is {self.share}; it must be above 0 and below 1.")
        if self.images is not None and self.images < 1:
            raise InputError(f"--images is {self.images}; it must be 1 or more.")


@dataclass(frozen=True)
class AskedImages:
    """The images of a part, each with its own texts.

    Attributes:
        part: its name.
        images: N images.
        texts: unit embeddings of all texts.
        own: for each image, the indices of its texts, two or more.
    """

    part: str
    images: tuple[ItemImage, ...]
    texts: Float[Tensor, "texts dim"]
    own: tuple[tuple[int, ...], ...]

    def rows_of(self, numbers: Sequence[int]) -> tuple[Float[Tensor, "batch most dim"], Bool[Tensor, "batch most"]]:
        """Return the text embeddings of some images, padded, and a mask of the rows that are not padding."""
        some = [torch.tensor(self.own[number], device=self.texts.device) for number in numbers]
        places = torch.nn.utils.rnn.pad_sequence(some, batch_first=True, padding_value=-1)
        return self.texts[places.clamp(min=0)], places >= 0


@dataclass(frozen=True)
class Explainer:
    """Explains the answers of one model.

    Attributes:
        encoder: the model.
        root: folder that image paths are relative to.
        settings: of the explanations.
    """

    encoder: Encoder
    root: Path
    settings: ExplainSettings

    @property
    def by(self) -> EvidenceBy:
        """Source of the evidence.

        Raises:
            InputError: attention was requested for a tower without a class token.
        """
        if self.settings.by == "attention":
            self.encoder.refuse_without_class_token("--by attention")
        return self.settings.by or ("attention" if self.encoder.reads_class_token else "gradient")

    def ask(self, sample: AskedImages) -> Float[Tensor, "images 3"]:
        """Return the probability of each image's answer: for the whole image, for its evidence, for random squares."""
        everything = range(len(sample.images))
        probabilities = torch.empty(len(everything), 3)
        with at_rest(self.encoder):
            for batch, pixels in open_images(self.encoder, sample.images, everything, root=self.root, name=sample.part):
                probabilities[batch] = self.explain(pixels, *sample.rows_of(batch), numbers=batch).cpu()
        return probabilities

    def explain(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        texts: Float[Tensor, "batch most dim"],
        there: Bool[Tensor, "batch most"],
        *,
        numbers: Sequence[int],
    ) -> Float[Tensor, "batch 3"]:
        """Return the same for one batch of images.

        Args:
            pixels: transformed images.
            texts: unit embeddings of the texts of each.
            there: mask of the texts that are not padding.
            numbers: indices of the images, which seed the random squares.
        """
        whole = self._probabilities(pixels, texts, there)
        answer = whole.argmax(dim=1, keepdim=True)
        evidence = self._evidence(pixels, texts.gather(1, answer[:, :, None].expand(-1, -1, texts.shape[2]))[:, 0])
        noise = torch.stack([self._noise(number, evidence.shape[1:]) for number in numbers]).to(evidence.device)
        parts = (keep_patches(pixels, top_share(each, self.settings.share)) for each in (evidence, noise))
        probabilities = (whole, *(self._probabilities(part, texts, there) for part in parts))
        return torch.cat([each.gather(1, answer) for each in probabilities], dim=1)

    @torch.no_grad()
    def _probabilities(self, pixels: Tensor, texts: Tensor, there: Tensor) -> Float[Tensor, "batch most"]:
        cosines = torch.einsum("bd,bld->bl", self.encoder.encode_images(pixels).float(), texts)
        return (self.encoder.scale * cosines).masked_fill(~there, -torch.inf).softmax(dim=1)

    def _evidence(self, pixels: Tensor, texts: Tensor) -> Float[Tensor, "batch down across"]:
        if self.by == "attention":
            return torch.unflatten(
                patch_evidence(self.encoder.see_class_token, pixels, texts), 1, self.encoder.clip.visual.grid_size
            )
        return pixel_evidence(pixels, lambda leaf: (self.encoder.encode_images(leaf) * texts).sum(dim=1), grid=SQUARES)

    def _noise(self, number: int, grid: torch.Size) -> Tensor:
        seed = random_for("explained", seed=self.settings.seed, epoch=0, index=number).getrandbits(63)
        return torch.rand(grid, generator=torch.Generator().manual_seed(seed))


def explain_model(
    encoder: Encoder,
    settings: ExplainSettings,
    questions: Iterable[BenchmarkQuestions],
    *,
    root: Path,
    label: str | None = None,
) -> ExplainedResult:
    """Measure how much of a model's answers its explanations keep.

    Args:
        encoder: the model.
        settings: of the explanations.
        questions: of benchmarks (`run.ask_all`): zero-shot classes, or one image with two or more texts; others are
            skipped.
        root: folder that holds the benchmarks' files.
        label: the method's name; None: the model's.

    Raises:
        InputError: a benchmark has no such question, or attention was requested for a tower without a class token.
    """
    questions = require_answers(questions)
    explainer = Explainer(encoder, root, settings)
    return ExplainedResult(
        **sample_fields(encoder, label, images=settings.images, seed=settings.seed),
        by=explainer.by,
        share=settings.share,
        benchmarks=tuple(_explain_benchmark(explainer, each) for each in questions),
    )


def require_answers(questions: Iterable[BenchmarkQuestions]) -> list[BenchmarkQuestions]:
    """Return the questions of benchmarks after checking that each has some that can be explained.

    Raises:
        InputError: a benchmark has none.
    """
    lack = "has no questions of one image with several texts, so there is no answer to explain. Omit the benchmark."
    return require_entries(questions, lambda entry: isinstance(entry, Classification) or _is_choice(entry), lack=lack)


def _is_choice(entry: Entry) -> bool:
    """Whether a question is which of several texts is true of one image."""
    return isinstance(entry, PairItem) and len(entry.images) == 1 < len(entry.texts)


def _explain_benchmark(explainer: Explainer, questions: BenchmarkQuestions) -> ExplainedBenchmark:
    parts = []
    for sample in _samples(explainer, questions):
        contents = [content_digest(explainer.root, image.path) for image in sample.images]
        scores = scores_of(sample, explainer.ask(sample), contents=contents, seed=explainer.settings.seed)
        parts.append(ExplainedPart(part=sample.part, scores=scores))
    benchmark = questions.benchmark
    return ExplainedBenchmark(
        name=benchmark.name, title=benchmark.title, items_sha256=questions_digest(questions.entries), parts=tuple(parts)
    )


def _samples(explainer: Explainer, questions: BenchmarkQuestions) -> Iterator[AskedImages]:
    """Yield the explainable questions, part by part, with as many images as the settings say."""
    settings = explainer.settings
    embedder = Embedder(explainer.encoder, root=explainer.root, progress=TaskProgress(show=True))
    device = explainer.encoder.device
    for entry in questions.entries:
        if isinstance(entry, Classification):
            rows = embedder.embed([], texts_of(entry))
            numbers = drawn_numbers(len(entry.images), settings.images, key=f"{entry.part}/{settings.seed}")
            yield AskedImages(
                entry.part,
                tuple(entry.images[number] for number in numbers),
                torch.from_numpy(class_embeddings(entry, rows)).to(device),
                (tuple(range(len(entry.classes))),) * len(numbers),
            )
    pairs = [each for each in questions.entries if isinstance(each, PairItem) and _is_choice(each)]
    for part, items in groupby(sorted(pairs, key=lambda item: item.part), key=lambda item: item.part):
        every = list(items)
        some = [every[n] for n in drawn_numbers(len(every), settings.images, key=f"{part}/{settings.seed}")]
        rows = embedder.embed([], chain.from_iterable(item.texts for item in some))
        own = tuple(tuple(rows.text_row[text] for text in item.texts) for item in some)
        yield AskedImages(part, tuple(item.images[0] for item in some), torch.from_numpy(rows.texts).to(device), own)


def scores_of(
    sample: AskedImages, probabilities: Float[Tensor, "images 3"], *, contents: Sequence[str], seed: int
) -> tuple[Score, ...]:
    """Compute drop and increase, of the evidence and by chance, with intervals over images.

    Args:
        sample: the images.
        probabilities: of the model's answer for each: for the whole image, for the squares that the evidence keeps and
            for random squares.
        contents: names the content of each image: copies of one are not independent.
        seed: of the intervals.
    """
    whole, evidence, chance = probabilities.double().T
    values = [measure(whole, part) for part in (evidence, chance) for measure in (relative_drop, increased)]
    clusters = cluster_numbers(contents)
    return tuple(
        Score(
            name=sample.part,
            metric=metric,
            value=float(each.mean()),
            n=len(each),
            ties=0,
            lower=metric.startswith("drop"),
            interval=_interval(each.numpy(), clusters, seed=seed),
        )
        for metric, each in zip(_METRICS, values, strict=True)
    )


def _interval(values: FloatArray, clusters: NDArray[np.int64], *, seed: int) -> Interval | None:
    """Interval over images; never a point, even if for few images none or every probability has risen."""
    parts = contributions(values, np.full(len(values), 1 / len(values)), clusters)
    return share_interval(drawn_means(values, clusters, seed=seed), parts)
