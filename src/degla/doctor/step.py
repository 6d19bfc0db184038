"""Memory and speed of a training step.

Memory is computed where possible and otherwise measured on a few pairs. Speed is measured for data loading, for a step,
and for both together, as the time that a step waits for its batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat

import torch
from torch import Tensor

from degla.allowance import main_memory, usable_cores
from degla.data.batches import Batch, BatchPart
from degla.data.loader import choose_workers
from degla.doctor import Finding
from degla.errors import DeglaError
from degla.losses.core import Processes
from degla.model.encoder import Encoder
from degla.pages.words import counted
from degla.training.pairs import Pairs
from degla.training.step import Stream, Trainer

_IDLE = 0.05
"""Share of the time that a step may wait for data without a warning."""

_RESERVE = 1.2
"""Ratio of the decoding rate that workers should reach to the rate of the steps."""


def count_parameters(encoder: Encoder) -> tuple[int, int]:
    """Return the number of a model's parameters, and of its trained parameters."""
    sizes = [(value.numel(), value.requires_grad) for value in encoder.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


def weights_of(trainer: Trainer) -> dict[int, int]:
    """Return the number of values of each tensor of student and teacher, which may share some, by its address."""
    models = [trainer.encoder, *([] if trainer.teacher is None else [trainer.teacher.encoder])]
    return {value.data_ptr(): value.numel() for model in models for value in model.parameters()}


def estimate_memory(trainer: Trainer, stream: Stream, batch: Batch) -> tuple[int, int]:
    """Return the bytes that any batch needs, and the bytes per pair that is embedded with a graph.

    The former are weights, gradients, Adam's two moments, the teacher, the anchor of L2-SP, copies of the weights in
    half precision, what the texts of classes take and, on a CPU, the initial weights of a run that averages. The latter
    are the tensors saved for the backward pass, each counted once, measured on `batch` of `stream` without those that
    half of it has as well.
    """
    count, trained = count_parameters(trainer.encoder)
    weights = weights_of(trainer)
    copies = trained if trainer.l2_sp is not None else 0
    if trainer.config.train.average not in (None, 1) and trainer.encoder.device.type == "cpu":
        copies += count
    fixed = 4 * (sum(weights.values()) + 3 * trained + copies)
    if trainer.accelerator.mixed_precision != "no":
        fixed += 2 * count

    def kept_of(part: BatchPart) -> int:
        storages: dict[int, int] = {}

        def keep(value: Tensor) -> Tensor:
            storage = value.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            texts = part.texts if stream.objective.reads_texts else None
            rows = trainer.student(part.image, texts, **stream.objective.outputs)
        del rows
        return sum(storages.values())

    (part,), half = batch.parts(len(batch)), len(batch) // 2
    kept = kept_of(part)
    if "classes" in batch.extra:
        extra = {name: value for name, value in batch.extra.items() if name != "classes"}
        batch = replace(batch, trees=(), caption_trees=(), extra=extra)
        without = kept_of(next(batch.parts(len(batch))))
        fixed, kept = fixed + kept - without, without
    if not half:
        return fixed, kept
    first = next(replace(batch, trees=(), caption_trees=()).parts(half))
    return fixed, (kept - kept_of(first)) // (len(batch) - half)


def available_memory(device: torch.device, *, held: int) -> int:
    """Return the bytes that weights and steps can have on the GPU or in main memory, within the limit of a container.

    Args:
        device: where the weights are.
        held: bytes of the weights, which `estimate_memory` counts: they are in memory already.
    """
    if device.type == "cuda":  # What is reserved includes the weights.
        return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)
    import psutil

    libraries = int(psutil.Process().memory_info().rss) - held
    free, most = int(psutil.virtual_memory().available) + held, main_memory()
    return min(free, most - libraries) if most else free


def examine_speed(
    trainer: Trainer, pairs: Pairs, replay: Pairs | None = None, *, workers: int, seconds: float, auto: bool = False
) -> Finding:
    """Measure data loading, a step, and both together as in training.

    Args:
        trainer: takes the steps.
        pairs: data of the steps.
        replay: data of the replayed pairs, if any, with the workers that training would use.
        workers: decoding processes that training would use.
        seconds: duration of each measurement: at least one batch, and at most about three times as long.
        auto: whether the number of workers was chosen here, for the message.

    Raises:
        DeglaError: the loss of the first step is not finite.
    """
    device, size = trainer.encoder.device, trainer.config.train.batch_size
    data = size / _seconds_of_data(replace(pairs, workers=0), device, seconds=seconds / 2)
    step, waiting = _seconds_of_steps(trainer, replace(pairs, workers=workers), replay, seconds=seconds)
    share = waiting / (step + waiting)
    values: dict[str, float | int | str] = {
        "data_pairs_per_second": data, "step_pairs_per_second": size / step, "batch_size": size, "workers": workers,
        "waiting_share": share,
    }  # fmt: skip
    batches = f"batches of {size}"
    if replay is not None and trainer.config.replayed is not None:
        values["replay_batch_size"] = trainer.config.replayed.batch_size
        with_them = "alternating with" if trainer.config.replay.alternate else "each with"
        batches += f", {with_them} {counted(trainer.config.replayed.batch_size, 'replayed pair')}"
    text = (
        f"one process decodes {data:.0f} pairs/s; a step processes {size / step:.1f} pairs/s ({batches}) and, with "
        f"--data.workers {'auto, here ' if auto else ''}{workers}, waits {share:.1%} of the time for data"
    )
    if share <= _IDLE:
        return Finding("speed", "ok", text + ". The step is the bottleneck.", values)
    if device.type == "cpu":
        # Workers and step share the CPU, so more workers gain nothing.
        spare = not workers and choose_workers("auto", on_gpu=False)
        beside = "--data.workers 1 to decode in parallel, and " if spare else ""
        return Finding("speed", "warning", f"{text}. Use {beside}degla pack to decode faster.", values)
    cores = usable_cores()
    enough = math.ceil(_RESERVE * size / step / data)
    if enough > cores:
        advice = f"Data loading is the bottleneck. Use --data.workers {cores} and degla pack."
        return Finding("speed", "warning", f"{text}. {advice}", values)
    return Finding("speed", "warning", f"{text}. Use --data.workers {enough} to avoid this.", values)


def _seconds_of_data(pairs: Pairs, device: torch.device, *, seconds: float) -> float:
    """Measure the seconds to load a batch while nothing else runs."""
    batches = pairs.endless(start=0, device=device)
    next(batches)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or count < 1:
        next(batches)
        count += 1
    return (time.perf_counter() - started) / count


def _seconds_of_steps(trainer: Trainer, pairs: Pairs, replay: Pairs | None, *, seconds: float) -> tuple[float, float]:
    """Measure the mean seconds of a step once its batches are loaded, and the mean seconds that it waits for them."""
    device = trainer.encoder.device
    alternate = replay is not None and trainer.config.replay.alternate
    turns, kinds = ((0, 1), 2) if alternate else ((None, None), 1)
    batches = pairs.endless(start=0, device=device, turn=turns[0])
    again: Iterator[Batch | None]
    again = repeat(None) if replay is None else replay.endless(start=0, device=device, turn=turns[1])
    first = float(trainer.step(next(batches), step=0, replayed=next(again))["loss"])
    if not math.isfinite(first):
        remedy = "Check the model's weights, or try --train.precision fp32."
        raise DeglaError(f"the loss of the first step is {first}. {remedy}")
    # The batches that workers prefetched must be used up before the wait reflects their speed.
    ahead = kinds * 2 * max(pairs.workers, replay.workers if replay is not None else 0)
    started, waiting, count = time.perf_counter(), 0.0, 0

    def goes_on() -> bool:
        spent = time.perf_counter() - started
        return spent < seconds or count < 1 or bool(count % kinds) or (count <= ahead and spent < 3 * seconds)

    while Processes.current().from_first(goes_on):  # Of several, each waits in a step for the gradients of all.
        before = time.perf_counter()
        batch, second = next(batches), next(again)
        waiting += time.perf_counter() - before
        # Reading the loss synchronises with the device, so that the time is that of this step.
        float(trainer.step(batch, step=1 + count % kinds, replayed=second)["loss"])
        count += 1
    whole = time.perf_counter() - started
    return (whole - waiting) / count, waiting / count
