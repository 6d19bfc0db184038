"""A training step in timed stages, and its two sides: `training/step.py` and the released code.

The latter is the baseline of `degla bench`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional

from degla.config.run import TrainConfig
from degla.data.batches import Batch
from degla.losses.core import Target
from degla.model.encoder import Encoder, TowerOutputs
from degla.speed.machine import timed
from degla.training.embed import to_embeddings
from degla.training.optim import parameter_groups
from degla.training.step import Trainer

Result = TypeVar("Result")

STAGES = (
    "image forward", "text forward", "image teacher", "text teacher", "loss", "image backward", "text backward",
    "optimiser", "average",
)  # fmt: skip
"""The stages in order; their sum is the step."""

TEXT = ("text forward", "text teacher", "text backward")
"""The stages of the text part, of student and teacher."""


def take_step(
    step: PresentStep | BaselineStep,
    *,
    device: torch.device,
    update: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, dict[str, float]]:
    """Run a step and time it; return the loss and the seconds of each stage.

    Args:
        step: one side.
        device: the device to wait for.
        update: False stops before the optimiser, so that the gradients can be read.
        clock: gives the time in seconds.
    """
    seconds: dict[str, float] = {}

    def stage(name: str, work: Callable[[], Result]) -> Result:
        spent: list[float] = []
        with timed(device, spent, clock=clock):
            result = work()
        seconds[name] = spent[0]
        return result

    image = stage("image forward", step.encode_image)
    text = stage("text forward", step.encode_text)
    teachers = stage("image teacher", step.teach_image), stage("text teacher", step.teach_text)
    leaves = [rows.detach().requires_grad_() for rows in (image, text)]

    def lose() -> Tensor:
        loss = step.loss(leaves[0], leaves[1], *teachers)
        loss.backward()
        return loss

    loss = stage("loss", lose)
    stage("image backward", lambda: image.backward(leaves[0].grad))
    stage("text backward", lambda: text.backward(leaves[1].grad))
    # These names would keep the activations of the backward passes alive.
    del image, text
    if update:
        stage("optimiser", step.update)
        stage("average", step.average)
    return loss.item(), seconds


class PresentStep:
    """A step of a `Trainer` with one batch that is not chunked; its stages' embeddings are detached from each other."""

    def __init__(self, trainer: Trainer, batch: Batch) -> None:
        assert trainer.teacher is not None
        self.trainer, self.teacher, self.batch = trainer, trainer.teacher, batch
        (self.part,) = batch.parts(len(batch))

    def _embed(self, encode: Callable[[Any], Tensor], inputs: Any) -> Tensor:
        with self.trainer.accelerator.autocast():
            return encode(inputs)

    def encode_image(self) -> Tensor:
        """Return embeddings of the images, with a graph."""
        return self._embed(self.trainer.encoder.encode_images, self.part.image)

    def encode_text(self) -> Tensor:
        """Return embeddings of captions and negatives, with a graph."""
        return self._embed(self.trainer.encoder.encode_captions, self.part.texts)

    @torch.no_grad()
    def teach_image(self) -> Tensor:
        """Return the teacher's embeddings of the images."""
        return self._embed(self.teacher.encoder.encode_images, self.part.image)

    @torch.no_grad()
    def teach_text(self) -> Tensor:
        """Return the teacher's embeddings of captions and negatives."""
        return self._embed(self.teacher.encoder.encode_captions, self.part.texts)

    def loss(self, image: Tensor, text: Tensor, teacher_image: Tensor, teacher_text: Tensor) -> Tensor:
        """Return the recipe's objective."""
        student = to_embeddings([TowerOutputs(image, text)], scale=self.trainer.encoder.scale, batch=self.batch)
        rows = len(image)
        negative = torch.unflatten(teacher_text[rows:], 0, (rows, self.batch.negative.shape[1]))
        target = Target(image=teacher_image, caption=teacher_text[:rows], negative=negative)
        loss, _ = self.trainer.main.objective.value(student, target, self.trainer.processes)
        return loss

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradient of every parameter by name, before `update`."""
        named = self.trainer.encoder.clip.named_parameters()
        return {name: value.grad for name, value in named if value.grad is not None}

    def update(self) -> None:
        """Run the optimiser's step and clear all gradients."""
        self.trainer.update(torch.zeros((), device=self.batch.image.device))

    def average(self) -> None:
        """Update the teacher."""
        self.teacher.update(self.trainer.encoder, decay=self.trainer.config.teacher.decay)


class BaselineStep:
    """The step as in the released code, with the weights, batch and losses of a `PresentStep` and the same methods.

    Texts are padded to the context length and negatives are flattened after the captions. Every contrast builds the
    whole B x B (1 + K) matrix and a dense mask. AdamW loops over the parameters one by one, as does the teacher's
    average, which allocates a new tensor for each. The losses are those of the recipe `degla`, as means, so that both
    sides are comparable.

    Args:
        encoder: the student.
        batch: its tokens are padded to the context length here.
        config: for the recipe's weights and the optimiser.
        autocast: whether to use bf16 autocast.
    """

    def __init__(self, encoder: Encoder, batch: Batch, *, config: TrainConfig, autocast: bool) -> None:
        self.student = encoder.train().clip
        self.teacher = copy.deepcopy(encoder.clip).requires_grad_(False).eval()
        self.config, self.autocast, self.device = config, autocast, encoder.device
        self.image = batch.image
        self.rows, self.count = batch.valid.shape
        tokens = torch.cat([batch.caption, batch.negative.flatten(0, 1)])
        self.tokens = functional.pad(tokens, (0, encoder.context_length - tokens.shape[1]))
        optim = config.optim
        groups = parameter_groups(self.student, weight_decay=optim.weight_decay)
        self.optimizer = torch.optim.AdamW(
            groups, lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps, foreach=False, fused=False
        )

    def _embed(self, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return functional.normalize(encode(inputs).float(), dim=-1)

    def encode_image(self) -> Tensor:
        """See `PresentStep`."""
        return self._embed(self.student.encode_image, self.image)

    def encode_text(self) -> Tensor:
        """See `PresentStep`."""
        return self._embed(self.student.encode_text, self.tokens)

    @torch.no_grad()
    def teach_image(self) -> Tensor:
        """See `PresentStep`."""
        return self._embed(self.teacher.encode_image, self.image)

    @torch.no_grad()
    def teach_text(self) -> Tensor:
        """See `PresentStep`."""
        return self._embed(self.teacher.encode_text, self.tokens)

    def loss(self, image: Tensor, text: Tensor, teacher_image: Tensor, teacher_text: Tensor) -> Tensor:
        """Return the four losses over whole matrices."""
        objective = self.config.objective
        scale = self.student.logit_scale.exp()
        caption = text[: self.rows]
        own = torch.arange(self.rows, device=image.device)

        to_texts = scale * image @ text.T
        to_images = scale * caption @ image.T
        contrast = (functional.cross_entropy(to_texts, own) + functional.cross_entropy(to_images, own)) / 2

        mask = self._mask(image.device)
        grounded = self._masked(scale * image @ text.T, mask)
        targets = torch.cat([teacher_text[: self.rows], text[self.rows :]])
        alike = self._masked(objective["text_grounded"].fixed_scale * caption @ targets.T, mask)

        distill = objective["self_distillation"]
        apart = distill.image * (image - teacher_image).square().sum(-1).mean()
        apart = apart + distill.text * (text - teacher_text).square().sum(-1).mean()
        return cast(
            Tensor,
            objective["contrastive"].weight * contrast
            + objective["image_grounded"].weight * grounded
            + objective["text_grounded"].weight * alike
            + distill.weight * apart,
        )

    def _mask(self, device: torch.device) -> Tensor:
        """Mask with 1 where a column is the row's caption or one of its negatives."""
        eye = torch.eye(self.rows)
        return torch.cat([eye, eye.repeat_interleave(self.count, dim=1)], dim=1).to(device)

    @staticmethod
    def _masked(logits: Tensor, mask: Tensor) -> Tensor:
        shares = torch.exp(logits - logits.max(dim=1, keepdim=True).values.detach()) * mask
        positive = torch.diagonal(shares[:, : len(shares)])
        return -torch.log(positive / shares.sum(dim=1)).mean()

    def gradients(self) -> dict[str, Tensor]:
        """See `PresentStep`."""
        return {name: value.grad for name, value in self.student.named_parameters() if value.grad is not None}

    def update(self) -> None:
        """See `PresentStep`."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.student.logit_scale.data = torch.clamp(
            self.student.logit_scale.data, 0, math.log(self.config.optim.max_scale)
        )

    def average(self) -> None:
        """See `PresentStep`."""
        decay = self.config.teacher.decay
        for own, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            own.data = decay * own.data + (1 - decay) * other.data
