"""Whether all losses were finite, asked of the device only now and then."""

from __future__ import annotations

import torch
from torch import Tensor

from degla.errors import DeglaError


class NonFiniteLossError(DeglaError):
    """A loss is not a number or infinite.

    Attributes:
        step: number of the step, from 1.
        ids: caption ids of its batch, those of this process.
    """

    def __init__(self, step: int, value: float, ids: tuple[str, ...]) -> None:
        super().__init__(f"step {step}: the loss is {value}")
        self.step, self.ids = step, ids


class FiniteWatch:
    """Remembers losses, which stay on their device, until `look`."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, tuple[str, ...]]] = []
        self._losses: list[Tensor] = []

    def note(self, step: int, *, loss: Tensor, ids: tuple[str, ...]) -> None:
        """Remember the loss, equal on all processes, of step number `step` (from 1)."""
        self._steps.append((step, ids))
        self._losses.append(loss)

    def look(self) -> None:
        """Read all remembered losses at once; call it before anything is written that a bad step has changed.

        Raises:
            NonFiniteLossError: names the first step whose loss was not finite.
        """
        if not self._losses:
            return
        losses, steps = torch.stack(self._losses).cpu(), self._steps
        self._losses, self._steps = [], []
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            first = int(bad[0])
            raise NonFiniteLossError(steps[first][0], losses[first].item(), steps[first][1])
