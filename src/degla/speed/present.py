"""The training step of `training/step.py`, in stages."""

from __future__ import annotations

import torch
from torch import Tensor

from degla.data.batches import Batch
from degla.losses.core import Target
from degla.training.embed import to_embeddings
from degla.training.step import Trainer


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
        loss, _ = self.trainer.objective.value(student, target, self.trainer.processes)
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
