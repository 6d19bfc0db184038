"""Image parts computed in a step: the patches that the student reads, sampled by what the teacher's class token
attends to; and, as an additional image, the part with the teacher's evidence for the caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from degla.data.batches import Batch, BatchPart
from degla.data.randomness import random_for
from degla.losses.core import Processes, Target
from degla.model.encoder import send
from degla.model.evidence import EvidenceConfig, keep_patches, unit_range
from degla.model.teacher import Teacher
from degla.model.token_mask import MaskedTokens, ViewsConfig, gumbel, places_of, sampling_keys

_BY: Final[dict[str, MaskedTokens]] = {"attention": "high", "random": "random", "low_attention": "low"}


def image_seeds(purpose: str, part: BatchPart, *, first: int, seed: int, step: int) -> Iterator[int]:
    """Yield a seed for each image of a part, independent of how the batch is split into parts and processes.

    Args:
        purpose: purpose of the draws; second images have one of their own.
        part: part of the batch.
        first: number of the batch's first row in the global batch.
        seed: seed of the run.
        step: number of the step, from 0.
    """
    for place in range(len(part.image)):
        name = purpose if place < len(part) else f"{purpose} partner"
        row = first + part.rows.start + place % len(part)
        yield random_for(name, seed=seed, epoch=step, index=row).getrandbits(63)


@dataclass(frozen=True)
class Views:
    """Samples the patches that the student reads, depending only on the seed, the step and the rows.

    Attributes:
        config: how many patches are left out, and which.
        patches: number of patches of an image.
        processes: processes that share the batch.
        seed: seed of the draws.
    """

    config: ViewsConfig
    patches: int
    processes: Processes
    seed: int

    def __call__(
        self, parts: Sequence[BatchPart], teacher: Teacher | None, *, step: int
    ) -> tuple[list[BatchPart], list[Tensor]]:
        """Return the same parts with the patches that the student reads of each image, including second images.

        Args:
            parts: all parts of the batch, in order.
            teacher: model whose attention is used; may be None if patches are drawn at random.
            step: number of the step, from 0.

        Returns:
            The parts, and the teacher's image embeddings of each before normalisation, from the same pass as its
            attention. The list is empty if its attention was not used.
        """
        views: list[BatchPart] = []
        raw: list[Tensor] = []
        size = parts[-1].rows.stop
        temperature = self.config.temperature_at(step)
        for part in parts:
            noise = self._noise(part, rows=size, step=step)
            scores = noise
            if teacher is not None and self.config.by != "random":
                rows, scores = teacher.patch_significance(part.image)
                raw.append(rows)
            keys = sampling_keys(scores, noise, temperature=temperature, by=_BY[self.config.by])
            views.append(replace(part, kept=places_of(keys, self.config.left_out)[0]))
        return views, raw

    def _noise(self, part: BatchPart, *, rows: int, step: int) -> Float[Tensor, "images patches"]:
        """Draw noise with one generator per image, independent of how the batch is split into parts and processes."""
        generator, first = torch.Generator(), self.processes.rank * rows
        seeds = image_seeds("view", part, first=first, seed=self.seed, step=step)
        noise = [gumbel(torch.empty(self.patches), generator=generator.manual_seed(seed)) for seed in seeds]
        return send(torch.stack(noise), part.image.device)


@dataclass(frozen=True)
class Evidence:
    """Computes the parts with the evidence; random draws depend only on the seed, the step and the row.

    Attributes:
        config: which patches belong to a part.
        grid: number of patches down and across.
        processes: processes that share the batch.
        seed: seed of random draws.
    """

    config: EvidenceConfig
    grid: tuple[int, int]
    processes: Processes
    seed: int

    def __call__(
        self, batch: Batch, parts: Sequence[BatchPart], teacher: Teacher, target: Target, *, step: int
    ) -> Batch:
        """Return the batch with `evidence_image`, `evidence_valid` and `evidence_seen`.

        Args:
            batch: batch of this process.
            parts: all parts of the batch, in order.
            teacher: model whose evidence is used.
            target: the teacher's captions.
            step: number of the step, from 0.
        """
        captions = target.require("caption")
        pieces = [
            self._part(
                part.image[: len(part)],
                teacher,
                captions[part.rows],
                noise=self._noise(part, batch=len(batch), step=step),
            )
            for part in parts
        ]
        images, there, rows = (torch.cat(values) for values in zip(*pieces, strict=True))
        extra = {"evidence_image": images, "evidence_valid": there, "evidence_seen": rows}
        return replace(batch, extra={**batch.extra, **extra})

    def _part(
        self, images: Tensor, teacher: Teacher, captions: Tensor, *, noise: Tensor
    ) -> tuple[Float[Tensor, "rows 3 height width"], Bool[Tensor, " rows"], Float[Tensor, "rows dim"]]:
        """Return the parts of some images, which of them have a patch, and the teacher's embeddings of the parts."""
        evidence = torch.unflatten(teacher.evidence(images, captions), 1, self.grid)
        mask = unit_range(evidence) > self.config.threshold
        if self.config.by == "random":
            flat = mask.flatten(1).gather(1, send(noise, mask.device).argsort(dim=1))
            mask = torch.unflatten(flat, 1, self.grid)
        there = mask.any(dim=(1, 2))  # Never all patches: the one with least evidence is at 0.
        parts = keep_patches(images, mask)
        rows, _ = teacher.encode(parts, None)
        assert rows is not None
        return parts, there, rows

    def _noise(self, part: BatchPart, *, batch: int, step: int) -> Float[Tensor, "rows patches"]:
        generator, patches = torch.Generator(), self.grid[0] * self.grid[1]
        seeds = image_seeds("evidence", part, first=self.processes.rank * batch, seed=self.seed, step=step)
        own = islice(seeds, len(part))
        return torch.stack([torch.rand(patches, generator=generator.manual_seed(seed)) for seed in own])
