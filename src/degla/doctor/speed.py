"""What limits the speed of a training: how fast data come, how fast a step is, how long a step waits for its batch."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat

import torch

from degla.data.batches import Batch
from degla.doctor import Finding
from degla.training.pairs import Pairs
from degla.training.step import Trainer

_IDLE = 0.05
"""Share of the time that a step may wait for data before something is said."""

_RESERVE = 1.2
"""Pairs that workers should decode for each that the steps take."""


def examine_speed(
    trainer: Trainer, pairs: Pairs, replay: Pairs | None = None, *, workers: int, seconds: float
) -> Finding:
    """Measure data alone, a step alone, and both together as training runs them.

    Args:
        trainer: takes the steps.
        pairs: their data.
        replay: data of the replayed pairs, with the workers that the training would have, where there is one.
        workers: processes that decode, as the training would have them.
        seconds: for each of the three, at least one batch and at most about three times as long.
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
        batches += f", each with {values['replay_batch_size']} replayed pairs"
    text = (
        f"one process decodes {data:.0f} pairs/s, a step takes {size / step:.1f} pairs/s ({batches}) and with "
        f"--data.workers {workers} waits {share:.1%} of the time for its data"
    )
    if share <= _IDLE:
        return Finding("speed", "ok", text + ": the step limits.", values)
    if device.type == "cpu":
        # Workers and step share the processor: what one saves the other has to wait for.
        beside = "" if workers else "--data.workers 1 decodes beside it, and "
        return Finding("speed", "warning", f"{text}; {beside}degla pack makes it less.", values)
    cores = os.cpu_count() or 1
    wanted = math.ceil(_RESERVE * size / step / data)
    if wanted > cores:
        return Finding("speed", "warning", f"{text}: data limit. --data.workers {cores}, and degla pack.", values)
    return Finding("speed", "warning", f"{text}: with --data.workers {wanted} the step would limit.", values)


def _seconds_of_data(pairs: Pairs, device: torch.device, *, seconds: float) -> float:
    """Seconds that a batch takes to come, where nothing else runs."""
    batches = pairs.endless(start=0, device=device)
    next(batches)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or count < 1:
        next(batches)
        count += 1
    return (time.perf_counter() - started) / count


def _seconds_of_steps(trainer: Trainer, pairs: Pairs, replay: Pairs | None, *, seconds: float) -> tuple[float, float]:
    """Seconds of a step once its batches are there, and seconds that it waited for them; means."""
    device = trainer.encoder.device
    batches = pairs.endless(start=0, device=device)
    again: Iterator[Batch | None] = repeat(None)
    if replay is not None:
        again = replay.endless(start=0, device=device)
    float(trainer.step(next(batches), number=0, replayed=next(again))["loss"])
    # What workers have prepared ahead must be used up before the wait says how fast they are.
    ahead = 2 * max(pairs.workers, replay.workers if replay is not None else 0)
    started, waiting, count = time.perf_counter(), 0.0, 0
    while (spent := time.perf_counter() - started) < seconds or count < 1 or (count <= ahead and spent < 3 * seconds):
        asked = time.perf_counter()
        batch, second = next(batches), next(again)
        waiting += time.perf_counter() - asked
        # Reading the loss waits for the device, so that the step's time is its own.
        float(trainer.step(batch, number=1, replayed=second)["loss"])
        count += 1
    whole = time.perf_counter() - started
    return (whole - waiting) / count, waiting / count
