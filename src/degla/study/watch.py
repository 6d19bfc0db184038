"""Progress of the chains: how far each that runs is, a line for each that ended."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from degla.errors import InputError
from degla.pages.words import duration
from degla.parse import parse_json, read_bytes
from degla.progress import TaskProgress
from degla.study.jobs import Chain, ChainResult, Job
from degla.study.workers import Ended


class Watch:
    """Shows the state of chains, read from their metrics.

    Args:
        chains: as given to `run_jobs`.
        log: where the lines go.
        when_ended: called with the number of a chain and how it ended, once a chain.
    """

    def __init__(
        self, chains: Sequence[Chain], *, log: logging.Logger, when_ended: Callable[[int, Ended[ChainResult]], None]
    ) -> None:
        self._chains, self._log, self._when_ended = chains, log, when_ended
        self._stack = ExitStack()
        self._steps = [0] * len(chains)
        self._running: list[str] = []
        # Of several runs one after another, those that were measured.
        self._measured = {job.title for chain in chains for job in chain.jobs if job.measures[0].path.is_file()}
        self._done = 0
        self._worked = 0
        self._since = time.monotonic()

    def __enter__(self) -> Watch:
        # Lines would tear the bar; what has handlers of its own, such as a file, still gets them.
        self._log.propagate = not sys.stderr.isatty()
        total = sum(map(_steps_of, self._chains))
        task = TaskProgress(True).task("training steps", total, note=lambda: "; ".join(self._running))
        self._advance = self._stack.enter_context(task)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._log.propagate = True

    def look(self, running: Sequence[int]) -> None:
        """Show how far the chains that run are."""
        rows = {
            number: [row for job in self._chains[number].jobs if (row := _last_metrics(job)) is not None]
            for number in running
        }
        self._running = [self._describe(number, of_chain) for number, of_chain in rows.items()]
        for number, of_chain in rows.items():
            self._count(number, sum(row["step"] for row in of_chain))
            self._tell_jobs(self._chains[number])

    def _describe(self, number: int, rows: Sequence[dict[str, Any]]) -> str:
        chain = self._chains[number]
        loss = f", loss {rows[-1]['loss']:.3f}" if rows and "loss" in rows[-1] else ""
        return f"{chain.title}: {sum(row['step'] for row in rows)} of {_steps_of(chain)}{loss}"

    def _count(self, number: int, steps: int) -> None:
        self._advance(steps - self._steps[number])
        self._steps[number] = steps

    def _tell_jobs(self, chain: Chain) -> None:
        for place, job in enumerate(chain.jobs, start=1):
            if len(chain.jobs) > 1 and job.title not in self._measured and job.measures[0].path.is_file():
                self._measured.add(job.title)
                self._log.info("%s: %s (%d of %d)", chain.title, job.label, place, len(chain.jobs))

    def ended(self, number: int, end: Ended[ChainResult]) -> None:
        """Note the end of a chain; a line in the log says what came of it."""
        chain = self._chains[number]
        self._count(number, _steps_of(chain))
        self._tell_jobs(chain)
        self._done += 1
        fresh = end.value is None or any(each.trained or each.measured for each in end.value)
        self._worked += fresh
        how = f"failed: {end.error}" if end.error else f"done in {end.seconds:.0f} s" if fresh else "kept from before"
        notes = "; ".join(note for each in end.value or () for note in each.notes)
        line = f"{self._done} of {len(self._chains)}: {chain.title}: {how}" + (f" ({notes})" if notes else "")
        if self._worked and self._done < len(self._chains):
            each = (time.monotonic() - self._since) / self._worked
            line += f"; about {duration(each * (len(self._chains) - self._done))} left"
        self._log.log(logging.ERROR if end.error else logging.INFO, "%s", line)
        self._when_ended(number, end)


def _steps_of(chain: Chain) -> int:
    return sum((job.config and job.config.train.steps) or 0 for job in chain.jobs)


def _last_metrics(job: Job) -> dict[str, Any] | None:
    if job.config is None:
        return None
    path = Path(job.config.out or ".") / "metrics.jsonl"
    try:
        lines = read_bytes(path).splitlines()
        return dict(parse_json(lines[-1], where=str(path), constants=True)) if lines else None
    except (InputError, TypeError, ValueError):
        return None  # Not there yet, or a line is being written.
