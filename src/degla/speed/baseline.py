"""The training step as the field's released code takes it: what `degla bench` compares with.

Texts are padded to the context length, negatives lie flat behind the captions, every contrast builds the whole
B x B (1 + K) matrix and a dense mask, AdamW visits one parameter after the other, and so does the teacher's average,
which makes a new tensor for each. The losses are those of the recipe `degla`, as means, so that both sides can be held
against each other.
"""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from degla.config.run import TrainConfig
from degla.data.batches import Batch
from degla.model.encoder import Encoder
from degla.training.optim import parameter_groups


class BaselineStep:
    """A `StagedStep`.

    Args:
        encoder: the student.
        batch: its tokens are padded here to the context length.
        config: for the recipe's weights and the optimiser.
        autocast: bf16 or not at all.
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

    def _cast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def encode_image(self) -> Tensor:
        """See `StagedStep`."""
        with self._cast():
            return functional.normalize(self.student.encode_image(self.image).float(), dim=-1)

    def encode_text(self) -> Tensor:
        """See `StagedStep`."""
        with self._cast():
            return functional.normalize(self.student.encode_text(self.tokens).float(), dim=-1)

    @torch.no_grad()
    def teach_image(self) -> Tensor:
        """See `StagedStep`."""
        with self._cast():
            return functional.normalize(self.teacher.encode_image(self.image).float(), dim=-1)

    @torch.no_grad()
    def teach_text(self) -> Tensor:
        """See `StagedStep`."""
        with self._cast():
            return functional.normalize(self.teacher.encode_text(self.tokens).float(), dim=-1)

    def loss(self, image: Tensor, text: Tensor, teacher_image: Tensor, teacher_text: Tensor) -> Tensor:
        """The four losses over whole matrices."""
        chosen = self.config.objective
        scale = self.student.logit_scale.exp()
        caption = text[: self.rows]
        own = torch.arange(self.rows, device=image.device)

        to_texts = scale * image @ text.T
        to_images = scale * caption @ image.T
        contrast = (functional.cross_entropy(to_texts, own) + functional.cross_entropy(to_images, own)) / 2

        mask = self._mask(image.device)
        grounded = self._masked(scale * image @ text.T, mask)
        targets = torch.cat([teacher_text[: self.rows], text[self.rows :]])
        alike = self._masked(chosen["text_grounded"].fixed_scale * caption @ targets.T, mask)

        distill = chosen["self_distillation"]
        apart = distill.image * (image - teacher_image).square().sum(-1).mean()
        apart = apart + distill.text * (text - teacher_text).square().sum(-1).mean()
        return cast(
            Tensor,
            chosen["contrastive"].weight * contrast
            + chosen["image_grounded"].weight * grounded
            + chosen["text_grounded"].weight * alike
            + distill.weight * apart,
        )

    def _mask(self, device: torch.device) -> Tensor:
        """1 where a column is the row's caption or one of its negatives."""
        eye = torch.eye(self.rows)
        return torch.cat([eye, eye.repeat_interleave(self.count, dim=1)], dim=1).to(device)

    @staticmethod
    def _masked(logits: Tensor, mask: Tensor) -> Tensor:
        shares = torch.exp(logits - logits.max(dim=1, keepdim=True).values.detach()) * mask
        positive = torch.diagonal(shares[:, : len(shares)])
        return -torch.log(positive / shares.sum(dim=1)).mean()

    def gradients(self) -> dict[str, Tensor]:
        """See `StagedStep`."""
        return {name: value.grad for name, value in self.student.named_parameters() if value.grad is not None}

    def update(self) -> None:
        """See `StagedStep`."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.student.logit_scale.data = torch.clamp(
            self.student.logit_scale.data, 0, math.log(self.config.optim.max_scale)
        )

    def average(self) -> None:
        """See `StagedStep`."""
        decay = self.config.teacher.decay
        for own, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            own.data = decay * own.data + (1 - decay) * other.data
