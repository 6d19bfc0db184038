"""A request to stop (Ctrl-C, SIGTERM) that is honoured where nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


class Stopped(BaseException):
    """Raised while the run waits for something else, so that a request to stop need not wait as well."""


class Interruption:
    """Inside the ``with`` block SIGTERM and SIGINT only leave a note; a second SIGINT ends at once.

    Attributes:
        name: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._waiting = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only it may handle signals
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block that a signal leaves at once, with `Stopped`."""
        self._waiting = True
        try:
            if self.name is not None:
                raise Stopped
            yield
        finally:
            self._waiting = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        if self._waiting:
            raise Stopped
