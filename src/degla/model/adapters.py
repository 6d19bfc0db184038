"""Low-rank adapters (LoRA, arXiv 2106.09685) by `peft` in open_clip's blocks, and the weights that they amount to."""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from degla.errors import InputError
from degla.model.block import input_projection
from degla.ranges import Checked, Count, Positive

_PARTS = {"attention": ("attn",), "all": ("attn", "mlp.c_fc", "mlp.c_proj")}


@dataclass(frozen=True)
class AdapterConfig(Checked, section="adapter"):
    """Train small matrices beside frozen weights instead of the weights."""

    rank: Count = 0
    """Rank of each adapter, 0 or more; 0 trains the weights themselves."""
    alpha: Positive = 16.0
    """Numerator of the adapters' factor alpha / rank, > 0."""
    parts: Literal["attention", "all"] = "all"
    """Layers of each block that get them: only the attention's, or the feed-forward ones too; "attention" or "all"."""


def has_adapters(clip: nn.Module) -> bool:
    """Whether `add_adapters` was here."""
    return any("lora_" in name for name, _ in clip.named_parameters())


def add_adapters(clip: nn.Module, config: AdapterConfig, *, blocks: list[str]) -> None:
    """Put adapters that are zero, so that nothing changes yet, into blocks; everything else stops being trained.

    Args:
        clip: an open_clip model.
        config: rank and factor.
        blocks: names of the blocks, for example "visual.transformer.resblocks.0".

    Raises:
        InputError: `peft` is not installed, or there is no block.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError("--adapter.rank needs peft: pip install 'degla[peft]'.") from None
    if not blocks:
        raise InputError("--adapter.rank: no block is left that could get adapters; train one of the towers.")
    targets = [f"{block}.{part}" for block in blocks for part in _PARTS[config.parts]]
    wanted = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets, lora_dropout=0.0)  # type: ignore[arg-type]
    inject_adapter_in_model(wanted, clip)
    for module in clip.modules():
        if isinstance(getattr(module, "base_layer", None), nn.MultiheadAttention):
            module.forward = MethodType(_attend, module)


def _attend(self: Any, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:
    """`nn.MultiheadAttention` with its adapters; that of `peft` would add the output's adapter twice."""
    base = self.base_layer
    weight, bias = input_projection(self)
    out = base.out_proj
    out_weight, out_bias = out.weight, out.bias
    if hasattr(out, "base_layer"):
        out_weight, out_bias = out.base_layer.weight, out.base_layer.bias
        for adapter in out.active_adapters:
            out_weight = out_weight + out.get_delta_weight(adapter).to(out_weight.dtype)
    if base.batch_first:
        query, key, value = (rows.transpose(0, 1) for rows in (query, key, value))
    attended, weights = functional.multi_head_attention_forward(
        query, key, value, base.embed_dim, base.num_heads, weight, bias, base.bias_k, base.bias_v, base.add_zero_attn,
        base.dropout, out_weight, out_bias, training=self.training, **options,
    )  # fmt: skip
    return attended.transpose(0, 1) if base.batch_first else attended, weights


def adapter_state(clip: nn.Module) -> dict[str, Tensor]:
    """What training with adapters changes: their matrices and the scale, by name."""
    return {name: value for name, value in clip.state_dict().items() if _changes(name)}


def load_adapter_state(clip: nn.Module, state: dict[str, Tensor]) -> None:
    """Put back what `adapter_state` gave.

    Raises:
        RuntimeError: other names or shapes, as from `load_state_dict`.
    """
    own = {name for name in clip.state_dict() if _changes(name)}
    if own != state.keys():
        odd = sorted(own ^ state.keys())[:3]
        raise RuntimeError(f"the adapters differ\nin their parameters, for example\n{', '.join(odd)}")
    clip.load_state_dict(state, strict=False)


def _changes(name: str) -> bool:
    return "lora_" in name or name in ("logit_scale", "logit_bias")


@torch.no_grad()
def merged_state(clip: nn.Module) -> dict[str, Tensor]:
    """The state of a model without adapters that computes the same: each adapter added to its weight."""
    merged = {
        name.replace(".base_layer", ""): value for name, value in clip.state_dict().items() if "lora_" not in name
    }
    for name, module in clip.named_modules():
        layer: Any = module
        if not hasattr(module, "lora_A") or not hasattr(module, "base_layer"):
            continue
        weight = "in_proj_weight" if isinstance(layer.base_layer, nn.MultiheadAttention) else "weight"
        key = f"{name.replace('.base_layer', '')}.{weight}"
        for adapter in layer.active_adapters:
            merged[key] = merged[key] + layer.get_delta_weight(adapter).to(merged[key].dtype)
    return merged
