"""Parameters trained on top of frozen weights: adapters (LoRA, arXiv 2106.09685) in blocks, a map of the texts.

The map is a square matrix applied to the text embeddings of a frozen model (LABCLIP, arXiv 2502.03566), as part of its
projection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MethodType
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from degla.errors import InputError
from degla.model.block import attention as attend
from degla.model.block import input_projection, is_of_adapter, plain_name, split_heads
from degla.model.text import text_tower
from degla.ranges import Checked, Count, Positive

_PARTS = {"attention": ("attn",), "all": ("attn", "mlp.c_fc", "mlp.c_proj")}


@dataclass(frozen=True)
class AdapterConfig(Checked, section="adapter"):
    """Train small matrices on top of frozen weights instead of the weights."""

    rank: Count = 0
    """Rank of each adapter, 0 or more; 0 trains the weights themselves."""
    alpha: Positive = 16.0
    """Numerator of the adapters' scaling factor alpha / rank, > 0."""
    parts: Literal["attention", "all"] = "all"
    """Layers of each block with adapters: only attention, or the feed-forward layers as well; "attention" or "all"."""
    text_map: bool = False
    """Train a square matrix on the text embeddings, initialised to the identity (LABCLIP); true or false."""

    @property
    def active(self) -> bool:
        """Whether matrices are trained instead of the weights."""
        return bool(self.rank) or self.text_map


def has_adapters(clip: nn.Module) -> bool:
    """Whether `add_adapters` or `add_text_map` was applied to the model."""
    return any(is_of_adapter(name) for name, _ in clip.named_parameters())


def add_adapters(clip: nn.Module, config: AdapterConfig, *, blocks: list[str]) -> None:
    """Add adapters, initialised to zero, to blocks and freeze everything else.

    Args:
        clip: an open_clip model.
        config: rank, alpha and parts.
        blocks: names of the blocks, for example "visual.transformer.resblocks.0".

    Raises:
        InputError: `peft` is not installed, or there are no blocks.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError("--adapter.rank needs peft: pip install 'degla[peft]'.") from None
    if not blocks:
        raise InputError("--adapter.rank: no block is left for adapters. Train at least one of the towers.")
    own = {name: clip.get_submodule(f"{name}.attn") for name in blocks}
    for name, attention in own.items():
        clip.get_submodule(name).attn = _as_multihead(attention)
    # A pattern, which must match the whole name: a listed "transformer.resblocks.0.attn" (of CLIP's text tower) would
    # also match "visual.transformer.resblocks.0.attn".
    targets = "|".join(re.escape(f"{block}.{part}") for block in blocks for part in _PARTS[config.parts])
    lora = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets, lora_dropout=0.0)
    inject_adapter_in_model(lora, clip)
    for name, attention in own.items():
        adapted = clip.get_submodule(f"{name}.attn")
        pair = isinstance(attention, nn.MultiheadAttention)
        adapted.forward = MethodType(_attend_for_pair if pair else _attend, adapted)


def _as_multihead(attention: Any) -> nn.MultiheadAttention:
    """Wrap the same parameters in PyTorch's class, the only one of this layout that `peft` supports."""
    if isinstance(attention, nn.MultiheadAttention):
        return attention
    width = len(attention.out_proj.weight)
    wrapper = nn.MultiheadAttention(width, attention.num_heads, batch_first=True, device="meta")
    wrapper.in_proj_weight, wrapper.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
    wrapper.out_proj = attention.out_proj
    return wrapper


def _attend(self: Any, states: Tensor, *_: Any, attn_mask: Tensor | None = None, **__: Any) -> Tensor:
    """Self-attention with adapters, batch first; `peft`'s own forward would add the output's adapter twice."""
    rows = functional.linear(states, *input_projection(self))
    parts = (split_heads(part, self.num_heads) for part in rows.chunk(3, dim=-1))
    if attn_mask is not None and attn_mask.ndim == 3:
        attn_mask = attn_mask.view(len(states), -1, *attn_mask.shape[1:])
    attended = attend(*parts, attn_mask=attn_mask).transpose(1, 2).flatten(2)
    return cast(Tensor, self.base_layer.out_proj(attended))


def _attend_for_pair(self: Any, states: Tensor, *_: Any, **options: Any) -> tuple[Tensor, None]:
    """`_attend` for blocks that expect a pair, as returned by `nn.MultiheadAttention`."""
    return _attend(self, states, **options), None


def adapter_state(clip: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that training with adapters or a map changes: their matrices and the scale, by name.

    A map of a layer with a bias is the parameter of two modules; it has the name of the first.
    """
    return {name: value.detach() for name, value in clip.named_parameters() if _changes(name)}


def load_adapter_state(clip: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state returned by `adapter_state`.

    Raises:
        RuntimeError: names or shapes differ, as in `load_state_dict`.
    """
    own = adapter_state(clip).keys()
    if own != state.keys():
        odd = sorted(own ^ state.keys())[:3]
        raise RuntimeError(f"the adapters differ\nin their parameters, for example\n{', '.join(odd)}")
    clip.load_state_dict(state, strict=False)


def _changes(name: str) -> bool:
    return is_of_adapter(name) or name in ("logit_scale", "logit_bias")


@torch.no_grad()
def merged_state(clip: nn.Module) -> dict[str, Tensor]:
    """Return the state of an equivalent plain model: adapters merged into weights, the map into the projection."""
    merged = {plain_name(name): value for name, value in clip.state_dict().items() if not is_of_adapter(name)}
    for name, module in clip.named_modules():
        layer: Any = module
        if not hasattr(module, "lora_A") or not hasattr(module, "base_layer"):
            continue
        weight = "in_proj_weight" if isinstance(layer.base_layer, nn.MultiheadAttention) else "weight"
        key = f"{plain_name(name)}.{weight}"
        for adapter in layer.active_adapters:
            merged[key] = merged[key] + layer.get_delta_weight(adapter).to(merged[key].dtype)
    return merged | folded(clip)


class _Mapped(nn.Module):
    """A projection followed by the map A: P A^T for x @ P with P: [width, D]; A W and A b for a linear layer."""

    def __init__(self, matrix: nn.Parameter, *, of_layer: bool) -> None:
        super().__init__()
        self.text_map, self._of_layer = matrix, of_layer

    def forward(self, projection: Tensor) -> Tensor:
        return self.text_map @ projection if self._of_layer else projection @ self.text_map.T


def add_text_map(clip: nn.Module, *, name: str) -> None:
    """Add a matrix A after the projection of the text tower: texts become A t, and A starts as the identity.

    The model computes with the product of projection and A, so its checkpoint (`adapters.merged_state`) is a plain
    open_clip model with the same embeddings. A is trained whether or not the projection is.

    Args:
        clip: an open_clip model.
        name: of the model, for the message.

    Raises:
        InputError: the text tower has no linear projection.
    """
    tower: Any = text_tower(clip)
    place = next((place for place in ("text_projection", "proj") if getattr(tower, place, None) is not None), "")
    projection = getattr(tower, place) if place else None
    if isinstance(projection, nn.Linear):
        matrix = nn.Parameter(torch.eye(projection.out_features, device=projection.weight.device))
        for part in ("weight", "bias"):
            if getattr(projection, part) is not None:
                parametrize.register_parametrization(projection, part, _Mapped(matrix, of_layer=True))
    elif isinstance(projection, nn.Parameter):
        matrix = nn.Parameter(torch.eye(projection.shape[1], device=projection.device))
        parametrize.register_parametrization(tower, place, _Mapped(matrix, of_layer=False))
    else:
        raise InputError(
            f"--adapter.text-map: {name} has no linear text projection that a matrix could be folded into "
            f"({type(projection).__name__}). Choose an open_clip model that has one."
        )


def folded(clip: nn.Module) -> dict[str, Tensor]:
    """Return the projection with the map folded in, by its names in a plain model; empty if there is no map."""
    values: dict[str, Tensor] = {}
    for place, module in clip.named_modules():
        if parametrize.is_parametrized(module):
            start = f"{place}." if place else ""
            names: Any = module.parametrizations
            values |= {f"{start}{name}": getattr(module, name) for name in names}
    return values
