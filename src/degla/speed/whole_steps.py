"""Whole training steps: of the recipes `degla` and `clip`, and of open_clip's own trainer."""

from __future__ import annotations

import statistics
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from degla.config.sections import OptimConfig
from degla.data.batches import Pair
from degla.losses.core import Processes
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.recipes.clip import clip
from degla.speed.machine import timed
from degla.speed.workload import Workload, make_batch
from degla.training.build import build_trainer, open_accelerator
from degla.training.pairs import choose_collate

RATE = 1e-6
"""Learning rate of both sides."""

WARMING = 2
"""Warm-up steps, not timed: the first creates the optimiser's state, and the next allocates memory around it."""

CaptionedImages = Iterable[tuple[Tensor, list[str]]]
"""For each step, images [pairs, 3, height, width] in main memory and their captions."""


@dataclass(frozen=True)
class TakenSteps:
    """Seconds and loss of each step."""

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def seconds_of(work: Callable[[], object], device: torch.device, *, times: int) -> float:
    """Return the median seconds of some work, after `WARMING` warm-up runs."""
    for _ in range(WARMING):
        work()
    seconds: list[float] = []
    for _ in range(times):
        with timed(device, seconds):
            work()
    return statistics.median(seconds)


def open_step(workload: Workload, *, precision: str) -> Callable[[], object]:
    """Return a training step of the recipe `degla` over one batch that is already on the device."""
    encoder = load_encoder(workload.model, device=workload.device)
    batch = make_batch(workload, encoder, precision=precision).to(encoder.device)
    config, numbers = workload.config(precision), count()
    trainer = build_trainer(config, open_accelerator(config), encoder, Processes(), rules=1, steps=1000)
    return lambda: trainer.step(batch, step=next(numbers))


def host_waits(work: Callable[[], object], device: torch.device) -> int | None:
    """Count how often some work makes the CPU wait for the GPU, as reported by PyTorch; None without a GPU."""
    if device.type != "cuda":
        return None
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in messages)


def open_clip_steps(
    encoder: Encoder, batches: CaptionedImages, *, number: int, precision: Literal["fp32", "bf16"],
    clock: Callable[[], float] = time.perf_counter,
) -> TakenSteps:  # fmt: skip
    """Run steps of `open_clip_train.train.train_one_epoch` with the settings of open_clip's own script.

    Args:
        encoder: whose open_clip model is trained.
        batches: copied to the device as part of the step; tokenised before it.
        number: of batches.
        precision: bf16 is open_clip's `amp_bf16`.
        clock: returns seconds; read after waiting for the device.

    Raises:
        ImportError: open_clip's training package is not installed.
    """
    from open_clip import ClipLoss
    from open_clip_train.train import train_one_epoch

    model, device, steps, losses = encoder.clip, encoder.device, TakenSteps(), []
    model.output_dict = True

    class LossRecorder(ClipLoss):  # type: ignore[misc]
        def forward(self, *args: Any, **more: Any) -> Any:
            values = super().forward(*args, **more)
            losses.append(values["contrastive_loss"].detach())
            return values

    class Loader:
        num_batches = number

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for images, texts in batches:
                self.num_samples = number * len(texts)
                tokens = encoder.tokenize(texts)
                with timed(device, steps.seconds, clock=clock):
                    yield images, tokens

    loader = Loader()
    loader.num_samples = number
    args = Namespace(
        device=str(device), precision="amp_bf16" if precision == "bf16" else "fp32", distill=False, accum_freq=1,
        skip_scheduler=True, grad_clip_norm=None, horovod=False, rank=0, local_rank=0, log_local=False, batch_size=1,
        world_size=1, log_every_n_steps=number + 1, wandb=False, tensorboard=False, save_logs=False,
    )  # fmt: skip
    flat = [value for value in model.parameters() if value.ndim < 2]
    rest = [value for value in model.parameters() if value.ndim >= 2]
    groups = [{"params": flat, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), eps=1e-6)
    data = {"train": SimpleNamespace(dataloader=loader, set_epoch=lambda epoch: None)}
    train_one_epoch(model, data, LossRecorder(), 0, optimizer, None, None, None, args)
    steps.losses.extend(map(float, losses))
    return steps


def clip_steps(
    encoder: Encoder, batches: CaptionedImages, *, precision: Literal["fp32", "bf16"],
    clock: Callable[[], float] = time.perf_counter,
) -> TakenSteps:  # fmt: skip
    """As `open_clip_steps`, for the recipe `clip`; building the text tree is part of the step."""
    base = clip()
    optim = OptimConfig(lr=RATE, warmup_steps=0, schedule="constant", weight_decay=0.1)
    config = replace(base, train=replace(base.train, precision=precision), optim=optim)
    trainer = build_trainer(config, open_accelerator(config), encoder, Processes(), rules=1, steps=100)
    collate, device, steps = choose_collate(config.pairs, config.train, encoder), encoder.device, TakenSteps()
    losses = []
    for number, (images, texts) in enumerate(batches):
        tokens = encoder.tokenize(texts).long()
        none, nothing = tokens[:0], torch.zeros(0, dtype=torch.long)
        pairs = [
            Pair(image, row, none, nothing.bool(), nothing, place, str(place))
            for place, (image, row) in enumerate(zip(images, tokens, strict=True))
        ]
        with timed(device, steps.seconds, clock=clock):
            losses.append(trainer.step(collate(pairs).to(device), step=number)["loss"])
    steps.losses.extend(map(float, losses))
    return steps
