"""The state of a run between steps: when to save it, and how to restore it bit for bit."""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor

from degla.config.fields import to_record
from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.evaluation.trainings import Trainings
from degla.export.card import try_checkpoint_card
from degla.losses.core.objective import Memory, tensors_of
from degla.model import linear_kernel
from degla.model.address import RunMirror
from degla.model.checkpoint import average_weights, load_checkpoint, save_checkpoint
from degla.model.encoder import Encoder
from degla.model.integrity import amend_state, read_state
from degla.model.runs import CARD_NAME, latest_checkpoint, point_to_best, remove_old_checkpoints
from degla.model.teacher import Teacher
from degla.pages.words import counted
from degla.shelf import PARTS, RECIPES
from degla.training.metrics import FiniteWatch
from degla.training.optim import bare
from degla.training.step import Trainer
from degla.version import installed_version


class RunState:
    """Writes and reads the checkpoints of one run.

    Args:
        run: folder of the run.
        config: configuration of the run.
        trainer: what is saved and restored.
        watch: losses that have not been checked yet.
        original: the model before training if the run keeps its average with the student, else None.
        base: fingerprint of the model before training; a resumed run that does not read it may give None.
        earlier: what that model was trained on.
        data: digests of the training rows by column; see `data_digests`.
        image_sizes: see `degla.training.rows.image_sizes`; a resumed run uses those of its checkpoint.
        counts: numbers of training rows, for the model card; see `data_counts`.
        mirror: copies checkpoints elsewhere.
    """

    def __init__(
        self, run: Path, *, config: TrainConfig, trainer: Trainer, watch: FiniteWatch, original: Encoder | None,
        base: str | None, earlier: Trainings, data: Mapping[str, str], image_sizes: Mapping[str, str],
        counts: Mapping[str, int], mirror: RunMirror,
    ) -> None:  # fmt: skip
        self.run, self.config, self.trainer, self.data, self.counts = run, config, trainer, dict(data), dict(counts)
        self.watch, self.original, self._base, self.earlier, self.mirror = watch, original, base, earlier, mirror
        self._image_sizes = dict(image_sizes)
        self._averaged_with = None if original is None else original.fingerprint
        self._saved = time.monotonic()
        self._last_step: int | None = None  # Step of the checkpoint loaded or written last.

    def due(self, step: int) -> bool:
        """Return whether to write a checkpoint after step number `step` (from 1); the same on all processes."""
        settings = self.config.checkpoint
        if settings.every_steps and step % settings.every_steps == 0:
            return True
        old = bool(settings.every_minutes) and time.monotonic() - self._saved > 60 * settings.every_minutes
        if self.trainer.processes.count == 1:
            return old
        # Clocks differ; synchronise rarely, so that few steps wait.
        return step % 20 == 0 and bool(self.trainer.processes.total(torch.tensor(float(old))) > 0)

    def save(self, step: int, *, best: str | None, ended: str | None = None) -> Path:
        """Write ``RUN/step-N``, link the best checkpoint and remove old ones.

        An existing checkpoint of the same step is not written again; only what its state says about the end of the run
        may change.

        Args:
            step: optimiser steps taken.
            best: name of the best checkpoint.
            ended: limit of `StopConfig` that the run has reached, or None.

        Raises:
            NonFiniteLossError: a loss since the last check was not finite; nothing is written.
        """
        self.watch.check()
        self.mirror.wait()
        folder, processes = self.run / f"step-{step}", self.trainer.processes
        if step == self._last_step:
            if processes.first:
                amend_state(folder, best=best, ended=ended)
                self._link_and_prune(best)
            self.trainer.accelerator.wait_for_everyone()
            return folder
        states = processes.together(random_state)
        optimizer, sharding = bare(self.trainer.optimizer), self.trainer.sharding
        optimizer_state = optimizer.state_dict() if sharding is None else sharding.optimizer_state(optimizer)
        with self.whole(everywhere=False) as (encoder, teacher):
            if processes.first:
                scaler, model = self.trainer.accelerator.scaler, self.model_of(encoder)
                save_checkpoint(
                    folder,
                    encoder=encoder,
                    teacher=teacher,
                    optimizer=optimizer_state,
                    tensors={
                        "random": states,
                        "memory": self._unlearnt_memories(),
                        "scaler": scaler.state_dict() if scaler is not None else {},
                        **{name: module.state_dict() for name, module in self.trainer.along.items()},
                    },
                    state={
                        "step": step,
                        "steps": self.trainer.steps,
                        "processes": processes.count,
                        "best": best,
                        "ended": ended,
                        "data": self.data,
                        "image_sizes": self._image_sizes,
                        "counts": self.counts,
                        "start": self._averaged_with,
                        "base": self._base,
                        "linear_layers": linear_kernel.used_on(self.trainer.accelerator.device),
                        "versions": _versions() | RECIPES.digests([self.config.recipe]),
                    },
                    config=to_record(self.config),
                    earlier=self.earlier.model_dump(mode="json"),
                    model=None if model is encoder else model,
                )
                try_checkpoint_card(folder)
                self._link_and_prune(best)
        self.trainer.accelerator.wait_for_everyone()
        self._saved, self._last_step = time.monotonic(), step
        return folder

    def _link_and_prune(self, best: str | None) -> None:
        point_to_best(self.run, best)
        remove_old_checkpoints(self.run, keep=self.config.checkpoint.keep, best=Path(best) if best else None)
        self.mirror.copy()

    def load(self) -> int:
        """Load the newest checkpoint; return its step. Batches are a function of the seed and the step's number.

        Raises:
            InputError: it is damaged, or from a run of another length or on other data; or the base model is another
                one, but the average, adapters, L2-SP or embedded images depend on it.
        """
        folder = latest_checkpoint(self.run)
        assert folder is not None  # As `open_run` has checked.
        state = read_state(folder)
        # Before the optimiser's state, which a changed loss with a learnt memory would not fit.
        self._check_parts(folder, state.data)
        optimizer, sharding = bare(self.trainer.optimizer), self.trainer.sharding
        with self.whole() as (encoder, teacher):
            tensors = load_checkpoint(
                folder, state, encoder=encoder, teacher=teacher, optimizer=optimizer, averaged=self.original is not None
            )
            if sharding is not None:
                sharding.take_over(encoder, teacher)
                sharding.share_optimizer_state(optimizer)
        if state.steps != self.trainer.steps:
            raise InputError(
                f"{folder}: the run had {counted(state.steps, 'step')} and would now have {self.trainer.steps}; the "
                "data files have changed. Restore the old files, or start a new run from this checkpoint with "
                f"--model {folder}."
            )
        self._check_data(folder, state.data)
        if state.start != self._averaged_with or (self.config.reads_base and state.base != self._base):
            verb = "averages the student with" if self.original else "still reads"
            raise InputError(
                f"{folder}: --model {self.config.model} is not the model that the run started from. The run {verb} the "
                "original; restore it."
            )
        self._base = state.base  # The checkpoint has all that the run needs of it.
        self._image_sizes = state.image_sizes
        self._restore_memories(tensors["memory"])
        for name, module in self.trainer.along.items():
            module.load_state_dict(tensors[name])
        if self.trainer.accelerator.scaler is not None and tensors["scaler"]:
            self.trainer.accelerator.scaler.load_state_dict(tensors["scaler"])
        rank = self.trainer.processes.rank
        if rank < len(tensors["random"]):
            set_random_state(tensors["random"][rank])
        self._last_step = state.step
        if self.trainer.processes.first and not (folder / CARD_NAME).exists():
            try_checkpoint_card(folder)  # A kill came between the checkpoint and its card.
        return state.step

    @contextmanager
    def whole(self, *, everywhere: bool = True) -> Iterator[tuple[Encoder, Teacher | None]]:
        """Yield student and teacher with all of their weights, in every process or only in the first."""
        if self.trainer.sharding is None:
            yield self.trainer.encoder, self.trainer.teacher
        else:
            with self.trainer.sharding.whole(everywhere=everywhere) as models:
                yield models

    def model_of(self, student: Encoder) -> Encoder:
        """Return the model that the run keeps for use: the student, or its average with the model before training."""
        share = self.config.train.average
        if self.original is None or share is None:
            return student
        return average_weights(self.original, student, share=share).to(self.trainer.encoder.device)

    def _memories(self) -> dict[str, dict[str, Memory]]:
        """Return the memories of each stream's losses, by the prefix of their names."""
        replay = self.trainer.replay
        return {"": self.trainer.main.objective.memory, "replay.": replay.objective.memory if replay else {}}

    def _unlearnt_memories(self) -> dict[str, Tensor]:
        """Return the memories that no optimiser changes; the others are in `Trainer.along`."""
        return {
            f"{stream}{name}": value
            for stream, memory in self._memories().items()
            for name, value in tensors_of(memory).items()
            if not isinstance(value, torch.nn.Parameter)
        }

    def _restore_memories(self, saved: Mapping[str, Tensor]) -> None:
        for stream, memory in self._memories().items():
            for name, value in memory.items():
                new = {key: saved.get(f"{stream}{key}", old) for key, old in tensors_of({name: value}).items()}
                memory[name] = dict(zip(value, new.values(), strict=True)) if isinstance(value, dict) else new[name]

    def _changed(self, recorded: dict[str, str]) -> list[str]:
        return [name for name in sorted(recorded.keys() | self.data) if recorded.get(name) != self.data.get(name)]

    def _check_parts(self, folder: Path, recorded: dict[str, str]) -> None:
        if parts := [name for name in self._changed(recorded) if name.endswith(".py")]:
            raise InputError(
                f"{folder}: {' and '.join(parts)} in {PARTS} has changed since this checkpoint. Restore the old file, "
                f"or start a new run from this checkpoint with --model {folder}."
            )

    def _check_data(self, folder: Path, recorded: dict[str, str]) -> None:
        if changed := self._changed(recorded):
            files = " and ".join(map(str, self.config.data_files))
            raise InputError(
                f"{folder}: the training data have changed since this checkpoint in {files}; "
                f"changed: {', '.join(changed)}. Restore the old files, or start a new run from this checkpoint with "
                f"--model {folder}."
            )


def _versions() -> dict[str, str]:
    names = ("degla", "torch", "open_clip_torch", "accelerate")
    return {"python": platform.python_version(), **{name: installed_version(name) for name in names}}


@contextmanager
def restored_state() -> Iterator[None]:
    """Let the block seed generators, set up accelerate and start a process group; restore the caller's own."""
    before, grouped = random_state(), _has_group()
    settings: list[tuple[Any, dict[str, Any]]] = [
        (kind, dict(kind._shared_state)) for kind in (AcceleratorState, GradientState)
    ]
    try:
        yield
        if _has_group() and not grouped:
            # A thread of the process group may still wait for the GIL to free its last tensors, while destroying the
            # group waits for that thread and holds the GIL. Sleeping releases it first.
            time.sleep(0.2)
            dist.destroy_process_group()
    finally:
        set_random_state(before)
        for kind, values in settings:
            kind._reset_state()
            kind._shared_state.update(values)


def _has_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Return the states of the global generators as tensors and plain values, safe to load with ``weights_only``."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = numpy.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, numpy.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the result of `random_state`; generators of missing devices are skipped."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
