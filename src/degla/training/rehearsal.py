"""Rehearsal: a second stream of pairs, with an objective of its own, that goes along with every step of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, repeat

import torch

from degla.config.run import TrainConfig
from degla.data.batches import Batch
from degla.errors import InputError
from degla.losses.core import Processes
from degla.losses.core.forms import fit_to_model
from degla.losses.core.objective import Objective
from degla.model.encoder import Encoder
from degla.training.anchor import Anchor
from degla.training.fingerprint import data_digests
from degla.training.pairs import Pairs, PairSource, open_pairs, read_pairs
from degla.training.step import Trainer


def read_rehearsal(config: TrainConfig, *, processes: Processes) -> PairSource | None:
    """The rows of the second stream, before any model is looked up; None where there is none.

    Raises:
        InputError: as `read_pairs`, with the names of the rehearsal's flags.
    """
    if not config.rehearsal.active:
        return None
    with config.rehearsal.named():
        return read_pairs(config.rehearsal.stream(config), processes=processes)


def open_rehearsal(
    config: TrainConfig, *, encoder: Encoder, processes: Processes, source: PairSource | None = None
) -> Pairs | None:
    """The pairs of the second stream; None where no loss of `rehearsal.objective` has a weight.

    Raises:
        InputError: as `open_pairs`, with the names of the rehearsal's flags.
    """
    if not config.rehearsal.active:
        return None
    with config.rehearsal.named():
        stream = config.rehearsal.stream(config)
        return open_pairs(stream, encoder=encoder, processes=processes, source=source)


def rehearsal_batches(pairs: Pairs | None, *, start: int, device: torch.device) -> Iterator[Batch | None]:
    """The batch of every step from number `start` on, pass after pass; None for ever where there is no rehearsal.

    A batch is a function of the seed and the step's number: a resumed run meets the same ones.
    """
    if pairs is None:
        yield from repeat(None)
        return
    first, position = divmod(start, len(pairs.plan))
    for epoch in count(first):
        yield from pairs.batches(epoch, start=position if epoch == first else 0, device=device)


def add_rehearsal(trainer: Trainer, pairs: Pairs | None) -> None:
    """Give a trainer the objective of the second stream, and the anchor to the weights that it has now.

    Args:
        trainer: at the start of a run.
        pairs: of the second stream; None where there is none.

    Raises:
        InputError: an anchor with slices of parameters or with scaled gradients.
    """
    config = trainer.config
    if pairs is not None:
        stream = config.rehearsal.stream(config)
        encoder = trainer.encoder
        losses = fit_to_model(stream.objective, biased=encoder.bias is not None, model=encoder.name)
        objective = Objective(losses, rules=len(pairs.dataset.rules))
        trainer.rehearsal = replace(trainer, config=stream, objective=objective)
    if config.anchor.weight:
        if trainer.sharding is not None:
            raise InputError("--train.strategy fsdp does not go together with --anchor.weight; use ddp.")
        if trainer.accelerator.scaler is not None:
            raise InputError("--train.precision fp16 does not go together with --anchor.weight; use bf16 or fp32.")
        trainer.anchor = Anchor(trainer.encoder.parameters(), config.anchor)


def rehearsal_digests(pairs: Pairs | None) -> dict[str, str]:
    """As `data_digests`, for the second stream."""
    return {} if pairs is None else {f"rehearsal {name}": value for name, value in data_digests(pairs).items()}
