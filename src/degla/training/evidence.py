"""The part of each image in which the teacher sees the evidence for its caption, added to a batch as one more image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from degla.data.batches import Batch, BatchPart
from degla.data.randomness import stream
from degla.losses.core import Processes, Target
from degla.model.evidence import EvidenceConfig, kept_part, unit_range
from degla.model.teacher import Teacher


@dataclass(frozen=True)
class Evidence:
    """Makes the parts; a draw by chance depends on the seed, the step and the row alone.

    Attributes:
        config: which patches belong to a part.
        grid: patches down and across.
        processes: that share the batch.
        seed: of draws by chance.
    """

    config: EvidenceConfig
    grid: tuple[int, int]
    processes: Processes
    seed: int

    def __call__(
        self, batch: Batch, parts: Sequence[BatchPart], teacher: Teacher, target: Target, *, number: int
    ) -> Batch:
        """The batch with `evidence_image`, `evidence_valid` and `evidence_seen`.

        Args:
            batch: of this process.
            parts: all of it, in order.
            teacher: whose evidence it is.
            target: its captions.
            number: of the step, from 0.
        """
        captions = target.require("caption")
        found = [
            self._part(
                part.image[: part.rows.stop - part.rows.start],
                teacher,
                captions[part.rows],
                noise=self._noise(part.rows, batch=len(batch), number=number),
            )
            for part in parts
        ]
        images, there, rows = (torch.cat(values) for values in zip(*found, strict=True))
        made = {"evidence_image": images, "evidence_valid": there, "evidence_seen": rows}
        return replace(batch, extra={**batch.extra, **made})

    def _part(
        self, images: Tensor, teacher: Teacher, captions: Tensor, *, noise: Tensor
    ) -> tuple[Float[Tensor, "rows 3 height width"], Bool[Tensor, " rows"], Float[Tensor, "rows dim"]]:
        """The parts of some images, which are none or all of them, and the teacher's embeddings of the parts."""
        evidence = torch.unflatten(teacher.evidence(images, captions), 1, self.grid)
        kept = unit_range(evidence) > self.config.threshold
        if self.config.by == "random":
            drawn = kept.flatten(1).gather(1, noise.to(kept.device).argsort(dim=1))
            kept = torch.unflatten(drawn, 1, self.grid)
        there = kept.any(dim=(1, 2)) & ~kept.all(dim=(1, 2))
        parts = kept_part(images, kept)
        rows, _ = teacher.encode(parts, None)
        assert rows is not None
        return parts, there, rows

    def _noise(self, rows: slice, *, batch: int, number: int) -> Float[Tensor, "rows patches"]:
        generator, drawn = torch.Generator(), []
        for place in range(rows.start, rows.stop):
            row = self.processes.rank * batch + place
            seed = stream("evidence", seed=self.seed, epoch=number, index=row).getrandbits(63)
            drawn.append(torch.rand(self.grid[0] * self.grid[1], generator=generator.manual_seed(seed)))
        return torch.stack(drawn)
