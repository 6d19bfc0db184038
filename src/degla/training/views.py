"""The part of each image that the student reads: patches drawn by what the teacher's class token attends to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from degla.data.batches import BatchPart
from degla.data.randomness import stream
from degla.losses.core import Processes
from degla.model.teacher import Teacher
from degla.model.token_mask import MaskedTokens, ViewsConfig, gumbel, largest, places_of, sampling_keys

_BY: Final[dict[str, MaskedTokens]] = {
    "attention": "high", "random": "random", "low_attention": "low"
}  # fmt: skip


@dataclass(frozen=True)
class Views:
    """Draws the patches that are read; a draw depends on the seed, the step and the rows alone.

    Attributes:
        config: how many are left out, and which.
        patches: of an image.
        processes: that share the batch.
        seed: of the draws.
    """

    config: ViewsConfig
    patches: int
    processes: Processes
    seed: int

    def __call__(
        self, parts: Sequence[BatchPart], teacher: Teacher | None, *, number: int
    ) -> tuple[list[BatchPart], list[Tensor]]:
        """The same parts with the patches that the student reads of each image, second images among them.

        Args:
            parts: all of the batch, in order.
            teacher: whose attention is asked for; may be None where the draw is by chance alone.
            number: of the step, from 0.

        Returns:
            The parts, and the teacher's embeddings of the images of each as they are before they are brought to length
            one: the pass that gave its attention gave them too. None of them where it was not asked.
        """
        found: list[BatchPart] = []
        raw: list[Tensor] = []
        size = parts[-1].rows.stop
        for part in parts:
            noise = self._noise(part, rows=size, number=number)
            scores = noise
            if teacher is not None and self.config.by != "random":
                rows, scores = teacher.look(part.image)
                raw.append(rows)
            keys = sampling_keys(scores, noise, temperature=self.config.temperature, by=_BY[self.config.by])
            found.append(replace(part, kept=places_of(largest(keys, self.config.left_out))[0]))
        return found, raw

    def _noise(self, part: BatchPart, *, rows: int, number: int) -> Float[Tensor, "images patches"]:
        """Of each image from a generator of its own, however the batch is cut into parts and shared among processes."""
        generator, own = torch.Generator(), part.rows.stop - part.rows.start
        drawn = []
        for place in range(len(part.image)):
            purpose = "view" if place < own else "view partner"
            row = self.processes.rank * rows + part.rows.start + place % own
            seed = stream(purpose, seed=self.seed, epoch=number, index=row).getrandbits(63)
            drawn.append(gumbel(torch.empty(self.patches), generator=generator.manual_seed(seed)))
        return torch.stack(drawn).to(part.image.device)
