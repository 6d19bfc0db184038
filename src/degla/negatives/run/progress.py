"""How far a run is: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Final

from degla.negatives.run.stream import BATCH
from degla.negatives.run.summary import Summary

LOG = logging.getLogger(__name__)

_LOG_EVERY: Final = 5_000
"""Captions between two lines where there is no terminal, ..."""
_LOG_SECONDS: Final = 30.0
"""... or seconds, whichever is sooner."""


class NegativesProgress:
    """Rate, time left, share accepted and what failed, while a run goes on. Used in a ``with`` block."""

    def __init__(self, total: int, done: int, summary: Summary) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self._total, self._done, self._summary = total, done, summary
        self._began, self._first = time.monotonic(), done
        self._said, self._said_at = done // _LOG_EVERY, self._began
        console = Console(stderr=True)
        columns = (TextColumn("negatives"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task("", total=total, completed=done) if self._bar else None

    def __enter__(self) -> NegativesProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, captions: int) -> None:
        """Say that some captions more are finished."""
        self._done += captions
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self._done, description=self.describe())
            return
        now = time.monotonic()
        if self._done // _LOG_EVERY != self._said or now - self._said_at >= _LOG_SECONDS:
            self._said, self._said_at = self._done // _LOG_EVERY, now
            LOG.info("negatives: %d of %d captions, %s", self._done, self._total, self.describe())

    def describe(self) -> str:
        """Rate, time left, share accepted, failures by kind."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = (self._done - self._first) / seconds
        # A model is asked rule by rule within a batch, so that its first captions end together, and late.
        begun = bool(self._summary.outcomes) and self._done - self._first < BATCH
        parts = [] if begun else [f"{rate:,.1f}/s"]
        if rate > 0 and not begun:
            left = round((self._total - self._done) / rate)
            parts.append(f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left")
        parts.append(f"{self._summary.share_accepted:.0%} accepted")
        if self._summary.outcomes:
            parts.append(f"replies {self._summary.outcomes.total():,}")
        parts += [f"{outcome} {count:,}" for outcome, count in self._summary.failures.most_common()]
        return ", ".join(parts)
