"""Trainable parameters, the optimiser and its learning rate (AdamW), and the pull towards the start (L2-SP)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from degla.config.run import TrainConfig
from degla.config.sections import L2SPConfig, OptimConfig
from degla.errors import InputError
from degla.losses.core import Processes
from degla.model.adapters import add_adapters, add_text_map
from degla.model.block import is_of_adapter
from degla.model.encoder import Encoder
from degla.model.fast_paths import why_no_adapters
from degla.model.towers import TOWERS, Tower, has_statistics, resblocks, tower_depth, tower_module, tower_of
from degla.model.trained_along import PredictorConfig
from degla.pages.words import counted

log = logging.getLogger("degla.train")

LR_MULTIPLE = "times"
"""Entry of a parameter group, named as in checkpoints: its learning rate as a multiple of the model's, 1 if absent."""
_NO_DECAY = ("bn", "ln", "bias", "logit_scale")


def parameter_groups(
    module: nn.Module, *, weight_decay: float, lr_multiples: Mapping[nn.Parameter, float] | None = None
) -> list[dict[str, object]]:
    """Group trainable parameters: matrices with weight decay; vectors, norms, biases and the scale without.

    Those in `lr_multiples` are in groups of their own, whose learning rate is that many times the model's.

    As in open_clip, parameters with fewer than two dimensions, or with bn, ln, bias or logit_scale in their name, have
    no decay.
    """
    # Two groups even if neither decays: a resumed run needs the groups of its checkpoint.
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): [], (1.0, False): []}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim >= 2 and not any(part in name for part in _NO_DECAY)
        groups.setdefault(((lr_multiples or {}).get(parameter, 1.0), decays), []).append(parameter)
    return [
        {"params": members, "weight_decay": weight_decay if decays else 0.0}
        | ({} if multiple == 1 else {LR_MULTIPLE: multiple})
        for (multiple, decays), members in groups.items()
        if members
    ]


def build_optimizer(
    module: nn.Module,
    config: OptimConfig,
    *,
    predictor: tuple[nn.Module, PredictorConfig] | None = None,
    lr_multiples: Mapping[nn.Parameter, float] | None = None,
) -> torch.optim.AdamW:
    """Build AdamW as in CLIP, over `parameter_groups`; a predictor's parameters have a learning rate of their own."""
    groups = parameter_groups(module, weight_decay=config.weight_decay, lr_multiples=lr_multiples)
    if predictor is not None:
        along, own = predictor
        groups.append(
            {"params": list(along.parameters()), "weight_decay": own.weight_decay, LR_MULTIPLE: own.lr / config.lr}
        )
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        # One kernel for all parameters, which can also skip a step on the device if the loss is not finite.
        fused=all(parameter.device.type in ("cpu", "cuda") for parameter in module.parameters()),
    )


def bare(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimiser inside accelerate's wrapper."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def learning_rate(step: int, *, steps: int, config: OptimConfig) -> float:
    """Return the learning rate of step number `step` (from 0) of a run of `steps` steps.

    lr (step + 1) / warm-up while step < warm-up, then lr (1 + cos(pi (step - warm-up) / (steps - warm-up))) / 2.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.lr * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def choose_trainable(encoder: Encoder, config: TrainConfig) -> None:
    """Set `requires_grad` of every parameter, add adapters if configured, and choose the mode of BatchNorm.

    Raises:
        InputError: nothing is left to train; the blocks of a tower are unknown or fewer than asked for; a tower does
            not support adapters; or updating BatchNorm statistics cannot be combined with another flag.
    """
    # A bias that no loss reads has a gradient of 0, and does not change.
    loop, scale = config.train, {"logit_scale", "logit_bias"} if config.train.train_scale else set()
    frozen = _frozen_blocks(encoder, "image", loop.freeze_image_blocks)
    frozen |= _frozen_blocks(encoder, "text", loop.freeze_text_blocks)
    trained = {"image": loop.train_image_tower, "text": loop.train_text_tower}
    for name, parameter in encoder.clip.named_parameters():
        tower = tower_of(name)
        whole = name in scale if tower is None else trained[tower]
        parameter.requires_grad_(whole and name not in frozen)
    if config.adapter.rank:
        _add_adapters(encoder, config)
    if config.adapter.text_map:
        add_text_map(encoder.clip, name=encoder.name)
    if config.adapter.active:
        for name, parameter in encoder.clip.named_parameters():
            parameter.requires_grad_(is_of_adapter(name) or name in scale)
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise InputError("nothing is left to train: turn on one of --train.train-image-tower, -text-tower, -scale.")
    _settle_statistics(encoder, config)


def _frozen_blocks(encoder: Encoder, tower: Tower, count: int) -> set[str]:
    """Return the parameters of the first `count` blocks and all before them; if negative, all but the last -`count`."""
    if not count:
        return set()
    depth = tower_depth(encoder.clip, tower)
    if depth is None:
        kind = type(tower_module(encoder.clip, tower)).__name__
        raise InputError(
            f"--train.freeze-{tower}-blocks is {count}, but the blocks of the {tower} tower of {encoder.name} are not "
            f"known ({kind}). Use 0 to train all of it, or --train.no-train-{tower}-tower to freeze all of it."
        )
    if abs(count) > depth.count:
        raise InputError(
            f"--train.freeze-{tower}-blocks is {count}, but {encoder.name} has {counted(depth.count, 'such block')}. "
            f"Choose a number from {-depth.count} to {depth.count}."
        )
    first = count if count > 0 else depth.count + count
    return {name for name, number in depth.of.items() if number < first}


def _settle_statistics(encoder: Encoder, config: TrainConfig) -> None:
    """Update the statistics of BatchNorm if configured, and reject settings with which that would not be exact."""
    loop = config.train
    encoder.moves_statistics = loop.batch_norm == "update" and has_statistics(encoder.clip)
    if not encoder.moves_statistics:
        if loop.batch_norm == "update":
            log.info("--train.batch-norm update has no effect: %s trains no BatchNorm.", encoder.name)
        return
    processes = Processes.current().count
    # A stream of replayed pairs may have larger batches, and neighbours are part of the batch.
    own = max(each.batch_size // processes * (1 + each.data.neighbours_per_pair) for each in config.streams)
    for refused, flag, reason in (
        ((loop.chunk_size or own) < own, f"--train.chunk-size {loop.chunk_size}",
         "each part would be normalised with its own statistics instead of those of the batch"),
        (loop.gradient_checkpointing, "--train.gradient-checkpointing", "each batch would update the statistics twice"),
        (processes > 1, f"{processes} processes", "each would have statistics of its own rows only"),
    ):  # fmt: skip
        if refused:
            raise InputError(
                f"--train.batch-norm update cannot be combined with {flag}: {reason}. Omit one of them; with "
                "--train.batch-norm frozen the model keeps its original statistics."
            )


def _add_adapters(encoder: Encoder, config: TrainConfig) -> None:
    clip = encoder.clip
    for tower, on in zip(TOWERS, (config.train.train_image_tower, config.train.train_text_tower), strict=True):
        why = why_no_adapters(clip, tower) if on else None
        if why is not None:
            raise InputError(
                f"--adapter.rank: cannot add adapters to {encoder.name}: its {tower} tower {why}. Train its weights "
                f"(--adapter.rank 0), or freeze that tower (--train.no-train-{tower}-tower)."
            )
    trained = {name for name, parameter in clip.named_parameters() if parameter.requires_grad}
    blocks = [
        block
        for tower in TOWERS
        for block in resblocks(clip, tower)
        if any(name.startswith(block + ".") for name in trained)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)  # The same in every process, however a model was loaded.
        add_adapters(clip, config.adapter, blocks=blocks)


class L2SP:
    """Adds the gradient of ``weight * sum F (theta - start)^2`` to the existing gradients, without autograd.

    With ``importance="adaptive"`` F is ``g^2 / mean(g^2)``, with the mean over a tensor, where g is the gradient of the
    parameters when `pull` is called: that of the replayed pairs at this step, averaged over all processes (adaptive
    weight consolidation of GIFT, arXiv 2503.04229). A tensor without a gradient is not pulled. With "equal" F is 1.

    The constructor copies the start. Every run creates the object from its initial model before it loads a checkpoint,
    so a resumed run has the same start.

    Args:
        parameters: parameters as they are at the start of the run; only those that are trained are used.
        config: weight and importance.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], config: L2SPConfig) -> None:
        self.config = config
        self._starts = [(value, value.detach().clone()) for value in parameters if value.requires_grad]

    @torch.no_grad()
    def pull(self) -> Float[Tensor, ""]:
        """Add the gradient of the penalty to `grad` of every parameter; return the unweighted penalty."""
        values = []
        for parameter, start in self._starts:
            away = parameter - start
            counted = self._importance(parameter.grad, away) * away
            values.append((counted * away).sum())
            back = 2 * self.config.weight * counted
            parameter.grad = back if parameter.grad is None else parameter.grad.add_(back)
        return torch.stack(values).sum()

    def _importance(self, gradient: Tensor | None, like: Tensor) -> Tensor:
        if self.config.importance == "equal":
            return torch.ones_like(like)
        if gradient is None:
            return torch.zeros_like(like)
        square = gradient.square()
        mean = square.mean()
        return torch.where(mean > 0, square / mean, torch.zeros_like(square))
