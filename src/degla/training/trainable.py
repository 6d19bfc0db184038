"""Which parameters are trained: towers, blocks, the scale, or adapters in place of weights."""

from __future__ import annotations

from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.losses.core import Processes
from degla.losses.core.forms import BIAS, fit_to_model
from degla.model.adapters import add_adapters
from degla.model.block import is_of_adapter
from degla.model.depth import TOWERS, Tower, resblocks, tower_depth, tower_module, tower_of
from degla.model.encoder import Encoder
from degla.model.fast_paths import why_no_adapters
from degla.model.modes import has_statistics


def choose_trainable(encoder: Encoder, config: TrainConfig) -> None:
    """Set `requires_grad` of every parameter, put adapters in where they are asked for, and settle BatchNorm.

    Raises:
        InputError: nothing is left to train; the towers' blocks cannot be told, or are fewer; the towers take no
            adapters; or moving statistics of BatchNorm do not go together with another flag.
    """
    loop, scale = config.train, _scale_names(encoder, config)
    frozen = _frozen_blocks(encoder, "image", loop.freeze_image_blocks)
    frozen |= _frozen_blocks(encoder, "text", loop.freeze_text_blocks)
    trained = {"image": loop.train_image_tower, "text": loop.train_text_tower}
    for name, parameter in encoder.clip.named_parameters():
        tower = tower_of(name)
        whole = name in scale if tower is None else trained[tower]
        parameter.requires_grad_(whole and name not in frozen)
    if config.adapter.rank:
        _add_adapters(encoder, config)
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise InputError("nothing is left to train: one of --train.train-image-tower, -text-tower, -scale must be on.")
    _settle_statistics(encoder, config)


def _scale_names(encoder: Encoder, config: TrainConfig) -> set[str]:
    """The scale, and the bias where a loss reads it; nothing where they are not trained."""
    if not config.train.train_scale:
        return set()
    biased = encoder.bias is not None
    objectives = (config.objective, config.rehearsal.objective)
    fitted = [fit_to_model(losses, biased=biased, model=encoder.name) for losses in objectives]
    read = any(BIAS in loss.reads for losses in fitted for loss in losses.values())
    return {"logit_scale", *(["logit_bias"] if read else [])}


def _frozen_blocks(encoder: Encoder, tower: Tower, count: int) -> set[str]:
    """Parameters of the first `count` blocks and what is before them; below 0: of all but the last -`count` blocks."""
    if not count:
        return set()
    depth = tower_depth(encoder.clip, tower)
    if depth is None:
        kind = type(tower_module(encoder.clip, tower)).__name__
        raise InputError(
            f"--train.freeze-{tower}-blocks is {count}; what the blocks of {encoder.name}'s {tower} tower are is not "
            f"known ({kind}). Give 0 to train all of it, or --train.no-train-{tower}-tower to train nothing of it."
        )
    if abs(count) > depth.count:
        raise InputError(
            f"--train.freeze-{tower}-blocks is {count}; {encoder.name} has {depth.count} such blocks. Give a number "
            f"from {-depth.count} to {depth.count}."
        )
    first = count if count > 0 else depth.count + count
    return {name for name, number in depth.of.items() if number < first}


def _settle_statistics(encoder: Encoder, config: TrainConfig) -> None:
    """Let the statistics of BatchNorm move where the configuration says so, and refuse what is not exact with it."""
    loop = config.train
    encoder.moves_statistics = loop.batch_norm == "update" and has_statistics(encoder.clip)
    if not encoder.moves_statistics:
        return
    processes = Processes.current().count
    own = loop.batch_size // processes
    for refused, flag, reason in (
        ((loop.chunk_size or own) < own, f"--train.chunk-size {loop.chunk_size}",
         "each part would be normalised by its own statistics, not by those of the batch"),
        (loop.gradient_checkpointing, "--train.gradient-checkpointing", "each batch would move the statistics twice"),
        (processes > 1, f"{processes} processes", "each would have statistics of its own rows"),
    ):  # fmt: skip
        if refused:
            raise InputError(
                f"--train.batch-norm update does not go together with {flag}: {reason}. Leave one of them out; with "
                "--train.batch-norm frozen the model keeps the statistics that it came with."
            )


def _add_adapters(encoder: Encoder, config: TrainConfig) -> None:
    clip = encoder.clip
    for tower, on in zip(TOWERS, (config.train.train_image_tower, config.train.train_text_tower), strict=True):
        why = why_no_adapters(clip, tower) if on else None
        if why is not None:
            raise InputError(
                f"--adapter.rank: {encoder.name} takes no adapters, for its {tower} tower {why}. Train its weights "
                f"(--adapter.rank 0), or leave that tower out (--train.no-train-{tower}-tower)."
            )
    trained = {name for name, parameter in clip.named_parameters() if parameter.requires_grad}
    blocks = [
        block
        for tower in TOWERS
        for block in resblocks(clip, tower)
        if any(name.startswith(block + ".") for name in trained)
    ]
    add_adapters(clip, config.adapter, blocks=blocks)
    for name, parameter in clip.named_parameters():
        parameter.requires_grad_(is_of_adapter(name) or name in _scale_names(encoder, config))
