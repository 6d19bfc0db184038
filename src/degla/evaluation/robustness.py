"""Adversarial zero-shot recognition: accuracy of a model under attacks of each size.

The attack (PGD, arXiv 1706.06083) maximises the cross-entropy of the image's class among all classes. An image counts
as right within epsilon if it is right when clean and no attack within epsilon or less has made it wrong: the score is
an upper bound that stronger attacks can only lower.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from degla.data.randomness import random_for
from degla.errors import InputError
from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmark import Benchmark, Classification, TieRule
from degla.evaluation.embed import EmbeddedItems, Embedder, drawn_numbers, open_images
from degla.evaluation.image_files import content_digest
from degla.evaluation.questions import BenchmarkQuestions, questions_digest, require_entries
from degla.evaluation.results import AttackedBenchmark, AttackedScores, AttackResult, name_epsilon, sample_fields
from degla.evaluation.scoring import EmbeddingRows, unit_rows
from degla.evaluation.verdicts import Judged, class_embeddings, judge, texts_of
from degla.model.attack import AttackConfig, at_rest, draw_start, normalisation, perturb
from degla.model.encoder import Encoder


@dataclass(frozen=True)
class AttackSettings:
    """Settings of attacks; invalid values raise `InputError`.

    Attributes:
        epsilons: largest changes of a pixel in the range 0 to 1, each above 0 and at most 1.
        steps: number of steps of each attack, 1 or more.
        step_size: size of each step, as a share of epsilon, above 0; None: 2.5 / steps, enough to reach any corner.
        images: largest number of images per part, drawn at random; None: all.
        seed: for start points, drawn images and intervals.
    """

    epsilons: Sequence[float]
    steps: int = 10
    step_size: float | None = None
    images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.epsilons or not all(0 < epsilon <= 1 for epsilon in self.epsilons):
            epsilons = " ".join(map(str, self.epsilons)) or "not given"
            raise InputError(f"--epsilon is {epsilons}; it must be above 0 and at most 1.")
        for name, value in (("steps", self.steps), ("images", self.images)):
            if value is not None and value < 1:
                raise InputError(f"--{name} is {value}; it must be 1 or more.")
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise InputError(f"--step-size is {self.step_size}; it must be above 0, a finite number.")

    @property
    def share(self) -> float:
        """The step as a share of epsilon."""
        return 2.5 / self.steps if self.step_size is None else self.step_size

    @property
    def sizes(self) -> list[float]:
        """The distinct epsilons in ascending order."""
        return sorted(set(self.epsilons))


@dataclass(frozen=True)
class Attacker:
    """Attacks one model.

    Attributes:
        encoder: the model.
        root: folder that image paths are relative to.
        settings: of the attacks.
        images_per_batch: 0: 32 on a CPU, else 128.
    """

    encoder: Encoder
    root: Path
    settings: AttackSettings
    images_per_batch: int = 0

    def judge(self, benchmark: Benchmark, entry: Classification, *, tie: TieRule | None = None) -> list[list[Judged]]:
        """Return verdicts on the clean images, then under attacks of each size, from the smallest.

        Args:
            benchmark: defines the tie rule.
            entry: images, labels, classes and prompts.
            tie: overrides the benchmark's rule.
        """
        texts = Embedder(self.encoder, root=self.root).embed([], texts_of(entry))
        numbers = {image: number for number, image in enumerate(entry.images)}
        classes = torch.from_numpy(class_embeddings(entry, texts)).to(self.encoder.device)
        everything = list(range(len(entry.images)))
        digests = {image.path: content_digest(self.root, image.path) for image in entry.images}
        rows = np.empty((len(everything), classes.shape[1]), dtype=np.float32)
        batches = partial(open_images, self.encoder, entry.images, root=self.root, size=self.images_per_batch)

        def verdicts() -> list[Judged]:
            table = EmbeddedItems(rows, numbers, texts.texts, texts.text_row, digests)
            return judge(benchmark, [entry], table, tie=tie)

        with at_rest(self.encoder):
            for batch, pixels in batches(everything, name=entry.part):
                rows[batch] = self._embed(pixels)
            rounds = [verdicts()]
            for epsilon in self.settings.sizes:
                correct = [number for number in everything if rounds[-1][number].verdict.ok["top1"] > 0]
                for batch, pixels in batches(correct, name=f"{entry.part} {name_epsilon(epsilon)}"):
                    labels = torch.tensor([entry.labels[number] for number in batch], device=pixels.device)
                    rows[batch] = self._embed(self._attack(pixels, labels, classes, batch, epsilon=epsilon))
                rounds.append(verdicts())
        return rounds

    def _attack(
        self, pixels: Tensor, labels: Tensor, classes: Tensor, numbers: Sequence[int], *, epsilon: float
    ) -> Tensor:
        mean, std = normalisation(self.encoder, like=pixels)
        scale = self.encoder.scale.detach()

        def gradient(images: Tensor) -> Tensor:
            images = images.detach().requires_grad_()
            logits = scale * self.encoder.encode_images(images) @ classes.T
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            return torch.autograd.grad(loss, images)[0]

        seeds = [
            random_for("attack", seed=self.settings.seed, epoch=0, index=number).getrandbits(63) for number in numbers
        ]
        config = AttackConfig(epsilon, self.settings.steps, self.settings.share * epsilon)
        start = draw_start(seeds, epsilon=epsilon, like=pixels)
        return perturb(pixels, config=config, mean=mean, std=std, gradient=gradient, start=start)

    @torch.no_grad()
    def _embed(self, pixels: Tensor) -> EmbeddingRows:
        return unit_rows(self.encoder.encode_images(pixels).float().cpu().numpy())


def attack_model(
    encoder: Encoder,
    settings: AttackSettings,
    questions: Iterable[BenchmarkQuestions],
    *,
    root: Path,
    tie: TieRule | None = None,
    label: str | None = None,
) -> AttackResult:
    """Measure a model's recognition on clean and on attacked images.

    Args:
        encoder: the model.
        settings: of the attacks.
        questions: of benchmarks (`run.ask_all`), each with zero-shot classification parts; other parts are skipped.
        root: folder that holds the benchmarks' files.
        tie: overrides the benchmarks' tie rules.
        label: the method's name; None: the model's.

    Raises:
        InputError: a benchmark has no classification.
        DeglaError: the model gives similarities that are not finite.
    """
    questions = require_classes(questions)
    attacker = Attacker(encoder, root, settings)
    return AttackResult(
        **sample_fields(encoder, label, images=settings.images, seed=settings.seed),
        steps=settings.steps,
        step_size=settings.share,
        benchmarks=tuple(_attack_benchmark(attacker, each, tie) for each in questions),
    )


def require_classes(questions: Iterable[BenchmarkQuestions]) -> list[BenchmarkQuestions]:
    """Return the questions of benchmarks after checking that each has classes.

    Raises:
        InputError: a benchmark has no classification.
    """
    lack = "has no zero-shot classification to attack. Use zeroshot or world."
    return require_entries(questions, lambda entry: isinstance(entry, Classification), lack=lack)


def _attack_benchmark(attacker: Attacker, questions: BenchmarkQuestions, tie: TieRule | None) -> AttackedBenchmark:
    benchmark, settings = questions.benchmark, attacker.settings
    entries = [
        entry.only(drawn_numbers(len(entry.images), settings.images, key=f"{entry.part}/{settings.seed}"))
        for entry in questions.entries
        if isinstance(entry, Classification)
    ]
    by_entry = [attacker.judge(benchmark, entry, tie=tie) for entry in entries]
    attacked = []
    for epsilon, rows in zip([0.0, *settings.sizes], zip(*by_entry, strict=True), strict=True):
        scores = aggregate(benchmark, list(chain.from_iterable(rows)), seed=settings.seed)
        # An image whose first class is wrong is attacked no further, so more of its classes have no meaning here.
        parts = tuple(score for score in chain.from_iterable(scores.parts.values()) if score.metric != "top5")
        attacked.append(AttackedScores(epsilon=epsilon, scores=parts, averages=scores.averages))
    return AttackedBenchmark(
        name=benchmark.name, title=benchmark.title, items_sha256=questions_digest(entries), attacked=tuple(attacked)
    )
