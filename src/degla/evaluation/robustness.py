"""Adversarial zero-shot recognition: a model and its benchmarks enter, accuracy under attacks of each size leaves.

The attack (PGD, arXiv 1706.06083) raises the cross-entropy of the image's class among all classes. An image counts as
right within epsilon where it is right as it is, and no attack within epsilon or less has made it wrong: the score is an
upper bound that stronger attacks can only lower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from degla.data.randomness import stream
from degla.errors import InputError
from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmark import Benchmark, Classification, TieRule
from degla.evaluation.embed import EmbeddedItems, Embedder
from degla.evaluation.pictures import decode_picture, read_picture
from degla.evaluation.questions import ask
from degla.evaluation.scoring import EmbeddingRows, class_rows, unit_rows
from degla.evaluation.verdicts import Judged, judge, texts_of
from degla.model.attack import AttackConfig, at_rest, draw_start, normalisation, perturb
from degla.model.encoder import Encoder
from degla.progress import TaskProgress
from degla.records import Record
from degla.results import ModelProvenance, Score
from degla.shelf import BENCHMARKS
from degla.version import __version__


class AttackedScores(Record):
    """Scores of one benchmark under attacks of one size.

    Attributes:
        epsilon: largest change of a pixel whose range is 0 to 1; 0: the images as they are.
        scores: of each part, all its metrics.
        averages: named averages whose parts are all there.
    """

    epsilon: float
    scores: tuple[Score, ...] = Field(min_length=1)
    averages: tuple[Score, ...] = ()


class AttackedBenchmark(Record):
    """One benchmark: `items_sha256` is of all images, labels and classes that were asked about."""

    name: str
    title: str
    items_sha256: str
    attacked: tuple[AttackedScores, ...] = Field(min_length=1)


class AttackResult(Record):
    """One model under attack.

    Attributes:
        steps: of each attack.
        step_size: of each step, as a share of epsilon.
        images: bound on the images of a part; None: all.
        seed: of random starts, drawn images and intervals.
    """

    schema_version: Literal[1] = 1
    model: ModelProvenance
    steps: int
    step_size: float
    images: int | None
    seed: int
    date: str
    versions: dict[str, str]
    benchmarks: tuple[AttackedBenchmark, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Attacker:
    """Attacks one model.

    Attributes:
        encoder: the model.
        root: folder that image paths are relative to.
        steps: of each attack.
        step_size: of each step, as a share of epsilon; None: 2.5 / steps, which reaches any corner of the box.
        seed: of the random starts.
        images_per_batch: 0: 32 on a processor, else 128.
        progress: where to show how far it is.
    """

    encoder: Encoder
    root: Path
    steps: int = 10
    step_size: float | None = None
    seed: int = 0
    images_per_batch: int = 0
    progress: TaskProgress = field(default_factory=TaskProgress)

    def judge(
        self, benchmark: Benchmark, entry: Classification, epsilons: Sequence[float], *, tie: TieRule | None = None
    ) -> list[list[Judged]]:
        """Verdicts on the clean images, then under attacks of each size, from the smallest.

        Args:
            benchmark: says the tie rule.
            entry: images, labels, classes and prompts.
            epsilons: sizes, ascending, above 0.
            tie: overrides the benchmark's rule.
        """
        texts = Embedder(self.encoder, root=self.root).embed([], texts_of(entry))
        numbers = {image: number for number, image in enumerate(entry.images)}
        prompts = texts.texts[[texts.text_row[text] for text in texts_of(entry)]]
        classes = torch.from_numpy(class_rows(prompts, len(entry.classes))).to(self.encoder.device)
        everything = list(range(len(entry.images)))
        rows = np.empty((len(everything), classes.shape[1]), dtype=np.float32)

        def verdicts() -> list[Judged]:
            table = EmbeddedItems(rows, numbers, texts.texts, texts.text_row)
            return judge(benchmark, [entry], table, tie=tie)

        with at_rest(self.encoder):
            for batch, pixels in self._batches(entry, everything, name=entry.part):
                rows[batch] = self._embed(pixels)
            found = [verdicts()]
            for epsilon in epsilons:
                standing = [number for number in everything if found[-1][number].verdict.ok["top1"] > 0]
                for batch, pixels in self._batches(entry, standing, name=f"{entry.part} {name_epsilon(epsilon)}"):
                    labels = torch.tensor([entry.labels[number] for number in batch], device=pixels.device)
                    rows[batch] = self._embed(self._attack(pixels, labels, classes, batch, epsilon=epsilon))
                found.append(verdicts())
        return found

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

        seeds = [stream("attack", seed=self.seed, epoch=0, index=number).getrandbits(63) for number in numbers]
        return perturb(
            pixels,
            config=AttackConfig(epsilon, self.steps, self.share * epsilon),
            mean=mean,
            std=std,
            gradient=gradient,
            start=draw_start(seeds, epsilon=epsilon, like=pixels),
        )

    @property
    def share(self) -> float:
        """The step as a share of epsilon."""
        return 2.5 / self.steps if self.step_size is None else self.step_size

    @torch.no_grad()
    def _embed(self, pixels: Tensor) -> EmbeddingRows:
        return unit_rows(self.encoder.encode_images(pixels).float().cpu().numpy())

    def _batches(
        self, entry: Classification, numbers: Sequence[int], *, name: str
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Images by their numbers, opened and normalised, some at a time."""
        size = self.images_per_batch or (32 if self.encoder.device.type == "cpu" else 128)
        with self.progress.task(name, len(numbers)) as advance:
            for start in range(0, len(numbers), size):
                batch = list(numbers[start : start + size])
                pixels = [self._open(entry.images[number].path) for number in batch]
                yield batch, torch.stack(pixels).to(self.encoder.device)
                advance(len(batch))

    def _open(self, path: str) -> Tensor:
        return self.encoder.transform(decode_picture(read_picture(self.root, path), self.root, path))


def attack_model(
    encoder: Encoder,
    *,
    benchmarks: Sequence[str],
    root: Path,
    epsilons: Sequence[float],
    steps: int = 10,
    step_size: float | None = None,
    images: int | None = None,
    seed: int = 0,
    tie: TieRule | None = None,
    allow_missing: bool = False,
    label: str | None = None,
    progress: bool = True,
) -> AttackResult:
    """Recognition of a model on clean and on attacked images.

    Args:
        encoder: the model.
        benchmarks: names on the shelf, each with parts that are zero-shot classification; other parts are left out.
        root: folder that holds the benchmarks' files.
        epsilons: largest changes of a pixel whose range is 0 to 1, each above 0.
        steps: of each attack, 1 or more.
        step_size: of each step, as a share of epsilon; None: 2.5 / steps.
        images: attack so many of each part, drawn by chance; None: all.
        seed: of starts, drawn images and intervals.
        tie: overrides the benchmarks' tie rules.
        allow_missing: as in `evaluate`.
        label: the method's name; None: the model's.
        progress: show how far it is on stderr.

    Raises:
        InputError: an unknown benchmark, one without classification, files missing or wrong, or wrong settings.
        DeglaError: the model gives similarities that are not finite.
    """
    _check(epsilons, steps, step_size, images)
    sizes = sorted(set(epsilons))
    attacker = Attacker(encoder, root, steps, step_size, seed=seed, progress=TaskProgress(progress))
    scored = []
    for name in dict.fromkeys(benchmarks):
        benchmark: Benchmark = BENCHMARKS.load(name).BENCHMARK
        asked = ask(benchmark, root, allow_missing=allow_missing).entries
        entries = [_drawn(entry, images, seed) for entry in asked if isinstance(entry, Classification)]
        if not entries:
            raise InputError(f"{benchmark.title}: has no zero-shot classification to attack; take zeroshot or world.")
        by_entry = [attacker.judge(benchmark, entry, sizes, tie=tie) for entry in entries]
        attacked = []
        for number, epsilon in enumerate([0.0, *sizes]):
            judged = [row for found in by_entry for row in found[number]]
            scores = aggregate(benchmark, judged, seed=seed)
            parts = tuple(score for values in scores.parts.values() for score in values)
            attacked.append(AttackedScores(epsilon=epsilon, scores=parts, averages=scores.averages))
        digest = hashlib.sha256("".join(entry.model_dump_json() for entry in entries).encode()).hexdigest()
        scored.append(
            AttackedBenchmark(name=name, title=benchmark.title, items_sha256=digest, attacked=tuple(attacked))
        )
    return AttackResult(
        model=ModelProvenance(
            name=encoder.name, label=label or encoder.name, fingerprint=encoder.fingerprint,
            activation=encoder.activation, precision=encoder.precision,
        ),
        steps=steps,
        step_size=attacker.share,
        images=images,
        seed=seed,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"degla": __version__, "torch": torch.__version__},
        benchmarks=tuple(scored),
    )  # fmt: skip


def _check(epsilons: Sequence[float], steps: int, step_size: float | None, images: int | None) -> None:
    if not epsilons or not all(0 < epsilon <= 1 for epsilon in epsilons):
        raise InputError(f"epsilon is {' '.join(map(str, epsilons)) or 'not given'}; it must be above 0 and at most 1.")
    for name, value in (("steps", steps), ("images", images)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; it must be 1 or more.")
    if step_size is not None and step_size <= 0:
        raise InputError(f"step-size is {step_size}; it must be above 0.")


def _drawn(entry: Classification, images: int | None, seed: int) -> Classification:
    """The entry with so many of its images, drawn by chance and in their order."""
    if images is None or images >= len(entry.images):
        return entry
    kept = sorted(Random(f"{entry.part}/{seed}").sample(range(len(entry.images)), images))
    return entry.model_copy(
        update={
            "images": tuple(entry.images[number] for number in kept),
            "labels": tuple(entry.labels[number] for number in kept),
        }
    )


def name_epsilon(epsilon: float) -> str:
    """As it is said: "2/255" where it is a whole number of such steps."""
    levels = epsilon * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-6 else f"{epsilon:g}"
