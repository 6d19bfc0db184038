"""One training step: embeddings, objective, gradients, optimiser, clamp, teacher - in this order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from degla.config import TrainConfig
from degla.data.batches import Batch
from degla.errors import DeglaError
from degla.model.encoder import Encoder
from degla.model.teacher import Teacher
from degla.objectives import Embeddings, Processes, Target
from degla.objectives._sum import Objective
from degla.training.optim import learning_rate


class NonFiniteLossError(DeglaError):
    """The loss is not a number or infinite; the step was not taken."""


@dataclass
class Trainer:
    """All that one step needs.

    Attributes:
        encoder: the bare student.
        student: the student as wrapped for the processes at hand.
        teacher: None where no term of the objective needs one.
        steps: length of the whole run.
    """

    config: TrainConfig
    accelerator: Accelerator
    encoder: Encoder
    student: torch.nn.Module
    teacher: Teacher | None
    objective: Objective
    optimizer: torch.optim.Optimizer
    processes: Processes
    steps: int

    def step(self, batch: Batch, *, number: int) -> dict[str, Tensor | float]:
        """Take step `number` (from 0) on one batch; returns what to log, averaged over processes.

        Raises:
            NonFiniteLossError: before anything is changed.
        """
        rate = learning_rate(number, steps=self.steps, config=self.config.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        student = self._student_embeddings(batch)
        with self.accelerator.autocast():
            teacher = self._teacher_embeddings(batch)
        loss, values = self.objective(student, teacher, self.processes)

        shown = self.processes.total(torch.stack([loss.detach(), *values.values()])) / self.processes.count
        if not bool(torch.isfinite(shown[0])):
            raise NonFiniteLossError(f"step {number + 1}: the loss is {shown[0].item()}")

        self.accelerator.backward(loss)
        if self.config.optim.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.student.parameters(), self.config.optim.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.encoder.clip.logit_scale.clamp_(0.0, math.log(self.config.optim.max_scale))
        if self.teacher is not None:
            decay = self.config.teacher.decay_at(number, steps=self.steps)
            self.teacher.update(self.encoder, decay=decay)
        return {"loss": shown[0], **dict(zip(values, shown[1:], strict=True)), "lr": rate,
                "scale": self.encoder.scale.detach()}  # fmt: skip

    def _student_embeddings(self, batch: Batch) -> Embeddings:
        image, caption, negative, scale = self.student(batch.image, batch.caption, batch.negative)
        return Embeddings(
            image=image.float(),
            caption=caption.float(),
            negative=negative.float(),
            valid=batch.valid,
            scale=cast(Tensor, scale).float(),
            group=batch.group,
            rule=batch.rule,
        )

    def _teacher_embeddings(self, batch: Batch) -> Target:
        """The teacher sees the same images and tokens, and only those that some term reads."""
        needs = self.objective.needs
        if self.teacher is None or not needs:
            return Target()
        rows, count, length = batch.negative.shape
        texts = []
        if "caption" in needs:
            texts.append(batch.caption)
        if "negative" in needs:
            texts.append(batch.negative.reshape(rows * count, length))
        images, captions = self.teacher.encode(
            batch.image if "image" in needs else None, torch.cat(texts) if texts else None
        )
        parts: dict[str, Any] = {"image": images}
        if captions is not None:
            if "caption" in needs:
                parts["caption"], captions = captions[:rows], captions[rows:]
            if "negative" in needs:
                parts["negative"] = torch.unflatten(captions, 0, (rows, count))
        return Target(**parts)
