"""Sigmoid losses of image-text pairs: each pair has a term of its own, so the sum over all is computed in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from degla.losses.core.embeddings import Embeddings
from degla.losses.core.partition import BLOCK_LOGITS, outside_autocast, refuse_second_derivative
from degla.losses.core.processes import Processes

AbsentTexts = Callable[[slice, int], Bool[Tensor, "rows texts"]]
"""Maps a slice of the images and a process to a mask of that process's texts that do not count for them."""


def true_pair(logit: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """Return -log sigmoid(z), the loss of pairs that belong together."""
    return -logsigmoid(logit)


def false_pair(logit: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """Return -log sigmoid(-z), the loss of pairs that do not."""
    return -logsigmoid(-logit)


def mean_of_own(losses: Float[Tensor, "batch own"], valid: Bool[Tensor, "batch own"]) -> Float[Tensor, " batch"]:
    """Return the mean of each row over its own valid entries (negatives or tokens), 0 for a row without any."""
    terms = losses.where(valid, losses.new_zeros(()))
    return terms.sum(dim=1) / valid.sum(dim=1).clamp(min=1)


def pair_logits(student: Embeddings, similarity: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """Return z = s <v, t> + b of image-text pairs, with the model's scale and bias.

    Raises:
        LookupError: the model has no bias.
    """
    return student.scale * similarity + student.require("bias")


def false_pairs_of_all(
    student: Embeddings,
    texts: Float[Tensor, "texts dim"],
    *,
    weight: Float[Tensor, " texts"],
    absent: AbsentTexts,
    processes: Processes,
) -> Float[Tensor, " batch"]:
    """Return sum_t w_t `false_pair`(s <v, t> + b) for each image of this process, over the texts of all processes.

    Each process in turn sends its texts to the others, which send their gradient back in the backward pass. Logits are
    computed in blocks, and again in the backward pass: no process holds all texts or a full matrix of logits.

    Args:
        student: images, scale and bias.
        texts: texts of this process; all processes have the same number.
        weight: weight of each of these texts, 0 for one that does not exist.
        absent: texts that do not count for some images.
        processes: processes that share the batch.
    """
    size = max(1, BLOCK_LOGITS // max(len(texts), 1))
    blocks = [slice(start, min(start + size, len(student.image))) for start in range(0, len(student.image), size)]
    visits = _Visits(weight, absent, processes, blocks)
    sums = _FalsePairs.apply(student.image, texts, student.scale, student.require("bias"), visits)
    return cast(Tensor, sums)


@dataclass(frozen=True)
class _Visits:
    """How the texts of each process are compared with the images of this one."""

    weight: Tensor
    absent: AbsentTexts
    processes: Processes
    blocks: list[slice]

    def texts(self, own: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield each process with its texts and their weights, in order of rank."""
        for source in range(self.processes.count):
            yield source, self.processes.rows_of(own, source), self.processes.rows_of(self.weight, source)


class _FalsePairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, visits: _Visits) -> Tensor:
        sums = torch.zeros_like(images[:, 0])
        for source, their, weight in visits.texts(texts):
            for rows in visits.blocks:
                losses = false_pair(scale * images[rows] @ their.T + bias)
                sums[rows] += losses.masked_fill_(visits.absent(rows, source), 0.0) @ weight
        ctx.save_for_backward(images, texts, scale, bias)
        ctx.visits = visits
        return sums

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        images, texts, scale, bias = ctx.saved_tensors
        visits: _Visits = ctx.visits
        to_images, to_texts, to_scale, to_bias = map(torch.zeros_like, (images, texts, scale, bias))
        with outside_autocast(images):
            for source, their, weight in visits.texts(texts):
                to_their = torch.zeros_like(their)
                for rows in visits.blocks:
                    shares = torch.sigmoid(scale * images[rows] @ their.T + bias)
                    shares = shares.mul_(weight).mul_(gradient[rows, None])
                    shares.masked_fill_(visits.absent(rows, source), 0.0)
                    unscaled = shares @ their
                    to_images[rows] += scale * unscaled
                    to_their.addmm_(shares.T, scale * images[rows])
                    to_scale += (unscaled * images[rows]).sum()
                    to_bias += shares.sum()
                to_their = visits.processes.sum_at(to_their, source)
                if source == visits.processes.rank:
                    to_texts = to_their
        return to_images, to_texts, to_scale, to_bias, None
