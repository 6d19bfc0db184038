"""Progress of long tasks: a bar on a terminal, otherwise occasional log lines; and silencing of other loggers."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from degla.pages.words import rate

log = logging.getLogger(__name__)

_SOONEST: Final = 5.0
"""Least seconds between two log lines."""
_LATEST: Final = 30.0
"""Seconds after which a line is logged even if less than a tenth of the work was done since the last one."""


@dataclass(frozen=True)
class TaskProgress:
    """Shows the progress of tasks on stderr, or nothing if `show` is False."""

    show: bool = False

    @contextmanager
    def task(
        self, name: str, total: int | None, *, done: int = 0, warm_up: int = 0, note: Callable[[], str] | None = None
    ) -> Iterator[Callable[[int], None]]:
        """Start a task; yields a function to call with the number of steps just done.

        Args:
            name: name of the task.
            total: number of steps; None if it is unknown.
            done: steps done before.
            warm_up: number of steps before a rate is shown, because the first ones arrive late and together.
            note: returns additional text to show.
        """
        if not self.show or total == 0:
            yield lambda steps: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        state = _State(total, done, warm_up, note)
        if not shows_bars():
            yield lambda steps: state.log(name, steps)
            return
        # The note comes last and is truncated first on a narrow terminal.
        rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        # Names of files and arms may hold what would be markup.
        columns = (
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(20),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.description}", markup=False, table_column=rest),
        )
        with Progress(*columns, console=Console(stderr=True), expand=True, transient=True) as bars:
            bar = bars.add_task("", total=total, completed=done, name=name)

            def advance(steps: int) -> None:
                state.done += steps
                most = None if total is None else max(total, state.done)
                bars.update(bar, total=most, completed=state.done, description=", ".join(state.describe()))

            yield advance


def shows_bars() -> bool:
    """Return whether stderr is a terminal that can redraw a line; a dumb one would show nothing until the end."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal


class _State:
    """State of a task: how much is done, since when, and what was logged last."""

    def __init__(self, total: int | None, done: int, warm_up: int, note: Callable[[], str] | None) -> None:
        self.total, self.done, self._warm_up, self._note = total, done, warm_up, note
        self._first, self._began = done, time.monotonic()
        self._logged, self._logged_at = self._milestone(), self._began

    def _milestone(self) -> int:
        """Return a number that grows with each tenth of the work, or with each doubling if the total is unknown."""
        return self.done.bit_length() if self.total is None else self.done * 10 // self.total

    def log(self, name: str, steps: int) -> None:
        """Count steps, and log a line if one is due."""
        self.done += steps
        now, milestone = time.monotonic(), self._milestone()
        if now - self._logged_at >= (_SOONEST if milestone > self._logged else _LATEST):
            self._logged, self._logged_at = milestone, now
            of = f" of {self.total}" if self.total is not None and self.done <= self.total else ""
            log.info("%s", ", ".join([f"{name}: {self.done}{of}", *self.describe()]))

    def describe(self) -> list[str]:
        """Return the rate, the time left, and the note."""
        steps = self.done - self._first
        speed = steps / max(time.monotonic() - self._began, 1e-9)
        parts = []
        if steps and steps >= self._warm_up:
            parts = [f"{rate(speed)}/s"]
            # The total may be an estimate, such as a file's lines for its records, and be exceeded.
            if self.total is not None and self.done <= self.total:
                seconds = round((self.total - self.done) / speed)
                parts.append(f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left")
        note = self._note() if self._note else ""
        return [*parts, note] if note else parts


@contextmanager
def only_errors(logger: str = "") -> Iterator[None]:
    """Limit another package's logger, by default the root logger, to errors within the block."""
    theirs = logging.getLogger(logger)
    level, handlers = theirs.level, list(theirs.handlers)
    theirs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        theirs.setLevel(level)
        theirs.handlers[:] = handlers  # `logging.info` adds one to a bare root logger: basicConfig would do nothing.


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence notes and progress bars of transformers within the block; callers report errors."""
    theirs: Any = importlib.import_module("transformers.utils.logging")  # Generating negatives needs no model.
    bars = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    try:
        with only_errors("transformers"):
            yield
    finally:
        if bars:
            theirs.enable_progress_bar()
