"""Metrics of a run: metrics.jsonl, trackers, a progress bar or lines, and the check that all losses are finite."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import rich.progress  # noqa: F401  # Before seeding, because the import draws from Python's generator.
import torch
from torch import Tensor

from degla.errors import DeglaError, InputError
from degla.files import LineFile, whole_file, write_json
from degla.model.runs import latest_checkpoint
from degla.pages.words import rate
from degla.parse import open_file, parse_json
from degla.processes import ProcessGroup
from degla.progress import TaskProgress

log = logging.getLogger("degla.train")

_MOST_LOSSES: Final = 1000
"""Losses that wait for a check, with the caption ids of their batches: about 20 MB for 256 pairs."""


@dataclass
class Metrics:
    """Writes one JSON line every few steps and shows progress; `active` only in the main process.

    Attributes:
        folder: folder of the run; lines go to ``metrics.jsonl`` in it.
        start: steps already taken; later lines of an interrupted process are removed.
        steps: length of the run.
        every_steps: steps between lines.
        pairs_per_step: pairs of the global batch, for the rate.
        active: if False, every call does nothing.
        progress: show a bar on a terminal, lines elsewhere.
        tracker: accelerate's `log`, called with values and step.
    """

    folder: Path
    _: KW_ONLY
    start: int
    steps: int
    every_steps: int
    pairs_per_step: int
    active: bool
    tracker: Any
    progress: bool = True

    def __post_init__(self) -> None:
        self.path = self.folder / "metrics.jsonl"
        self._since = (self.start, time.perf_counter())
        self._note = ""
        self._newest: dict[str, Tensor | float] = {}
        self._stack = ExitStack()
        shown = TaskProgress(self.active and self.progress)
        self._progress = shown.task("training", self.steps, done=self.start, note=lambda: self._note)

    def __enter__(self) -> Metrics:
        if self.active:
            if self.path.is_file():
                with whole_file(self.path, binary=True) as stream:
                    stream.writelines(line for line, _ in lines_up_to(self.path, self.start))
            self._file = LineFile(self.path)
        self._advance = self._stack.enter_context(self._progress)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        if self.active:
            self._file.__exit__(*error)

    def due(self, step: int) -> bool:
        """Return whether a line is written after step number `step`; the same on all processes."""
        return step % self.every_steps == 0 or step == self.steps

    def record(self, step: int, *, epoch: int, values: dict[str, Tensor | float]) -> None:
        """Record step number `step` (1 for the first); a line is written every `every_steps` and at the last step.

        The line has the newest value of each name since the previous line, because where two streams alternate, every
        tenth step is always from the same one.
        """
        if not self.active:
            return
        self._newest |= values
        if not self.due(step):
            return
        tensors = {name: value for name, value in self._newest.items() if isinstance(value, Tensor)}
        # Read all at once: each read would wait for the GPU.
        numbers = iter(torch.stack(list(tensors.values())).tolist() if tensors else [])
        plain = {name: next(numbers) if name in tensors else float(value) for name, value in self._newest.items()}
        self._newest = {}
        before, then = self._since
        now = time.perf_counter()
        speed = (step - before) * self.pairs_per_step / max(now - then, 1e-9)
        self._since = (step, now)
        self.write(step, {"epoch": epoch, **plain, "pairs_per_second": round(speed, 2)})
        losses = " ".join(f"{name} {value:.4g}" for name, value in plain.items() if name not in ("lr", "scale"))
        self._note = f"{rate(speed)} pairs/s, {losses}"
        self._advance(step - before)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append one line for a step, and send its numbers to the trackers.

        Raises:
            DeglaError: the disk is full, or the file can no longer be written.
        """
        if not self.active or not values:
            return
        self._file.append([json.dumps({"step": step, **values}) + "\n"])
        self.tracker({name: value for name, value in values.items() if isinstance(value, int | float)}, step=step)


def lines_up_to(path: Path, step: float) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield the lines of a run's JSONL file up to a step, ending in a line feed, and parsed."""
    damaged = 0
    with open_file(path) as stream:
        for number, line in enumerate(stream, start=1):
            if damaged:  # Not the last one, which was cut off when the process ended.
                log.warning("%s line %d: damaged, skipped", path, damaged)
                damaged = 0
            try:
                row = parse_json(line, where=str(path), constants=True)
                if row["step"] <= step:
                    yield line.rstrip(b"\r\n") + b"\n", row
            except (InputError, KeyError, TypeError):
                damaged = number


class NonFiniteLossError(DeglaError):
    """A loss is NaN or infinite.

    Attributes:
        step: step number, from 1.
        ids: caption ids of its batch in this process.
    """

    def __init__(self, step: int, value: float, ids: tuple[str, ...]) -> None:
        super().__init__(f"step {step}: the loss is {value}")
        self.step, self.ids = step, ids


class FiniteWatch:
    """Collects losses on their device until `check` reads them."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, tuple[str, ...]]] = []
        self._losses: list[Tensor] = []

    def note(self, step: int, *, loss: Tensor, ids: tuple[str, ...]) -> None:
        """Store the loss of step number `step` (from 1), the same on all processes; `check` if there are many."""
        self._steps.append((step, ids))
        self._losses.append(loss)
        if len(self._losses) >= _MOST_LOSSES:
            self.check()

    def check(self) -> None:
        """Check all stored losses at once; call it before writing anything that a bad step may have changed.

        Raises:
            NonFiniteLossError: a loss was not finite; names the first such step.
        """
        if not self._losses:
            return
        losses, steps = torch.stack(self._losses).cpu(), self._steps
        self._losses, self._steps = [], []
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            first = int(bad[0])
            raise NonFiniteLossError(steps[first][0], losses[first].item(), steps[first][1])


@contextmanager
def explain_nonfinite(run: Path, *, processes: ProcessGroup, steps_per_epoch: int) -> Iterator[None]:
    """Report a loss that was not finite: write the ids of its batch to a file, and say what to do.

    Args:
        run: folder of the run.
        processes: processes of the run; a loss is the mean over all, so all enter this together.
        steps_per_epoch: steps of one epoch.
    """
    try:
        yield
    except NonFiniteLossError as error:
        step, message, own = error.step, str(error), error.ids
        ids = list(chain.from_iterable(processes.together(lambda: own)))

        def report() -> None:
            note = run / "nonfinite.json"
            write_json(note, {"step": step, "epoch": (step - 1) // steps_per_epoch, "caption_ids": ids})
            newest = latest_checkpoint(run)
            raise DeglaError(
                f"{message}. No checkpoint was changed. {note} lists the captions of the batch. "
                + (f"The last checkpoint is {newest}. " if newest else "")
                + "A lower --optim.lr, --optim.clip-norm 1 or --train.precision fp32 often helps."
            ) from None

        processes.from_first(report)
