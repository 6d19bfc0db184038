"""AdamW over two groups of parameters, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from degla.config.sections import OptimConfig

_NO_DECAY = ("bn", "ln", "bias", "logit_scale")


def parameter_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters in two groups: matrices with weight decay; vectors, norms, biases and the scale without.

    The rule is open_clip's: no decay below two dimensions or where the name contains bn, ln, bias or logit_scale.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        without = parameter.ndim < 2 or any(part in name for part in _NO_DECAY)
        (others if without else decayed).append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW as in CLIP, over `parameter_groups`."""
    return torch.optim.AdamW(
        parameter_groups(module, weight_decay=config.weight_decay),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        # One kernel over all parameters, which also skips its step on the device where the loss is not finite.
        fused=all(parameter.device.type in ("cpu", "cuda") for parameter in module.parameters()),
    )


def bare(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser inside accelerate's wrapper."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def learning_rate(step: int, *, steps: int, config: OptimConfig) -> float:
    """Learning rate of step number `step` (from 0) of a run of `steps` steps.

    lr (step + 1) / warm-up while step < warm-up, then lr (1 + cos(pi (step - warm-up) / (steps - warm-up))) / 2.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.lr * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
