"""How far long work is: a bar where someone watches a terminal, a line now and then in a log; no word of others."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

LOG = logging.getLogger(__name__)

_SOONEST: Final = 5.0
"""Seconds between two lines where there is no terminal, one a tenth of the work; ..."""
_LATEST: Final = 30.0
"""... and seconds after which there is one in any case."""


@dataclass(frozen=True)
class TaskProgress:
    """Shows the advance of tasks on stderr, or nothing where `show` is False."""

    show: bool = False

    @contextmanager
    def task(
        self, name: str, total: int, *, done: int = 0, warm_up: int = 0, note: Callable[[], str] | None = None
    ) -> Iterator[Callable[[int], None]]:
        """Open a task; the value of the block is called with the steps just done.

        Args:
            name: of the task.
            total: its steps.
            done: steps that were done before.
            warm_up: steps before which no rate is told, since the first ones come late and together.
            note: what else to tell, at every look.
        """
        if not self.show or total == 0:
            yield lambda steps: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        state = _State(total, done, warm_up, note)
        console = Console(stderr=True)
        if not console.is_terminal:
            yield lambda steps: state.log(name, steps)
            return
        # The note is last, and cut first on a narrow terminal.
        last = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
        columns = (
            TextColumn("{task.fields[name]}"),
            BarColumn(20),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            last,
        )
        with Progress(*columns, console=console, expand=True, transient=True) as bars:
            bar = bars.add_task("", total=total, completed=done, name=name)

            def advance(steps: int) -> None:
                state.done += steps
                bars.update(
                    bar, total=max(total, state.done), completed=state.done, description=", ".join(state.describe())
                )

            yield advance


class _State:
    """One task: how much is done, since when, and what was logged last."""

    def __init__(self, total: int, done: int, warm_up: int, note: Callable[[], str] | None) -> None:
        self.total, self.done, self._warm_up, self._note = total, done, warm_up, note
        self._first, self._began = done, time.monotonic()
        self._logged, self._logged_at = done * 10 // total, self._began

    def log(self, name: str, steps: int) -> None:
        """Count steps, and log a line where one is due."""
        self.done += steps
        now, tenth = time.monotonic(), self.done * 10 // self.total
        if now - self._logged_at >= (_SOONEST if tenth > self._logged else _LATEST):
            self._logged, self._logged_at = tenth, now
            of = f" of {self.total}" if self.done <= self.total else ""
            LOG.info("%s", ", ".join([f"{name}: {self.done}{of}", *self.describe()]))

    def describe(self) -> list[str]:
        """Rate, time left, and the note."""
        steps = self.done - self._first
        rate = steps / max(time.monotonic() - self._began, 1e-9)
        parts = []
        if steps and steps >= self._warm_up:
            parts = [f"{rate:,.1f}/s"]
            left = round((self.total - self.done) / rate)
            if left >= 0:  # A total may be a guess, as the lines of a file are of its records, and be passed.
                parts.append(f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left")
        note = self._note() if self._note else ""
        return [*parts, note] if note else parts


@contextmanager
def only_errors(logger: str = "") -> Iterator[None]:
    """A block in which another package's logger, the root one by default, tells of errors alone."""
    theirs = logging.getLogger(logger)
    level = theirs.level
    theirs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        theirs.setLevel(level)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """A block in which transformers shows neither notes nor progress bars; errors are told by who calls."""
    theirs: Any = importlib.import_module("transformers.utils.logging")  # Making negatives needs no model.
    bars = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    try:
        with only_errors("transformers"):
            yield
    finally:
        if bars:
            theirs.enable_progress_bar()
