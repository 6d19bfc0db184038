"""Which parameters are trained: towers, blocks, the scale, or adapters in place of weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.model.adapters import add_adapters
from degla.model.encoder import Encoder

_BLOCK = re.compile(r"(?:^|\.)transformer\.resblocks\.(\d+)(?:\.|$)")
_BEFORE_IMAGE = ("conv1.", "class_embedding", "positional_embedding", "ln_pre.")
_BEFORE_TEXT = ("token_embedding.", "positional_embedding")


def choose_trainable(encoder: Encoder, config: TrainConfig) -> None:
    """Set `requires_grad` of every parameter, and put adapters in where they are asked for.

    Raises:
        InputError: nothing is left to train; the towers have no such blocks, or not so many; or they take no adapters.
    """
    loop = config.train
    frozen = {
        "image": _frozen_blocks(encoder, "image", count=loop.freeze_image_blocks),
        "text": _frozen_blocks(encoder, "text", count=loop.freeze_text_blocks),
    }
    for name, parameter in encoder.clip.named_parameters():
        parameter.requires_grad_(_trained(name, config, frozen=frozen))
    if config.adapter.rank:
        _add_adapters(encoder, config)
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise InputError("nothing is left to train: one of --train.train-image-tower, -text-tower, -scale must be on.")


def _frozen_blocks(encoder: Encoder, tower: str, *, count: int) -> int:
    """How many first blocks are frozen, where a count below 0 leaves the last so many to train."""
    found = len(_blocks(encoder.clip, tower))
    if abs(count) > found:
        raise InputError(f"--train.freeze-{tower}-blocks is {count}; {encoder.name} has {found} such blocks.")
    return count if count >= 0 else found + count


def _trained(name: str, config: TrainConfig, *, frozen: Mapping[str, int]) -> bool:
    loop = config.train
    if name in ("logit_scale", "logit_bias"):
        return loop.train_scale and name == "logit_scale"
    image = name.startswith("visual.")
    if not (loop.train_image_tower if image else loop.train_text_tower):
        return False
    count = frozen["image" if image else "text"]
    if not count:
        return True
    inside = name.removeprefix("visual.").removeprefix("text.")
    block = _BLOCK.search(inside)
    if block:
        return int(block.group(1)) >= count
    return not inside.startswith(_BEFORE_IMAGE if image else _BEFORE_TEXT)


def _blocks(clip: nn.Module, tower: str) -> list[str]:
    """Names of the blocks of a tower, in order; none where it is not one of open_clip's own transformers."""
    names = [name for name, _ in clip.named_modules() if re.search(r"transformer\.resblocks\.\d+$", name)]
    return [name for name in names if name.startswith("visual.") == (tower == "image")]


def _add_adapters(encoder: Encoder, config: TrainConfig) -> None:
    clip = encoder.clip
    if encoder.grow is None or not encoder.reads_class_token:
        raise InputError(
            f"--adapter.rank: {encoder.name} takes no adapters with these flags; both towers must be open_clip's own "
            "transformers, read at the class token and at the end token, with --train.trim."
        )
    trained = {name for name, parameter in clip.named_parameters() if parameter.requires_grad}
    blocks = [
        block
        for tower in ("image", "text")
        for block in _blocks(clip, tower)
        if any(name.startswith(block + ".") for name in trained)
    ]
    add_adapters(clip, config.adapter, blocks=blocks)
    for name, parameter in clip.named_parameters():
        parameter.requires_grad_("lora_" in name or (name == "logit_scale" and config.train.train_scale))
