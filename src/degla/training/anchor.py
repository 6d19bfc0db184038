"""The parameter anchor: pulls the student's weights back to where the run started, the important ones more."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from degla.config.sections import AnchorConfig


class Anchor:
    """Adds the gradient of ``weight * sum F (theta - start)^2`` to the gradients that are there, without autograd.

    With ``importance="adaptive"`` F is ``g^2 / mean(g^2)``, the mean over a tensor, where g is the gradient that the
    parameters hold when `pull` is called: that of the rehearsal at this step, the average over all processes (adaptive
    weight consolidation of GIFT, arXiv 2503.04229). A tensor without any gradient is not held. With "equal" F is 1.

    The start is copied when the anchor is made, which every run does before it takes up a checkpoint, from the model
    that it was started with: a resumed run has the same one.

    Args:
        parameters: those that are trained, as they are at the start of the run.
        config: weight and importance.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], config: AnchorConfig) -> None:
        self.config = config
        self._held = [(value, value.detach().clone()) for value in parameters if value.requires_grad]

    @torch.no_grad()
    def pull(self) -> Float[Tensor, ""]:
        """Add the penalty's gradient to `grad` of every parameter; returns the penalty before its weight."""
        values = []
        for parameter, start in self._held:
            away = parameter - start
            counted = self._importance(parameter.grad, away) * away
            values.append((counted * away).sum())
            back = 2 * self.config.weight * counted
            parameter.grad = back if parameter.grad is None else parameter.grad.add_(back)
        return torch.stack(values).sum()

    def _importance(self, gradient: Tensor | None, like: Tensor) -> Tensor:
        if self.config.importance == "equal":
            return torch.ones_like(like)
        if gradient is None:
            return torch.zeros_like(like)
        square = gradient.square()
        mean = square.mean()
        return torch.where(mean > 0, square / mean, torch.zeros_like(square))
