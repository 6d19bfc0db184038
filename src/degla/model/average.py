"""Averages of weights: between a model and the one it was fine-tuned from (WiSE-FT, arXiv 2109.01903)."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from degla.errors import InputError
from degla.model.encoder import Encoder


@torch.no_grad()
def average_weights(base: Encoder, tuned: Encoder, *, share: float) -> Encoder:
    """A new encoder whose parameters are ``(1 - share) * base + share * tuned``.

    Args:
        base: the model before fine-tuning.
        tuned: the fine-tuned model, of the same architecture.
        share: share of the tuned model, 0 to 1.

    Raises:
        InputError: a share outside 0 to 1, or models of different parameters.
    """
    if not 0 <= share <= 1:
        raise InputError(f"the share of the tuned model is {share}; it lies between 0 and 1.")
    mine, yours = base.clip.state_dict(), tuned.clip.state_dict()
    if {name: value.shape for name, value in mine.items()} != {name: value.shape for name, value in yours.items()}:
        raise InputError(f"{base.name} and {tuned.name} are of different architectures and cannot be averaged.")
    averaged = copy.deepcopy(base)
    averaged.description = replace(base.description, name=f"{share:g} x {tuned.name} + {1 - share:g} x {base.name}")
    averaged.clip.load_state_dict(
        {
            name: torch.lerp(value, yours[name].to(value.device), share) if value.is_floating_point() else value
            for name, value in mine.items()
        }
    )
    return averaged
