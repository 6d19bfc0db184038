"""Gradient caching: the gradient of a loss over a whole batch with the activations of only a part of it.

Source: "Scaling deep contrastive learning batch size under memory limited setup", arXiv 2101.06983.

All parts are embedded without a graph; the loss over all embeddings gives the gradient of each embedding; then each
part is embedded once more, with a graph, and its embeddings' gradient is sent through. Value and gradient are those of
the whole batch, whatever the losses and whatever the teacher says, for one more forward pass of the student.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from degla.data.batches import BatchPart
from degla.model.encoder import Encoder, TowerOutputs

RandomState = tuple[Tensor, list[Tensor]]


class GradientCache:
    """One step's embeddings without a graph, to which the loss is attached.

    Args:
        encoder: the bare student.
        parts: of the batch, in order.
        accelerator: for the precision of the forward pass.
        texts: whether texts are read.
        dense: whether outputs of patches and tokens are read, too.
        raw: whether images are read before they are brought to length one, too.

    Attributes:
        rows: embeddings of each part; leaves that collect the loss's gradient.
        scale: the scale, such a leaf too.
        bias: the bias, where the model has one.
    """

    def __init__(
        self,
        encoder: Encoder,
        parts: Sequence[BatchPart],
        *,
        accelerator: Accelerator,
        texts: bool = True,
        dense: bool = False,
        raw: bool = False,
    ) -> None:
        self.parts, self.accelerator = parts, accelerator
        self.texts, self.dense, self.raw = texts, dense, raw
        self.rows: list[TowerOutputs] = []
        self._random: list[RandomState] = []
        for part in parts:
            self._random.append(_random_state(encoder.device))
            with torch.no_grad(), accelerator.autocast():
                rows = encoder.embed(part.image, part.texts if texts else None, dense=dense, raw=raw)
            self.rows.append(TowerOutputs(*(None if each is None else each.requires_grad_() for each in rows)))
        self.scale: Float[Tensor, ""] = encoder.scale.detach().requires_grad_()
        self.bias: Float[Tensor, ""] | None = encoder.bias
        self.bias = None if self.bias is None else self.bias.detach().requires_grad_()

    def backward(self, loss: Float[Tensor, ""], student: Callable[..., Any]) -> None:
        """Send the gradient of `loss` into the student's parameters.

        Args:
            loss: computed from `rows`, `scale` and `bias`.
            student: the student as wrapped for the processes at hand; they exchange gradients once.
        """
        scaler = self.accelerator.scaler
        scaled: Tensor = loss if scaler is None else scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]
        after = _random_state(self.scale.device)
        for number, (part, rows) in enumerate(zip(self.parts, self.rows, strict=True)):
            last = number == len(self.parts) - 1
            _set_random_state(self._random[number], self.scale.device)
            together = contextlib.nullcontext() if last else self.accelerator.no_sync(student)
            with together:
                texts = part.texts if self.texts else None
                *values, scale, bias = student(part.image, texts, dense=self.dense, raw=self.raw)
                pairs = zip(TowerOutputs(*values), rows, strict=True)
                there = [(value, leaf) for value, leaf in pairs if value is not None and leaf is not None]
                sent = sum(_product(value, leaf) for value, leaf in there)
                # Scale and bias are one for all parts; their gradients go along with the last.
                sent = sent + _product(scale, self.scale) * float(last)
                if bias is not None and self.bias is not None:
                    sent = sent + _product(bias, self.bias) * float(last)
                if sent.requires_grad:
                    sent.backward()  # type: ignore[no-untyped-call]
        _set_random_state(after, self.scale.device)


def _product(value: Tensor, leaf: Tensor) -> Tensor:
    """A scalar whose gradient in `value` is that of the loss in `leaf`."""
    return (value.float() * (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)).sum()


def _random_state(device: torch.device) -> RandomState:
    return torch.get_rng_state(), [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []


def _set_random_state(state: RandomState, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    for own in state[1]:
        torch.cuda.set_rng_state(own, device)
