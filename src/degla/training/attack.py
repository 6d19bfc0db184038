"""Adversarial attacks on a batch: images that raise the weighted sum of all losses, which the step then lowers.

An attack changes nothing but the images: it differentiates only with respect to the pixels, in float32 and evaluation
mode, has its own random generators, leaves the memories of losses unchanged, and calls the unwrapped encoder. Processes
exchange embeddings and their gradients, but no parameter gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor

from degla.data.batches import Batch, BatchPart
from degla.errors import InputError
from degla.losses.core import Processes, Target
from degla.losses.core.objective import Objective
from degla.model.attack import AttackConfig, at_rest, draw_start, normalisation, perturb
from degla.model.encoder import Encoder, TowerOutputs
from degla.training.embed import to_embeddings
from degla.training.image_parts import image_seeds


@dataclass(frozen=True)
class Attack:
    """Attack all images of a batch together, whatever the losses, so that all images a loss compares move at once.

    A batch in parts gives the same attack as the whole: in each ascent step all parts are embedded without a graph, the
    loss over all of them gives the gradient of each embedding, and each part is embedded again to backpropagate that
    gradient to its pixels.

    Attributes:
        config: settings of the attack.
        encoder: the unwrapped student.
        objective: objective that the attack raises.
        processes: processes that share the batch.
        seed: seed of the random starts, which depend only on it, the step and the row of the global batch.
    """

    config: AttackConfig
    encoder: Encoder
    objective: Objective
    processes: Processes
    seed: int

    def __call__(self, batch: Batch, parts: Sequence[BatchPart], target: Target, *, step: int) -> list[BatchPart]:
        """Return the same parts with attacked images, including second images.

        Args:
            batch: batch of this process.
            parts: all parts of the batch, in order, with clean images.
            target: the teacher's embeddings of the clean images.
            step: number of the step, from 0.

        Raises:
            InputError: no loss reads the images, so there is nothing to attack.
        """
        sizes = [len(part.image) for part in parts]
        images = torch.cat([part.image for part in parts])
        mean, std = normalisation(self.encoder, like=images)
        start = None
        if self.config.random_start:
            seeds = self._seeds(batch, parts, step=step)
            start = draw_start(seeds, epsilon=self.config.epsilon, like=images)
        with at_rest(self.encoder), torch.autocast(images.device.type, enabled=False):
            texts = [self._texts(part) for part in parts]

            def gradient(moved: Tensor) -> Tensor:
                return torch.cat(self._gradients(torch.split(moved, sizes), texts, batch=batch, target=target))

            moved = perturb(images, config=self.config, mean=mean, std=std, gradient=gradient, start=start)
        return [replace(part, image=image) for part, image in zip(parts, torch.split(moved, sizes), strict=True)]

    def _gradients(
        self, images: Sequence[Tensor], texts: Sequence[TowerOutputs], *, batch: Batch, target: Target
    ) -> list[Float[Tensor, "images 3 height width"]]:
        """Return the gradient of the loss over all parts with respect to the images of each."""
        inputs = [part.detach().requires_grad_() for part in images]
        whole = len(inputs) == 1
        with torch.set_grad_enabled(whole):
            rows = [self._images(part, text) for part, text in zip(inputs, texts, strict=True)]
        # The loss gets leaves instead of the image embeddings; text embeddings stay as they are.
        leaves = [
            TowerOutputs(*(row if row is text else _leaf(row) for row, text in zip(group, text_rows, strict=True)))
            for group, text_rows in zip(rows, texts, strict=True)
        ]
        student = to_embeddings(leaves, scale=self.encoder.scale.detach(), batch=batch, bias=self.encoder.bias)
        loss = self.objective.value_without_update(student, target, self.processes)
        grad_leaves = [leaf for group in leaves for leaf in group if leaf is not None and leaf.requires_grad]
        sent = (
            torch.autograd.grad(loss, grad_leaves, allow_unused=True)
            if loss.requires_grad
            else (None,) * len(grad_leaves)
        )
        if all(each is None for each in sent):
            raise InputError("--attack.epsilon: no active loss reads the images. Omit --attack.epsilon.")
        gradient_of = {id(leaf): each for leaf, each in zip(grad_leaves, sent, strict=True)}
        gradients = []
        for number, part in enumerate(inputs):
            outputs = rows[number] if whole else self._images(part, texts[number])
            pairs = [(output, gradient_of.get(id(leaf))) for output, leaf in zip(outputs, leaves[number], strict=True)]
            there = [(output, each) for output, each in pairs if output is not None and each is not None]
            (gradient,) = torch.autograd.grad([output for output, _ in there], [part], [each for _, each in there])
            gradients.append(gradient)
        return gradients

    def _images(self, images: Tensor, texts: TowerOutputs) -> TowerOutputs:
        """Return the outputs of the image tower, together with those of the text tower."""
        rows = self.encoder.embed(images, None, **self.objective.outputs)
        return rows._replace(text=texts.text, token=texts.token)

    @torch.no_grad()
    def _texts(self, part: BatchPart) -> TowerOutputs:
        """Return the outputs of the text tower for a part; an attack on pixels does not change them."""
        texts = part.texts if self.objective.reads_texts else None
        return self.encoder.embed(None, texts, **self.objective.outputs)

    def _seeds(self, batch: Batch, parts: Sequence[BatchPart], *, step: int) -> list[int]:
        first = self.processes.rank * len(batch)
        seeds = (image_seeds("attack", part, first=first, seed=self.seed, step=step) for part in parts)
        return list(chain.from_iterable(seeds))


def _leaf(row: Tensor | None) -> Tensor | None:
    return None if row is None else row.detach().requires_grad_()
