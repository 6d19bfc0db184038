"""Averages of weights: between a model and the one it was fine-tuned from (WiSE-FT, arXiv 2109.01903)."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from degla.errors import InputError
from degla.model.adapters import merged_state
from degla.model.encoder import Encoder


def check_alike(base: Encoder, tuned: Encoder) -> None:
    """Refuse two models whose weights cannot stand for one another.

    Raises:
        InputError: they differ in parameters, activation, preprocessing or tokenizer; the message says in which.
    """
    pair = f"{base.name} and {tuned.name}"
    mine, yours = base.clip.state_dict(), merged_state(tuned.clip)
    if {name: value.shape for name, value in mine.items()} != {name: value.shape for name, value in yours.items()}:
        raise InputError(f"{pair} are of different architectures and cannot be averaged.")
    if base.activation != tuned.activation:
        raise InputError(
            f"{pair} cannot be averaged: one computes {base.activation}, the other {tuned.activation}. "
            "Name the base that the other was fine-tuned from."
        )
    first, second = base.description.preprocess_config, tuned.description.preprocess_config
    for field in sorted(first.keys() & second.keys()):
        if _plain(first[field]) != _plain(second[field]):
            raise InputError(
                f"{pair} cannot be averaged: their preprocessing differs in {field!r}, {first[field]} and "
                f"{second[field]}."
            )
    words = ["A photo of a cat, and 3 dogs!"]
    if not _read_alike(base, base.tokenize(words), tuned.tokenize(words)):
        raise InputError(f"{pair} cannot be averaged: their tokenizers number the same text differently.")


@torch.no_grad()
def average_weights(base: Encoder, tuned: Encoder, *, share: float) -> Encoder:
    """A new encoder whose parameters are ``(1 - share) * base + share * tuned``.

    Args:
        base: the model before fine-tuning.
        tuned: the fine-tuned model, of the same architecture, activation, preprocessing and tokenizer; adapters in it
            count as the weights that they amount to.
        share: share of the tuned model, 0 to 1; at 0 and at 1 the weights are exactly those of the one model.

    Raises:
        InputError: a share outside 0 to 1, or models that cannot stand for one another.
    """
    if not 0 <= share <= 1:
        raise InputError(f"the share of the tuned model is {share}; it lies between 0 and 1.")
    check_alike(base, tuned)
    mine, yours = base.clip.state_dict(), merged_state(tuned.clip)
    averaged = copy.deepcopy(base)
    averaged.description = replace(base.description, name=f"{share:g} x {tuned.name} + {1 - share:g} x {base.name}")
    averaged.clip.load_state_dict(
        {
            name: torch.lerp(value, yours[name].to(value.device, value.dtype), share)
            if value.is_floating_point() and 0 < share < 1
            else (yours[name].to(value.device, value.dtype) if share == 1 else value)
            for name, value in mine.items()
        }
    )
    return averaged


@torch.no_grad()
def _read_alike(base: Encoder, tokens: Tensor, others: Tensor) -> bool:
    """Whether two numberings of a text are one to a model: what fills rows up may differ where nothing reads it."""
    if tokens.shape != others.shape or torch.equal(tokens, others):
        return tokens.shape == others.shape
    one, other = (base.encode_captions(numbers.to(base.device)) for numbers in (tokens, others))
    return torch.allclose(one, other, rtol=0, atol=1e-5)


def _plain(value: object) -> object:
    """JSON has lists where open_clip has tuples, and one number where both sides are alike."""
    if isinstance(value, list | tuple):
        return value[0] if len(set(value)) == 1 else tuple(value)
    return value
