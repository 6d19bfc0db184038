"""How far long work is: a bar where someone watches a terminal, a line every tenth in a log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskProgress:
    """Shows the advance of tasks on stderr, or nothing where `show` is False."""

    show: bool = False

    @contextlib.contextmanager
    def task(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Open a task of `total` steps; the value of the block is called with the steps just done."""
        if not self.show or total == 0:
            yield lambda steps: None
            return
        from rich.console import Console

        console = Console(stderr=True)
        if not console.is_terminal:
            yield _lines(name, total)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bars(*columns, console=console, transient=True) as bars:
            task = bars.add_task(name, total=total)
            yield lambda steps: bars.advance(task, steps)


def _lines(name: str, total: int) -> Callable[[int], None]:
    done = 0

    def advance(steps: int) -> None:
        nonlocal done
        before, done = done, done + steps
        if done * 10 // total > before * 10 // total:
            logger.info("%s: %d of %d", name, done, total)

    return advance
