"""The state of a run between steps: when to write it, and how to take it up again bit for bit."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.distributed as dist
from torch import Tensor

from degla.config.fields import to_plain
from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.export.card import try_checkpoint_card
from degla.model import linear_kernel
from degla.model.address import Mirror
from degla.model.checkpoint import average_weights, load_checkpoint, save_checkpoint
from degla.model.encoder import Encoder
from degla.model.integrity import amend_state
from degla.model.runs import latest_checkpoint, point_to_best, remove_old_checkpoints
from degla.model.teacher import Teacher
from degla.pages.words import counted
from degla.training.metrics import FiniteWatch
from degla.training.optim import bare
from degla.training.step import Trainer


@dataclass(frozen=True)
class Position:
    """Where a run stands: data are a pure function of seed, epoch and batch, so this is all there is to know.

    Attributes:
        step: optimiser steps taken.
        epoch: number of the running pass, from 0.
        batch: batches of this pass already used.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0

    def after_batch(self) -> Position:
        """One batch on."""
        return replace(self, step=self.step + 1, batch=self.batch + 1)

    def after_epoch(self) -> Position:
        """At the start of the next pass."""
        return replace(self, epoch=self.epoch + 1, batch=0)


class RunState:
    """Writes and reads the checkpoints of one run.

    Args:
        run: the run's folder.
        config: its configuration.
        trainer: what is saved and restored.
        watch: the losses that nobody has looked at yet.
        start: the model before training, where its average with the student is what is kept for use; else None.
        base: fingerprint of the model before training, where a resumed run reads it; else None.
        data: digests of the rows that it is trained on, by column; see `data_digests`.
        counts: how many rows those are, for the card; see `data_counts`.
    """

    def __init__(
        self, run: Path, *, config: TrainConfig, trainer: Trainer, watch: FiniteWatch, start: Encoder | None,
        base: str | None, data: Mapping[str, str], counts: Mapping[str, int],
    ) -> None:  # fmt: skip
        self.run, self.config, self.trainer, self.data, self.counts = run, config, trainer, dict(data), dict(counts)
        self.watch, self.start, self._base = watch, start, base
        self._start = None if start is None else start.fingerprint
        self._saved = time.monotonic()
        self.mirror: Mirror | None = None
        """Copies checkpoints elsewhere."""
        self._standing: int | None = None  # Step of the checkpoint that was loaded or written last.

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be written after step number `step` (from 1); the same on all processes."""
        wanted = self.config.checkpoint
        if wanted.every_steps and step % wanted.every_steps == 0:
            return True
        old = bool(wanted.every_minutes) and time.monotonic() - self._saved > 60 * wanted.every_minutes
        if self.trainer.processes.count == 1:
            return old
        # Clocks differ; ask rarely, so that no step waits for the answer.
        return step % 20 == 0 and bool(self.trainer.processes.total(torch.tensor(float(old))) > 0)

    def save(self, position: Position, *, best: str | None, ended: str | None = None) -> Path:
        """Write ``RUN/step-N``, note the best one and remove what is no longer kept.

        A checkpoint that stands for the same step is not written again: only what its state says of the run's end may
        change.

        Args:
            position: where the run stands.
            best: name of the best checkpoint.
            ended: the limit of `StopConfig` that the run has met here; None where it has met none.

        Raises:
            NonFiniteLossError: a step since the last look went wrong; nothing is written.
        """
        self.watch.look()
        if self.mirror is not None:
            self.mirror.wait()
        folder = self.run / f"step-{position.step}"
        if position.step == self._standing:
            if self.trainer.accelerator.is_main_process:
                amend_state(folder, best=best, ended=ended)
                self._look_after(best)
            self.trainer.accelerator.wait_for_everyone()
            return folder
        states = self._gather(random_state())
        optimizer, sharding = bare(self.trainer.optimizer), self.trainer.sharding
        held = optimizer.state_dict() if sharding is None else sharding.optimizer_state(optimizer)
        with self.whole(everywhere=False) as (encoder, teacher):
            if self.trainer.accelerator.is_main_process:
                scaler, kept = self.trainer.accelerator.scaler, self.kept(encoder)
                save_checkpoint(
                    folder,
                    encoder=encoder,
                    teacher=teacher,
                    optimizer=held,
                    tensors={
                        "random": states,
                        "memory": self._memory(),
                        "scaler": scaler.state_dict() if scaler is not None else {},
                        **{name: module.state_dict() for name, module in self.trainer.along.items()},
                    },
                    state={
                        **asdict(position),
                        "steps": self.trainer.steps,
                        "processes": self.trainer.processes.count,
                        "best": best,
                        "ended": ended,
                        "data": self.data,
                        "counts": self.counts,
                        "start": self._start,
                        "base": self._base,
                        "linear_layers": linear_kernel.used_on(self.trainer.accelerator.device),
                        "versions": _versions(),
                    },
                    config=to_plain(self.config),
                    kept=None if kept is encoder else kept,
                )
                try_checkpoint_card(folder)
                self._look_after(best)
        self.trainer.accelerator.wait_for_everyone()
        self._saved, self._standing = time.monotonic(), position.step
        return folder

    def _look_after(self, best: str | None) -> None:
        point_to_best(self.run, best)
        remove_old_checkpoints(self.run, keep=self.config.checkpoint.keep, best=Path(best) if best else None)
        if self.mirror is not None:
            self.mirror.copy()

    def load(self) -> Position:
        """Take up the newest checkpoint; returns where it stood.

        Raises:
            InputError: no checkpoint, a damaged one, one of a run of another length or on other data, or another model
                than before that it is an average with, or that adapters, L2-SP or embedded images read.
        """
        folder = latest_checkpoint(self.run)
        if folder is None:
            raise InputError(f"{self.run}: no complete checkpoint to go on from.")
        optimizer, sharding = bare(self.trainer.optimizer), self.trainer.sharding
        with self.whole() as (encoder, teacher):
            state, tensors = load_checkpoint(
                folder, encoder=encoder, teacher=teacher, optimizer=optimizer, averaged=self.start is not None
            )
            if sharding is not None:
                sharding.take_over(encoder, teacher)
                sharding.share_optimizer_state(optimizer)
        if state.steps != self.trainer.steps:
            raise InputError(
                f"{folder}: the run had {counted(state.steps, 'step')} and would now have {self.trainer.steps}; the "
                "data files have changed since. Put the old ones back, or start a new run from this checkpoint with "
                f"--model {folder}."
            )
        self._check_data(folder, state.data)
        if state.start != self._start or state.base != self._base:
            read = "its average with the student is what is kept" if self.start else "the run still reads that one"
            raise InputError(
                f"{folder}: --model {self.config.model} is another model than the run began with, and {read}. Put the "
                "old one back."
            )
        self._recall(tensors["memory"])
        for name, module in self.trainer.along.items():
            module.load_state_dict(tensors[name])
        if self.trainer.accelerator.scaler is not None and tensors["scaler"]:
            self.trainer.accelerator.scaler.load_state_dict(tensors["scaler"])
        rank = self.trainer.processes.rank
        if rank < len(tensors["random"]):
            set_random_state(tensors["random"][rank])
        self._standing = state.step
        return Position(step=state.step, epoch=state.epoch, batch=state.batch)

    @contextmanager
    def whole(self, *, everywhere: bool = True) -> Iterator[tuple[Encoder, Teacher | None]]:
        """Student and teacher with all of their weights, in this process or only in the first."""
        if self.trainer.sharding is None:
            yield self.trainer.encoder, self.trainer.teacher
        else:
            with self.trainer.sharding.whole(everywhere=everywhere) as models:
                yield models

    def kept(self, student: Encoder) -> Encoder:
        """The model for use that a whole student stands for: itself, or its average with the model before training."""
        share = self.config.train.average
        if self.start is None or share is None:
            return student
        return average_weights(self.start, student, share=share).to(self.trainer.encoder.device)

    def _memories(self) -> dict[str, dict[str, Tensor]]:
        """What the losses of each stream remember from step to step, by what their names begin with."""
        replay = self.trainer.replay
        return {"": self.trainer.pairs.objective.memory, "replay.": replay.objective.memory if replay else {}}

    def _memory(self) -> dict[str, Tensor]:
        memories = self._memories().items()
        return {f"{stream}{name}": value for stream, memory in memories for name, value in memory.items()}

    def _recall(self, saved: Mapping[str, Tensor]) -> None:
        for stream, memory in self._memories().items():
            memory |= {name: saved[f"{stream}{name}"] for name in memory if f"{stream}{name}" in saved}

    def _check_data(self, folder: Path, recorded: dict[str, str]) -> None:
        changed = [name for name in sorted(recorded.keys() | self.data) if recorded.get(name) != self.data.get(name)]
        if changed:
            given = [stream.data for stream in self.config.streams]
            paths = [(data.captions, data.negatives, data.classes) for data in given]
            files = [path for found in paths for path in found if path is not None]
            raise InputError(
                f"{folder}: the run was trained on other data than there is now in {' and '.join(map(str, files))}; "
                f"changed: {', '.join(changed)}. Put the old files back, or start a new run from this checkpoint with "
                f"--model {folder}."
            )

    def _gather(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        if self.trainer.processes.count == 1:
            return [state]
        states: list[Any] = [None] * self.trainer.processes.count
        dist.all_gather_object(states, state)
        return states


@cache
def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    names = ("degla", "torch", "open_clip_torch", "accelerate")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """States of the global generators as tensors and plain values, safe to load with ``weights_only``."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = numpy.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, keys.tolist(), position, has_gauss, cached],  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` gave; generators of devices that are not here are passed over."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
