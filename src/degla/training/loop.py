"""The method on one screen: pairs → embeddings of student and teacher → objective → step → checkpoint."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from degla.config.plain import to_plain
from degla.config.run import TrainConfig
from degla.errors import DeglaError, InputError
from degla.evaluation import processes as evaluation
from degla.files import write_json
from degla.losses.core import Processes
from degla.losses.core.forms import fit_to_model
from degla.losses.core.objective import Objective
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.model.runs import BEST_NAME, latest_checkpoint, step_of
from degla.model.teacher import Teacher
from degla.training.fingerprint import data_counts, data_digests
from degla.training.finite import NonFiniteLossError
from degla.training.interrupt import StopRequest
from degla.training.metrics import Metrics
from degla.training.optim import build_optimizer
from degla.training.pairs import open_pairs, read_pairs
from degla.training.precision import choose_precision
from degla.training.randomness import seed_everything
from degla.training.rehearsal import (
    add_rehearsal,
    open_rehearsal,
    read_rehearsal,
    rehearsal_batches,
    rehearsal_digests,
)  # fmt: skip
from degla.training.run_folder import open_run
from degla.training.runstate import Position, RunState
from degla.training.sharding import Sharding
from degla.training.step import Trainer
from degla.training.trainable import choose_trainable
from degla.training.validation import Validation

log = logging.getLogger("degla.train")


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        folder: the last checkpoint.
        step: steps taken in all.
        finished: False where a signal stopped it before its end.
        values: what the last step logged.
        ended: why it was finished before its last step, by the limits of `StopConfig`; None where it was not.
        best: the best checkpoint by the evaluations; None without them, or where none was within the budget.
    """

    folder: Path
    step: int
    finished: bool
    values: dict[str, float]
    ended: str | None = None
    best: Path | None = None


def train(config: TrainConfig, *, resume: bool = False) -> TrainResult:
    """Fine-tune a model; the run's folder holds configuration, metrics and checkpoints.

    Args:
        config: a recipe with its data and folder filled in.
        resume: go on from the newest checkpoint in `config.out`, exactly as if it had never stopped.

    Raises:
        InputError: something given is wrong, or another process trains the run; nothing was trained.
        DeglaError: the loss stopped being finite (the batch's ids are in `nonfinite.json`), or the disk is full.
    """
    config.check()
    assert config.out is not None
    seed_everything(config.train.seed)
    accelerator = open_accelerator(config)
    processes = evaluation.EvaluationProcesses(Processes.current().rank, Processes.current().count)
    with open_run(config.out, resume=resume, processes=processes):
        return _train(config, config.out, accelerator, resume=resume)


def _train(config: TrainConfig, run: Path, accelerator: Accelerator, *, resume: bool) -> TrainResult:
    processes = Processes.current()
    # Data come before the model: a wrong file is told before anything is fetched.
    source, second = read_pairs(config, processes=processes), read_rehearsal(config, processes=processes)
    validation = Validation(
        config.validation, config.stop, run=run, label=config.recipe, seed=config.train.seed,
        processes=evaluation.EvaluationProcesses(processes.rank, processes.count),
    )  # fmt: skip
    validation.read()
    encoder = load_encoder(config.model, device=accelerator.device, seed=config.train.seed)
    pairs = open_pairs(config, encoder=encoder, processes=processes, source=source)
    rehearsed = open_rehearsal(config, encoder=encoder, processes=processes, source=second)
    steps = config.train.steps or config.train.epochs * len(pairs.plan)
    newest = latest_checkpoint(run) if resume else None
    before = validation.begin(encoder, start=None if newest is None else step_of(newest))
    trainer = build_trainer(config, accelerator, encoder, processes, rules=len(pairs.dataset.rules), steps=steps)
    add_rehearsal(trainer, rehearsed)
    digests = data_digests(pairs) | rehearsal_digests(rehearsed)
    state = RunState(run, config=config, trainer=trainer, data=digests, counts=data_counts(pairs))
    position = state.load() if resume else Position()
    start = position.step

    if accelerator.is_main_process:
        write_json(run / "config.json", to_plain(config))
    accelerator.init_trackers("degla", config=_flat(to_plain(config)))
    values: dict[str, Any] = {}
    with (
        _told(run, rank=processes.rank, steps_per_epoch=len(pairs.plan)),
        StopRequest() as stop,
        Metrics(
            run,
            start=start,
            steps=steps,
            every_steps=config.tracking.every_steps,
            pairs_per_step=config.train.batch_size,
            active=accelerator.is_main_process,
            tracker=accelerator.log,
            progress=config.tracking.progress,
        ) as metrics,
    ):
        metrics.write(0, before)
        again = rehearsal_batches(rehearsed, start=start, device=accelerator.device)
        while position.step < steps and not validation.ended and not stop.agreed(processes):
            for batch in pairs.batches(position.epoch, start=position.batch, device=accelerator.device):
                values = trainer.step(batch, number=position.step, rehearsed=next(again))
                position = position.after_batch()
                ends, passed = position.step == steps, position.batch == len(pairs.plan)
                scored = validation.due(position.step, end=ends or passed)
                if scored or metrics.due(position.step):
                    trainer.watch.look()
                metrics.record(position.step, epoch=position.epoch, values=values)
                if scored:
                    with trainer.whole() as (student, _):
                        metrics.write(position.step, validation.score(trainer.kept(student), position.step))
                if ends or validation.ended or stop.agreed(processes, position.step):
                    break
                if not passed and (state.due(position.step) or scored):
                    state.save(position, best=validation.best)
            else:
                position = position.after_epoch()
                state.save(position, best=validation.best)
        ended = validation.ended if position.step < steps else None
        if ended and position.step > start:
            metrics.write(position.step, {"ended": ended})
        folder = state.save(position, best=validation.best, ended=validation.ended)
    if processes.count > 1:
        # A thread of the process group may still wait for Python's lock to drop its last tensors; the group's end waits
        # for that thread and holds the lock. Sleeping gives the lock away first.
        time.sleep(0.2)
    accelerator.end_training()
    finished = position.step == steps or ended is not None
    best = run / validation.best if validation.best else None
    if accelerator.is_main_process:
        _tell_end(run, position.step, steps=steps, ended=ended, validation=validation, stood=position.step == start)
    if not finished:
        log.warning("stopped by %s after step %d of %d; go on with: degla train --resume %s", stop.name,
                    position.step, steps, run)  # fmt: skip
    last = {name: float(value) for name, value in values.items()}
    return TrainResult(folder, position.step, finished, last, ended=ended, best=best)


def open_accelerator(config: TrainConfig) -> Accelerator:
    """accelerate's view of devices, precision and trackers, as the configuration asks.

    Raises:
        InputError: a precision that the device has not; an unknown tracker, or one that is not installed.
        DeglaError: the processes were started in a way that accelerate does not see.
    """
    # Left to itself, accelerate takes several processes without a GPU for as many runs of one process.
    on_cpu = not torch.cuda.is_available() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    device = Accelerator(cpu=on_cpu).device
    precision = choose_precision(config.train.precision, device=device)
    if config.train.strategy == "fsdp" and Processes.current().count == 1:
        log.warning("--train.strategy fsdp does nothing in one process; torchrun starts several.")
    # accelerate keeps one global state and refuses a second run of another precision in the same process.
    AcceleratorState._reset_state()
    wanted = list(config.tracking.trackers)
    try:
        accelerator = Accelerator(
            cpu=on_cpu, mixed_precision=precision, log_with=wanted or None, project_dir=str(config.out)
        )
    except ValueError as error:
        raise InputError(f"--tracking.trackers {' '.join(wanted)}: {error}") from None
    if accelerator.num_processes != Processes.current().count:
        raise DeglaError(
            f"{Processes.current().count} processes were started, but accelerate works with "
            f"{accelerator.num_processes}; start them with torchrun or accelerate launch."
        )
    missing = set(wanted) - {tracker if isinstance(tracker, str) else tracker.value for tracker in accelerator.log_with}
    if missing:
        raise InputError(f"--tracking.trackers: {', '.join(sorted(missing))} is not installed here.")
    return accelerator


def build_trainer(
    config: TrainConfig,
    accelerator: Accelerator,
    encoder: Encoder,
    processes: Processes,
    *,
    rules: int,
    steps: int,
) -> Trainer:
    """Student, teacher, objective and optimiser of a run.

    Args:
        config: the run's.
        accelerator: made by `open_accelerator`.
        encoder: the student; what is not trained is frozen here.
        processes: that share each batch.
        rules: number of rules whose negatives can occur.
        steps: length of the run.
    """
    biased = encoder.bias is not None
    objective = Objective(fit_to_model(config.objective, biased=biased, model=encoder.name), rules=rules)
    limit = math.log(config.optim.max_scale)
    if biased:
        limit = max(limit, float(encoder.clip.logit_scale.detach()))
    averaging = config.train.average not in (None, 1)
    # In main memory: it is read only for checkpoints and evaluations.
    start = copy.deepcopy(encoder).cpu() if averaging else None
    choose_trainable(encoder, config)
    teacher = Teacher(encoder, config.teacher) if objective.needs or config.rehearsal.needs_teacher else None
    encoder.train()
    encoder.precision = accelerator.mixed_precision
    if config.train.gradient_checkpointing:
        encoder.checkpoint_gradients()
    if config.train.compile:
        encoder.compile()
        if teacher is not None:
            teacher.encoder.compile()
    sharding = None
    if config.train.strategy == "fsdp" and processes.count > 1:
        sharding = Sharding(encoder, teacher, config=config, processes=processes)
    optimizer = build_optimizer(encoder, config.optim)
    # Only what is not for evaluation alone is wrapped in DDP.
    student = accelerator.prepare_model(encoder, evaluation_mode=sharding is not None)
    optimizer = accelerator.prepare_optimizer(optimizer)
    # A similar image may be the picture of another row, whatever the order of the rows.
    if config.data.duplicates == "mask" or (config.data.neighbours_per_pair and config.data.duplicates == "avoid"):
        for name, loss in objective.active.items():
            if hasattr(loss, "mask_same_image"):
                objective.active[name] = replace(loss, mask_same_image=True)  # type: ignore[type-var]
    return Trainer(
        config=config, accelerator=accelerator, encoder=encoder, student=student, teacher=teacher,
        objective=objective, optimizer=optimizer, processes=processes, steps=steps, sharding=sharding, start=start,
        log_scale_limit=limit,
    )  # fmt: skip


def _tell_end(run: Path, step: int, *, steps: int, ended: str | None, validation: Validation, stood: bool) -> None:
    """Say why a run ended early, and which checkpoint is the best."""
    if ended is not None:
        log.warning(
            "%s step %d of %d: %s. To go on, give that flag a higher value: degla train --resume %s ...",
            "the run does not go on after" if stood else "ended early, after", step, steps, ended, run,
        )  # fmt: skip
    if validation.best is not None:
        log.info("the best checkpoint is %s (%s)", run / BEST_NAME, validation.best)
        if not validation.improved:
            log.warning("but by %s it is no better than the model before training", validation.config.score)
    elif ended is not None:
        log.warning("no checkpoint is within the limits; %s is the last one", run / f"step-{step}")


@contextlib.contextmanager
def _told(run: Path, *, rank: int, steps_per_epoch: int) -> Iterator[None]:
    """Write down the batch of a loss that was not finite, and say what to do."""
    try:
        yield
    except NonFiniteLossError as error:
        note = run / ("nonfinite.json" if rank == 0 else f"nonfinite-{rank}.json")
        found = {"step": error.step, "epoch": (error.step - 1) // steps_per_epoch, "caption_ids": list(error.ids)}
        write_json(note, found)
        newest = latest_checkpoint(run)
        raise DeglaError(
            f"{error}; it changed no checkpoint. The captions of its batch are listed in {note}. "
            + (f"The last checkpoint is {newest}. " if newest else "")
            + "A lower --optim.lr, --optim.clip-norm 1 or --train.precision fp32 often helps."
        ) from None


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values if isinstance(values, int | float | str | bool) else str(values)}
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}.{name}" if prefix else name)
    return flat
