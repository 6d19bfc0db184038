"""A request to stop (SIGTERM, Ctrl-C) that is honoured after the running step, on all processes at once."""

from __future__ import annotations

import torch

from degla.losses.core import Processes
from degla.stopping import Interruption

_STEPS_BETWEEN_QUESTIONS = 10


class StopRequest(Interruption):
    """An interruption that several processes agree on."""

    def agreed(self, processes: Processes, step: int = 0) -> bool:
        """Whether any process was asked to stop; the same answer on all of them.

        Several processes ask each other only every few steps, because the answer makes them wait for the device.
        """
        if processes.count == 1:
            return self.name is not None
        if step % _STEPS_BETWEEN_QUESTIONS:
            return False
        return bool(processes.total(torch.tensor(float(self.name is not None))) > 0)
