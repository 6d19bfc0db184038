"""What a run says while it trains: metrics.jsonl, trackers, a bar or lines; and whether all losses are finite."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import rich.progress  # noqa: F401  # Before anything is seeded: importing it draws from Python's generator.
import torch
from torch import Tensor

from degla.errors import DeglaError, InputError
from degla.files import whole_file, write_json
from degla.model.runs import latest_checkpoint
from degla.parse import parse_json, read_bytes
from degla.progress import TaskProgress

log = logging.getLogger("degla.train")


@dataclass
class Metrics:
    """Writes one JSON line every few steps and shows progress; only the main process is given one that is `active`.

    Attributes:
        folder: the run's folder; lines go to ``metrics.jsonl`` in it.
        start: steps already taken; later lines of an earlier, interrupted process are cut off.
        steps: length of the run.
        every_steps: steps between lines.
        pairs_per_step: pairs of the global batch, for the rate.
        active: False makes every call do nothing.
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
        self._shown, self._note = self.start, ""
        self._newest: dict[str, Tensor | float] = {}
        self._held = ExitStack()
        shown = TaskProgress(self.active and self.progress)
        self._progress = shown.task("training", self.steps, done=self.start, note=lambda: self._note)

    def __enter__(self) -> Metrics:
        if self.active:
            self._forget_after(self.start)
            self._stream = self.path.open("a", encoding="utf-8")
        self._advance = self._held.enter_context(self._progress)
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()
        if self.active:
            self._stream.close()

    def _forget_after(self, step: int) -> None:
        if not self.path.is_file():
            return
        kept = b"".join(line + b"\n" for line, _ in lines_up_to(self.path, step))
        if kept != read_bytes(self.path):
            with whole_file(self.path, binary=True) as stream:
                stream.write(kept)

    def due(self, step: int) -> bool:
        """Whether a line is written after step number `step`; the same on all processes."""
        return step % self.every_steps == 0 or step == self.steps

    def record(self, step: int, *, epoch: int, values: dict[str, Tensor | float]) -> None:
        """Note step number `step` (1 for the first); a line is written every `every_steps` and at the last.

        It has the newest value of each name since the line before: where two streams take turns, every tenth step is
        always of the same one.
        """
        if not self.active:
            return
        self._newest |= values
        if not self.due(step):
            return
        tensors = {name: value for name, value in self._newest.items() if isinstance(value, Tensor)}
        # One look for all: each would wait for a GPU.
        read = iter(torch.stack(list(tensors.values())).tolist() if tensors else [])
        plain = {name: next(read) if name in tensors else float(value) for name, value in self._newest.items()}
        self._newest = {}
        before, then = self._since
        now = time.perf_counter()
        rate = (step - before) * self.pairs_per_step / max(now - then, 1e-9)
        self._since = (step, now)
        self.write(step, {"epoch": epoch, **plain, "pairs_per_second": round(rate, 2)})
        losses = " ".join(f"{name} {value:.4g}" for name, value in plain.items() if name not in ("lr", "scale"))
        self._note = f"{rate:.0f} pairs/s, {losses}"
        self._advance(step - self._shown)
        self._shown = step

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append one line for a step, and tell the trackers."""
        if not self.active or not values:
            return
        self._stream.write(json.dumps({"step": step, **values}) + "\n")
        self._stream.flush()
        self.tracker({name: value for name, value in values.items() if isinstance(value, int | float)}, step=step)


def lines_up_to(path: Path, step: int) -> list[tuple[bytes, dict[str, Any]]]:
    """The lines of a run's file of JSON lines that are about steps up to a number, as they are and parsed."""
    kept = []
    lines = read_bytes(path).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line, where=str(path), constants=True)
            if row["step"] <= step:
                kept.append((line, row))
        except (InputError, KeyError, TypeError):
            if number < len(lines):  # The last one was torn when the process ended.
                log.warning("%s line %d: damaged, left out", path, number)
    return kept


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


@contextmanager
def nonfinite_told(run: Path, *, rank: int, steps_per_epoch: int) -> Iterator[None]:
    """Write down the batch of a loss that was not finite, and say what to do."""
    try:
        yield
    except NonFiniteLossError as error:
        note = run / ("nonfinite.json" if rank == 0 else f"nonfinite-{rank}.json")
        batch = {"step": error.step, "epoch": (error.step - 1) // steps_per_epoch, "caption_ids": list(error.ids)}
        write_json(note, batch)
        newest = latest_checkpoint(run)
        raise DeglaError(
            f"{error}; it changed no checkpoint. The captions of its batch are listed in {note}. "
            + (f"The last checkpoint is {newest}. " if newest else "")
            + "A lower --optim.lr, --optim.clip-norm 1 or --train.precision fp32 often helps."
        ) from None
