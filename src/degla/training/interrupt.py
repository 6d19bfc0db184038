"""A request to stop (SIGTERM, Ctrl-C) that is honoured after the running step, on all processes at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

import torch

from degla.objectives import Processes

_STEPS_BETWEEN_QUESTIONS = 10


class StopRequest:
    """Inside the ``with`` block, SIGTERM and SIGINT only leave a note; a second SIGINT ends at once."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # Only the main thread may handle signals; elsewhere they are left as they are.
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name

    def agreed(self, processes: Processes, step: int = 0) -> bool:
        """Whether any process was asked to stop; the same answer on all of them.

        Several processes ask each other only every few steps, because the answer makes them wait for the device.
        """
        if processes.count == 1:
            return self.name is not None
        if step % _STEPS_BETWEEN_QUESTIONS:
            return False
        return bool(processes.total(torch.tensor(float(self.name is not None))) > 0)
