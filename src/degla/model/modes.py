"""Modes of a model in training: only what is trained drops out and moves statistics; activations kept or not."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor, nn

from degla.errors import InputError
from degla.model.depth import TOWERS, tower_module

log = logging.getLogger("degla.model")

_FORGETS = ("grad_checkpointing", "gradient_checkpointing")
"""What open_clip, timm and transformers call the switch of a module that computes its activations again."""


def rest_what_stays(module: nn.Module, *, statistics: bool) -> None:
    """Put every part without a trained parameter into evaluation mode.

    Args:
        module: in training mode.
        statistics: whether BatchNorm stays in evaluation mode in trained parts too, so that it normalises by the
            statistics that it has and does not move them.
    """
    parameters = list(module.parameters())
    if parameters and not any(value.requires_grad for value in parameters):
        module.eval()
        return
    if statistics and _keeps_statistics(module):
        # Not by eval(): timm puts activation and dropout inside of its BatchNorm.
        module.training = False
    for child in module.children():
        rest_what_stays(child, statistics=statistics)


def has_statistics(module: nn.Module) -> bool:
    """Whether some trained layer normalises by running statistics."""
    return any(
        _keeps_statistics(part) and any(value.requires_grad for value in part.parameters()) for part in module.modules()
    )


def forget_activations(clip: Any, *, name: str) -> None:
    """Keep no activations inside the blocks of both towers; the backward pass computes them again.

    Args:
        clip: the open_clip model.
        name: of the model, for messages.

    Raises:
        InputError: a tower has no such option.
    """
    try:
        clip.set_grad_checkpointing(True)
    except (AttributeError, AssertionError, NotImplementedError, TypeError):
        raise InputError(f"{name}: has no gradient checkpointing; leave the flag out.") from None
    for tower in TOWERS:
        module = tower_module(clip, tower)
        inside: Any = clip.transformer if module is clip else module
        if not any(getattr(part, switch, False) for part in inside.modules() for switch in _FORGETS):
            log.warning(
                "%s: gradient checkpointing does nothing for its %s tower, a %s, whose activations are kept.",
                name,
                tower,
                type(module).__name__,
            )


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(getattr(module, "running_mean", None), Tensor)
