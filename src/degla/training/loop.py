"""The training loop around the steps: data, model, resuming, validation, limits, signals and metrics."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from degla.config.fields import flat, path_fields, to_plain, to_record
from degla.config.run import TrainConfig
from degla.data.batches import Batch
from degla.data.dataset import data_counts, data_digests
from degla.data.plan import BatchPlan, rows_left_out
from degla.errors import DeglaError, InputError
from degla.evaluation.overlap import RELATIVE
from degla.evaluation.trainings import Trainings, trainings_of
from degla.files import write_json
from degla.locks import lock
from degla.losses.core import Processes
from degla.model import fast_paths, linear_kernel
from degla.model.address import RunMirror, bring_here, folder_of_run
from degla.model.encoder import float32_by_default
from degla.model.integrity import read_state
from degla.model.load import holds_model, load_encoder
from degla.model.runs import (
    BEST_NAME,
    checkpoints,
    how_to_restart,
    latest_checkpoint,
    put_right,
    require_checkpoint,
    runs_within,
    step_of,
)
from degla.model.trained_along import decoder_digest
from degla.pages.words import counted
from degla.passwords import without_passwords
from degla.processes import ProcessGroup, reported_once
from degla.remote import address_of, display_path, forget
from degla.stopping import SIGNALS, Interruption
from degla.training.build import build_trainer, open_accelerator
from degla.training.metrics import FiniteWatch, Metrics, explain_nonfinite
from degla.training.pairs import Pairs, open_pairs
from degla.training.rows import PairSource, extra_data, image_sizes, read_pairs
from degla.training.runstate import RunState, restored_state, seed_everything
from degla.training.validation import Validation

log = logging.getLogger("degla.train")

_STEPS_BETWEEN_QUESTIONS = 10
_STOPPING = "stopping after this step, with a checkpoint. Ctrl-C again: stop at once, without one."


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        folder: the last checkpoint.
        step: total number of steps.
        stopped: name of the signal that stopped the run before its end, or "".
        values: values logged by the last step.
        ended: the limit of `StopConfig` that ended the run early, or None.
        best: the best checkpoint by validation; None without validation, or if no checkpoint was within the budget.
    """

    folder: Path
    step: int
    stopped: str
    values: dict[str, float]
    ended: str | None = None
    best: Path | None = None

    @property
    def finished(self) -> bool:
        """Whether the run reached its end, or a limit of `StopConfig`."""
        return not self.stopped


@torch.inference_mode(False)  # A notebook may have disabled gradients.
@restored_state()
@float32_by_default()
def train(config: TrainConfig, *, resume: bool = False) -> TrainResult:
    """Fine-tune a model; the run's folder holds configuration, metrics and checkpoints.

    Args:
        config: a recipe with its data and folder filled in.
        resume: resume from the newest checkpoint in `config.out`, exactly where it stopped.

    Raises:
        InputError: an input is wrong, or another process trains the run; nothing was trained.
        DeglaError: a loss was not finite (`nonfinite.json` has the ids of the batch), the disk is full, or a process
            that loads images was killed.
    """
    config.check()
    assert config.out is not None
    seed_everything(config.train.seed)
    accelerator = open_accelerator(config)
    if torch.is_autocast_enabled(accelerator.device.type):
        # It caches its casts of weights until its outermost block ends.
        raise InputError(
            "cannot train inside torch.autocast, which would use the weights of the first step in every step. Leave "
            "that block, and set --train.precision."
        )
    processes = Processes.current()
    run = bring_here(config.out) if resume else folder_of_run(config.out)
    with (
        reported_once(),
        open_run(run, out=config.out, resume=resume, processes=processes),
        RunMirror(config.out, active=processes.first, resume=resume, keep=config.checkpoint.keep) as mirror,
    ):
        if resume:
            _require_same_checkpoint(config.out, mirror, processes)
        try:
            return _train(config, run, accelerator, resume=resume, mirror=mirror)
        except RuntimeError as error:
            # torch raises it in the main thread, wherever that is.
            if not str(error).startswith("DataLoader worker"):
                raise
            cause = str(error).strip(" .")
            raise DeglaError(
                f"{display_path(config.out)}: a process that loads images ended ({cause}). If memory or shared "
                f"memory (/dev/shm) ran out, use fewer --data.workers, and {how_to_restart(run, out=config.out)}."
            ) from None


@contextmanager
def _explained_relative_paths(config: TrainConfig, *, active: bool) -> Iterator[None]:
    """If input is wrong inside the ``with`` block and a relative path does not exist, say what such paths start at."""
    try:
        yield
    except InputError as error:
        paths = [*config.data_files, *(stream.data.image_folder for stream in config.streams)]
        if not active or all(path.is_absolute() or path.exists() or address_of(path) for path in paths):
            raise
        raise InputError(f"{error} {RELATIVE}") from None


def _train(config: TrainConfig, run: Path, accelerator: Accelerator, *, resume: bool, mirror: RunMirror) -> TrainResult:
    processes, seed = Processes.current(), config.train.seed
    # Paths, the model's name and workers may differ, machine by machine.
    free = {*path_fields(), "model", "data.workers", "replay.data.workers"}
    fields = flat(to_plain(config)).items()
    settings = {f"--{name.replace('_', '-')}": value for name, value in fields if name not in free}
    processes.require_same(lambda: settings, remedy="Start every process with the same flags.")
    # Data come before the model, so that a wrong file is reported before anything is downloaded.
    with _explained_relative_paths(config, active=resume):
        sources = [read_pairs(stream, seed=seed, processes=processes) for stream in config.streams]
    for stream, source in zip(config.streams, sources, strict=True):  # The plan refuses too few pairs.
        size = stream.batch_size // processes.count
        BatchPlan(range(len(source.rows)), size, processes.count, batch_flag=stream.batch_flag)
        if left := rows_left_out(len(source.rows), stream.batch_size, steps=config.train.steps, flag=stream.batch_flag):
            log.warning("%s", left)
    data = _digests(config, sources)
    processes.require_same(  # The parts of a batch would not fit.
        lambda: {f"training data: the digest of {name}": digest for name, digest in data.items()},
        remedy=f"Copy the same files to every machine: {', '.join(map(str, config.data_files))}, images and own parts.",
    )
    validation = Validation(
        config.validation, config.stop, run=run, label=config.recipe, seed=seed, processes=processes
    )
    newest = latest_checkpoint(run) if resume else None
    recorded = None if newest is None else Trainings.read(newest)
    validation.read(trained=config, rows=[source.rows for source in sources], earlier=recorded)
    _settle_linear_layers(newest, accelerator, processes)
    encoder = load_encoder(config.model, device=accelerator.device, seed=seed)
    # Before anything is added to the model.
    base = encoder.fingerprint if newest is None or config.reads_base else None
    processes.require_same(
        lambda: {"the model's fingerprint": base}, remedy=f"Copy the same model to every machine: {config.model}."
    )
    fast_paths.tell(encoder, training=True)
    pairs, *replays = [
        open_pairs(config, encoder=encoder, processes=processes, source=source, stream=stream)
        for stream, source in zip(config.streams, sources, strict=True)
    ]
    steps = config.train.steps or config.train.epochs * len(pairs.plan)
    validation.warn_if_never_due(steps)
    # The average with the student is made of it. In CPU memory: it is read only for checkpoints and evaluations.
    original = copy.deepcopy(encoder).cpu() if config.train.average not in (None, 1) else None
    earlier = recorded or processes.from_first(lambda: trainings_of(config.model))
    sizes = {} if newest else processes.from_first(lambda: image_sizes(config, [source.rows for source in sources]))
    rules, *others = (len(each.dataset.rules) for each in (pairs, *replays))
    trainer = build_trainer(
        config,
        accelerator,
        encoder,
        processes,
        steps=steps,
        rules=rules,
        replay_rules=max(others, default=1),
        resumes=resume,
    )
    watch, counts = FiniteWatch(), data_counts(pairs.dataset)
    state = RunState(
        run, config=config, trainer=trainer, watch=watch, original=original, base=base, earlier=earlier, data=data,
        image_sizes=sizes, counts=counts, mirror=mirror,
    )  # fmt: skip
    with state.whole() as (student, _):  # After all that may refuse the model: an evaluation can take hours.
        before = validation.begin(student, resumed_from=None if newest is None else step_of(newest))
    if processes.rank:  # Otherwise dropout and stochastic depth would treat the rows of all processes alike.
        seed_everything(seed + processes.rank)
    start = step = state.load() if resume else 0
    if resume and step < steps and not validation.ended and processes.first:
        log.info("resumes after step %d of %d", step, steps)
    per_epoch = len(pairs.plan)
    if not resume and processes.first:
        (run / "metrics.jsonl").unlink(missing_ok=True)  # Of a run that ended before its first checkpoint.
    # A tracker opens its file at once, which would stay empty.
    _record_configuration(config, run, accelerator, track=not resume or (step < steps and not validation.ended))
    values: dict[str, Any] = {}
    with (
        explain_nonfinite(run, processes=processes, steps_per_epoch=per_epoch),
        StopRequest(notice=_notice(processes)) as stop,
        _metrics(config, run, accelerator, start=start, steps=steps) as metrics,
        _batches(config, pairs, replays, start=start, steps=steps, device=accelerator.device) as (batches, replayed),
    ):
        metrics.write(0, before)
        while step < steps and not validation.ended and not (stopped := stop.agreed(processes)):
            for batch in islice(batches, per_epoch - step % per_epoch):
                again = next(replayed)
                values = trainer.step(batch, step=step, replayed=again)
                epoch, step = step // per_epoch, step + 1
                ids = tuple(chain.from_iterable(each.ids for each in (batch, again) if each is not None))
                watch.note(step, loss=torch.as_tensor(values["loss"]), ids=ids)
                ends, passed = step == steps, step % per_epoch == 0
                scored = validation.due(step, end=ends or passed)
                if scored or metrics.due(step):
                    watch.check()
                metrics.record(step, epoch=epoch, values=values)
                if scored:
                    with state.whole() as (student, _):
                        metrics.write(step, validation.score(state.model_of(student), step))
                if ends or validation.ended or stop.agreed(processes, step):
                    break
                if not passed and (state.due(step) or scored):
                    state.save(step, best=validation.best)
            else:
                state.save(step, best=validation.best)
        ended = validation.ended if step < steps else None
        if ended and step > start:
            metrics.write(step, {"ended": ended})
        folder = state.save(step, best=validation.best, ended=validation.ended)
    for tracker in accelerator.trackers:
        tracker.finish()
    if step == steps or ended is not None:
        stopped = ""  # A signal at the end stops nothing.
    if processes.first:
        out = display_path(config.out or run)
        _tell_end(out, run, step, start=start, steps=steps, ended=ended, stopped=stopped, validation=validation)
    last = {name: float(value) for name, value in values.items()}
    best = run / validation.best if validation.best else None
    return TrainResult(folder, step, stopped, values=last, ended=ended, best=best)


def _settle_linear_layers(newest: Path | None, accelerator: Accelerator, processes: Processes) -> None:
    """Choose how the CPU computes linear layers: as the run did so far, or as all measured; the ways round differently.

    Args:
        newest: the checkpoint that the run resumes from; None for a new run.
        accelerator: determines where the run is trained.
        processes: processes of the run.
    """
    if accelerator.device.type != "cpu":
        return
    recorded = None if newest is None else read_state(newest).linear_layers
    by_kernel = linear_kernel.measured() if recorded is None else recorded == linear_kernel.NAME
    agreed = processes.total(torch.tensor(float(by_kernel and linear_kernel.has_kernel())))
    linear_kernel.settle(bool(agreed == processes.count))


@contextmanager
def _batches(
    config: TrainConfig, pairs: Pairs, replays: list[Pairs], *, start: int, steps: int, device: torch.device
) -> Iterator[tuple[Iterator[Batch | None], Iterator[Batch | None]]]:
    """Yield the batches from step number `start` on, and the replayed ones; an entry is None where a step has none."""
    with ExitStack() as streams:

        def endless(each: Pairs, turn: int) -> Iterator[Batch | None]:
            turns = turn if replays and config.replay.alternate else None
            batches = each.endless(start=start, device=device, steps=steps - start, turn=turns)
            return streams.enter_context(closing(batches))

        yield endless(pairs, 0), endless(replays[0], 1) if replays else repeat(None)


def _record_configuration(config: TrainConfig, run: Path, accelerator: Accelerator, *, track: bool) -> None:
    """Write the configuration to the run's folder and, with `track`, to the trackers, which it starts."""
    if Processes.current().first:
        write_json(run / "config.json", to_record(config))
    fields = flat(to_plain(config)).items()
    shown = {name: value if isinstance(value, int | float) else without_passwords(str(value)) for name, value in fields}
    if track:
        accelerator.init_trackers("degla", config=shown)


def _metrics(config: TrainConfig, run: Path, accelerator: Accelerator, *, start: int, steps: int) -> Metrics:
    return Metrics(
        run, start=start, steps=steps, every_steps=config.tracking.every_steps, tracker=accelerator.log,
        pairs_per_step=config.train.batch_size, active=Processes.current().first, progress=config.tracking.progress,
    )  # fmt: skip


def _digests(config: TrainConfig, sources: Sequence[PairSource]) -> dict[str, str]:
    """Return digests of all columns and classes trained on ("replay " before replayed ones), of a decoder, and of the
    user's own files."""
    digests = config.own_parts
    for prefix, stream, source in zip(("", "replay "), config.streams, sources, strict=False):
        near = source.neighbours
        own = data_digests(source.rows, source.extras, None if near is None else near.file)
        if classes := extra_data(stream.data, stream.reads).classes:
            own["classes"] = hashlib.sha256("\n".join(classes).encode()).hexdigest()[:32]
        digests |= {f"{prefix}{name}": value for name, value in own.items()}
    if "reconstruction" in config.pairs.reads and config.data.decoder is not None:
        digests["decoder"] = decoder_digest(config.data.decoder)
    return digests


def _require_same_checkpoint(out: Path, mirror: RunMirror, processes: ProcessGroup) -> None:
    """Refuse to resume from different checkpoints: a kill may leave the newest on one machine, not yet at the address.

    If it is on that of the first process, it is copied to the address, and the others fetch it.

    Args:
        out: the run as the user named it.
        mirror: copies checkpoints of the first process.
        processes: processes of the run.

    Raises:
        InputError: the processes have different newest checkpoints.
    """

    def newest() -> dict[str, str]:
        folder = latest_checkpoint(folder_of_run(out))
        return {"the newest checkpoint": "none" if folder is None else folder.name}

    def copy() -> None:
        mirror.copy()
        mirror.wait()

    def bring() -> None:
        forget()
        bring_here(out)

    first, *others = processes.together(newest)
    if address_of(out) is not None and any(other != first for other in others):
        processes.from_first(copy)
        processes.together(bring)
    processes.require_same(
        newest,
        remedy=f"The run is {display_path(out)}. If --out is an address, make the machine with the newest one the "
        "first (--node-rank 0); it copies it there. A folder must be on a disk that all machines share.",
    )


def _tell_end(
    out: str, run: Path, step: int, *, start: int, steps: int, ended: str | None, stopped: str, validation: Validation
) -> None:  # fmt: skip
    """Log why a run ended early, and which checkpoint is the best.

    Args:
        out: the run as the user named it.
        run: folder of the run.
        step: number of the last step.
        start: steps taken before this call.
        steps: steps of the whole run.
        ended: limit that ended the run.
        stopped: signal that stopped the run, or "".
        validation: validation after its last evaluation.
    """
    if ended is not None:
        log.warning(
            "%s: %s step %d of %d: %s. To continue, raise that limit and %s.",
            out, "does not continue after" if step == start else "ended early, after", step, steps, ended,
            how_to_restart(run, out=out),
        )  # fmt: skip
    if validation.best is not None:
        log.info("the best checkpoint is %s (%s)", run / BEST_NAME, validation.best)
        if not validation.improved:
            score = validation.config.score
            log.warning("%s: its %s is no better than before training", run / BEST_NAME, score)
    elif ended is not None:
        log.warning("no checkpoint is within the limits; the last one is %s", run / f"step-{step}")
    if stopped:
        restart = how_to_restart(run, out=out)
        log.warning("%s: stopped by %s after step %d of %d; %s", out, stopped, step, steps, restart)


def _notice(processes: Processes) -> str:
    """Return what the first Ctrl-C does. A second one to torchrun asks its processes once more, and ends nothing."""
    if processes.count == 1:
        return _STOPPING
    return f"stopping within {_STEPS_BETWEEN_QUESTIONS} steps, with a checkpoint." if processes.first else ""


class StopRequest(Interruption):
    """An interruption that several processes agree on."""

    def agreed(self, processes: Processes, step: int = 0) -> str:
        """Return the name of a signal that any process received, or ""; the same on all processes.

        Several processes exchange this only every few steps, because it makes them wait for the device.
        """
        if processes.count == 1:
            return self.name or ""
        if step % _STEPS_BETWEEN_QUESTIONS:
            return ""
        names = [number.name for number in SIGNALS]
        received = processes.total(torch.tensor([float(self.name == name) for name in names])).tolist()
        return next((name for name, count in zip(names, received, strict=True) if count), "")


@contextmanager
def open_run(run: Path, *, out: Path, resume: bool, processes: ProcessGroup) -> Iterator[None]:
    """Lock a run's folder for the block; if several processes train the run, the first holds the lock.

    Args:
        run: folder of the run, created if missing.
        out: the run as the user named it.
        resume: if true, the folder must have a complete checkpoint; otherwise it must have none.
        processes: processes of the run.

    Raises:
        InputError: another process trains the run, the folder cannot be written, or it does not fit `resume`.
        DeglaError: the disk is full.
    """
    with ExitStack() as stack:

        def take() -> None:
            if resume and not run.is_dir():
                raise InputError(f"{run}: no such run folder.")
            stack.enter_context(lock(run, remedy="Wait for it, stop it, or choose another --out."))
            for folder, other in put_right(run):
                raise InputError(f"{folder}: not a complete checkpoint, but contains {other}. Move it away.")
            if resume:
                require_checkpoint(run, out=out)
            else:
                check_new(out)

        processes.from_first(take)
        yield


def check_new(out: Path) -> None:
    """Raise an error if `out` already holds a run, or a model, which would be loaded instead of the run."""
    if checkpoints(folder_of_run(out)):
        raise InputError(
            f"{display_path(out)}: already holds a run. Use --resume {display_path(out)}, or choose another --out."
        )
    if holds_model(out):
        why = "holds a model, which every command would read instead of the run"
        raise InputError(f"{out}: {why}. Choose another --out.")
    if inner := runs_within(folder_of_run(out)):
        raise InputError(
            f"{display_path(out)}: already holds {counted(len(inner), 'other run')} ({inner[0]}). Choose another --out."
        )
