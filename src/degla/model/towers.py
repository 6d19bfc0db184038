"""The towers of any kind of model: the depth of each parameter (before, inside or after the blocks), and their mode in
training (only trained parts use dropout and update statistics; activations are kept or recomputed)."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, cast

from torch import Tensor, nn

from degla.errors import InputError
from degla.model.text import text_tower

Tower = Literal["image", "text"]
TOWERS: tuple[Tower, ...] = ("image", "text")

_SCALE = ("logit_scale", "logit_bias")
_DECODER = "text_decoder."
"""CoCa's caption decoder, which no embedding reads."""
_BEFORE = {
    "image": ("conv1.", "class_embedding", "positional_embedding", "ln_pre.", "patchnorm_pre_ln."),
    "text": ("token_embedding.", "positional_embedding", "cls_emb"),
}
_UNMATCHED = "?"
"""Placeholder for names that timm's own grouping does not cover."""


@dataclass(frozen=True)
class Depth:
    """The blocks of one tower.

    Attributes:
        count: number of blocks, 1 or more.
        of: maps each parameter of the tower, by its name in the model, to its block, from 0; -1 is before the first
            block, `count` after the last.
    """

    count: int
    of: dict[str, int]


def tower_of(name: str) -> Tower | None:
    """Return the tower that a parameter of an open_clip model belongs to; None for scale, bias and CoCa's decoder."""
    if name in _SCALE or name.startswith(_DECODER):
        return None
    return "image" if name.startswith("visual.") else "text"


def tower_module(clip: nn.Module, tower: Tower) -> nn.Module:
    """Return the module that holds a tower; the model itself if it contains the text tower's parts directly."""
    return cast(nn.Module, cast(Any, clip).visual if tower == "image" else text_tower(clip))


def tower_depth(clip: nn.Module, tower: Tower) -> Depth | None:
    """Return blocks by depth for open_clip's transformers and ResNets, timm towers, and text towers of transformers.

    The blocks of a timm tower, and what belongs to them (a downsampling to the next block, a final norm to the last
    block), follow timm's own grouping of layers.

    Returns:
        None if the tower is of another kind, so that its blocks are unknown.
    """
    module: Any = tower_module(clip, tower)
    start = "visual." if tower == "image" else "text." if module is not clip else ""
    own = [name for name, _ in clip.named_parameters() if tower_of(name) == tower]
    inside = [name.removeprefix(start) for name in own]
    if hasattr(getattr(module, "transformer", None), "resblocks"):
        depths = _numbered(inside, r"transformer\.resblocks\.(\d+)\.", before=_BEFORE[tower])
    elif hasattr(module, "layer1") and hasattr(module, "attnpool"):
        depths = _numbered(inside, r"layer(\d+)\.(\d+)\.", before=("conv", "bn"))
    elif hasattr(module, "trunk"):
        depths = _grouped_by_timm(module.trunk, inside)
    elif hasattr(module, "transformer"):
        depths = _listed(module, inside)
    else:
        depths = {}
    count = max(depths.values(), default=0)
    return Depth(count, dict(zip(own, depths.values(), strict=True))) if count > 0 else None


def resblocks(clip: nn.Module, tower: Tower) -> list[str]:
    """Return the names of the blocks of one of open_clip's own transformers, in order; empty for other towers."""
    names = [name for name, _ in clip.named_modules() if re.search(r"(^|\.)transformer\.resblocks\.\d+$", name)]
    return [name for name in names if tower_of(name) == tower]


def _numbered(names: Iterable[str], pattern: str, *, before: tuple[str, ...]) -> dict[str, int]:
    """Blocks by the numbers in parameter names; the rest by the prefixes of names before the first block."""
    keys = {name: tuple(map(int, match.groups())) for name in names if (match := re.match(pattern, name))}
    order = {key: number for number, key in enumerate(sorted(set(keys.values())))}
    return {
        name: order[keys[name]] if name in keys else -1 if name.startswith(before) else len(order) for name in names
    }


def _grouped_by_timm(trunk: Any, names: list[str]) -> dict[str, int]:
    """Blocks of a timm model by its `group_matcher`, whose first group is the stem."""
    try:
        from timm.models import group_parameters

        mine = [name.removeprefix("trunk.") for name in names if name.startswith("trunk.")]
        named: Any = SimpleNamespace(named_parameters=lambda: [(name, None) for name in [*mine, _UNMATCHED]])
        layer = group_parameters(named, trunk.group_matcher(coarse=False), reverse=True)
    except (AttributeError, AssertionError, TypeError):  # a model without grouping
        return {}
    behind = layer[_UNMATCHED]
    return {name: layer.get(name.removeprefix("trunk."), behind) - 1 for name in names}


def _listed(module: nn.Module, names: list[str]) -> dict[str, int]:
    """Blocks of a `transformers` model: the outermost list of layers of one class; other parameters by their order."""
    for path, layers in module.named_modules():
        if path.startswith("transformer.") and isinstance(layers, nn.ModuleList) and len({*map(type, layers)}) == 1:
            count = len(layers)
            starts = {f"{path}.{number}.": number for number in range(count)}
            depths: dict[str, int] = {}
            reached = -1
            for name in names:
                number = next((number for start, number in starts.items() if name.startswith(start)), None)
                reached = count if number is None and reached >= 0 else -1 if number is None else number
                depths[name] = reached
            return depths
    return {}


log = logging.getLogger("degla.model")

_FORGETS = ("grad_checkpointing", "gradient_checkpointing")
"""Names of the gradient checkpointing switch in open_clip, timm and transformers modules."""


def rest_what_stays(module: nn.Module, *, statistics: bool) -> None:
    """Put every part without trained parameters into evaluation mode.

    Args:
        module: in training mode.
        statistics: whether BatchNorm also stays in evaluation mode in trained parts, so that it uses its running
            statistics without updating them.
    """
    parameters = list(module.parameters())
    if parameters and not any(value.requires_grad for value in parameters):
        module.eval()
        return
    if statistics and _keeps_statistics(module):
        # Not with eval(): timm puts activation and dropout inside its BatchNorm.
        module.training = False
    for child in module.children():
        rest_what_stays(child, statistics=statistics)


def has_statistics(module: nn.Module) -> bool:
    """Whether any trained layer uses running statistics for normalisation."""
    return any(
        _keeps_statistics(part) and any(value.requires_grad for value in part.parameters()) for part in module.modules()
    )


def forget_activations(clip: Any, *, name: str) -> None:
    """Enable gradient checkpointing in the blocks of both towers.

    Args:
        clip: the open_clip model.
        name: of the model, for messages.

    Raises:
        InputError: a tower does not support it.
    """
    try:
        with warnings.catch_warnings():
            # open_clip calls text towers of transformers by a name that version 5 calls deprecated.
            warnings.filterwarnings("ignore", "`gradient_checkpointing_enable` is deprecated", FutureWarning)
            clip.set_grad_checkpointing(True)
    except (AttributeError, AssertionError, NotImplementedError, TypeError):
        raise InputError(f"{name}: does not support gradient checkpointing. Remove the flag.") from None
    for tower in TOWERS:
        module = tower_module(clip, tower)
        inside: Any = clip.transformer if module is clip else module
        if not any(getattr(part, switch, False) for part in inside.modules() for switch in _FORGETS):
            log.warning(
                "%s: gradient checkpointing has no effect on its %s tower, a %s; its activations are kept.",
                name,
                tower,
                type(module).__name__,
            )


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(getattr(module, "running_mean", None), Tensor)
