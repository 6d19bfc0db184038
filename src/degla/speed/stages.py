"""A training step in stages, the clock that times them, and the step of `training/step.py` in this form."""

from __future__ import annotations

import time
from typing import Protocol

import torch
from torch import Tensor

from degla.data.batches import Batch
from degla.losses.core import Target
from degla.speed.machine import wait
from degla.training.embed import to_embeddings
from degla.training.step import Trainer

STAGES = (
    "image forward", "text forward", "image teacher", "text teacher", "loss", "image backward", "text backward",
    "optimiser", "average",
)  # fmt: skip
"""In this order; their sum is the step."""

TEXT = ("text forward", "text teacher", "text backward")
"""The stages that make up the text part, of student and teacher."""


class StagedStep(Protocol):
    """One side: the same weights, batch and losses as the other. The embeddings are cut off between stages."""

    def encode_image(self) -> Tensor:
        """Embeddings of the images, with a graph."""
        ...

    def encode_text(self) -> Tensor:
        """Embeddings of captions and negatives, with a graph."""
        ...

    def teach_image(self) -> Tensor:
        """The teacher's embeddings of the images."""
        ...

    def teach_text(self) -> Tensor:
        """The teacher's embeddings of captions and negatives."""
        ...

    def loss(self, image: Tensor, text: Tensor, teacher_image: Tensor, teacher_text: Tensor) -> Tensor:
        """The objective's value; the scale's gradient goes straight to its parameter."""
        ...

    def update(self) -> None:
        """The optimiser's step, after which no parameter has a gradient."""
        ...

    def average(self) -> None:
        """Move the teacher."""
        ...

    def gradients(self) -> dict[str, Tensor]:
        """Gradient of every parameter by name, before `update`."""
        ...


class Clock:
    """Seconds of each stage; waits for the device at the end of each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def stop(self, stage: str) -> None:
        """The stage that has just ended."""
        wait(self.device)
        now = time.perf_counter()
        self.seconds[stage] = now - self._since
        self._since = now


def take_step(step: StagedStep, *, device: torch.device, update: bool = True) -> tuple[float, dict[str, float]]:
    """Take a step and time it; returns the loss and the seconds of each stage.

    Args:
        step: one side.
        device: whose work is waited for.
        update: False stops before the optimiser, so that the gradients can be read.
    """
    clock = Clock(device)
    image = step.encode_image()
    clock.stop("image forward")
    text = step.encode_text()
    clock.stop("text forward")
    teacher_image = step.teach_image()
    clock.stop("image teacher")
    teacher_text = step.teach_text()
    clock.stop("text teacher")
    leaves = [rows.detach().requires_grad_() for rows in (image, text)]
    loss = step.loss(leaves[0], leaves[1], teacher_image, teacher_text)
    loss.backward()  # type: ignore[no-untyped-call]
    clock.stop("loss")
    image.backward(leaves[0].grad)  # type: ignore[no-untyped-call]
    clock.stop("image backward")
    text.backward(leaves[1].grad)  # type: ignore[no-untyped-call]
    clock.stop("text backward")
    # The backward passes leave their activations behind with these names.
    del image, text
    if update:
        step.update()
        clock.stop("optimiser")
        step.average()
        clock.stop("average")
    return loss.item(), clock.seconds


class PresentStep:
    """A `StagedStep` over a `Trainer` and one batch that is not chunked."""

    def __init__(self, trainer: Trainer, batch: Batch) -> None:
        self.trainer, self.batch = trainer, batch
        (self.part,) = batch.parts(len(batch))

    def encode_image(self) -> Tensor:
        """See `StagedStep`."""
        with self.trainer.accelerator.autocast():
            return self.trainer.encoder.encode_images(self.part.image)

    def encode_text(self) -> Tensor:
        """See `StagedStep`."""
        with self.trainer.accelerator.autocast():
            return self.trainer.encoder.encode_captions(self.part.texts)

    def teach_image(self) -> Tensor:
        """See `StagedStep`."""
        assert self.trainer.teacher is not None
        with self.trainer.accelerator.autocast():
            rows, _ = self.trainer.teacher.encode(self.part.image, None)
        assert rows is not None
        return rows

    def teach_text(self) -> Tensor:
        """See `StagedStep`."""
        assert self.trainer.teacher is not None
        with self.trainer.accelerator.autocast():
            _, rows = self.trainer.teacher.encode(None, self.part.texts)
        assert rows is not None
        return rows

    def loss(self, image: Tensor, text: Tensor, teacher_image: Tensor, teacher_text: Tensor) -> Tensor:
        """The recipe's objective."""
        student = to_embeddings([(image, text)], scale=self.trainer.encoder.scale, batch=self.batch)
        rows = len(image)
        negative = torch.unflatten(teacher_text[rows:], 0, (rows, self.batch.negative.shape[1]))
        target = Target(image=teacher_image, caption=teacher_text[:rows], negative=negative)
        loss, _ = self.trainer.pairs.objective.value(student, target, self.trainer.processes)
        return loss

    def gradients(self) -> dict[str, Tensor]:
        """See `StagedStep`."""
        named = self.trainer.encoder.clip.named_parameters()
        return {name: value.grad for name, value in named if value.grad is not None}

    def update(self) -> None:
        """See `StagedStep`."""
        self.trainer.update(torch.zeros((), device=self.batch.image.device))

    def average(self) -> None:
        """See `StagedStep`."""
        assert self.trainer.teacher is not None
        self.trainer.teacher.update(self.trainer.encoder, decay=self.trainer.config.teacher.decay)
