"""open_clip's residual attention block in parts, so that a tower computes only the states that are read.

Attention uses the faster of PyTorch's two CPU kernels. That is flash attention, PyTorch's default, except in half
precision, where its backward pass is slow: short sequences are then trained with the plain kernel, as is compiled code
(`bench/attention_kernel.py` has figures). The choice is not measured at run time: the two kernels round differently,
and a resumed run must use the kernel that it started with, even on another or a busy machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any, Concatenate, ParamSpec, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from degla.model.linear_kernel import apply_layer, linear

_LAYERS = ("attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
_PARAMETERS = frozenset(f"{layer}.{kind}" for layer in _LAYERS for kind in ("weight", "bias")) | {
    "attn.in_proj_weight",
    "attn.in_proj_bias",
}
_PARAMETRIZED = re.compile(r"parametrizations\.(\w+)\.original$")
_LAYER_SCALES = frozenset({"ls_1.gamma", "ls_2.gamma"})


def why_unknown(transformer: nn.Module) -> str | None:
    """Return why `run_block` cannot compute all blocks; None if each of them computes what `run_block` does.

    A block is recognised by its behaviour, not its class, since open_clip 3 and 4 use different attention classes: it
    has exactly the parameters of CLIP's block, no dropout, and computes the same on a few rows.
    """
    blocks = list(cast(Any, transformer).resblocks) if hasattr(transformer, "resblocks") else []
    if not blocks:
        return f"is {_kind(transformer)}, not one of open_clip's own transformers"
    for block in blocks:
        names = {plain_name(name) for name, _ in block.named_parameters() if not is_of_adapter(name)}
        if more := sorted(names - _PARAMETERS - _LAYER_SCALES):
            return f"has {more[0]} in its blocks, which CLIP's blocks lack"
        if missing := sorted(_PARAMETERS - names):
            return f"has no {missing[0]} in its blocks, which CLIP's blocks have"
        if any(_drops_out(part) for part in block.modules()):
            return "uses dropout in training"
    kinds = {(type(block), type(block.attn)): block for block in blocks}
    if not all(_computes_the_same(block) for block in kinds.values()):
        return f"has blocks ({_kind(blocks[0])}) that compute something other than CLIP's blocks"
    return None


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__.partition('.')[0]} {type(module).__name__}"


def _drops_out(part: nn.Module) -> bool:
    # nn.MultiheadAttention stores its rate as `dropout`, dropout layers as `p`.
    rate = getattr(part, "dropout", 0.0) if hasattr(part, "out_proj") else getattr(part, "p", 0.0)
    return isinstance(rate, float) and rate > 0


@torch.no_grad()
def _computes_the_same(block: Any) -> bool:
    """Whether the block returns the same as `run_block` on three rows of arbitrary numbers."""
    like = block.ln_1.weight
    states = torch.arange(3 * len(like), device=like.device, dtype=torch.float32).sin().to(like.dtype).view(1, 3, -1)
    try:
        expected = block(states) - states
    except (RuntimeError, TypeError, ValueError, AssertionError):  # another signature
        return False
    actual = run_block(block, states, attend_both_ways(block.attn.num_heads)) - states
    largest = float(expected.abs().max())
    return torch.allclose(actual, expected, rtol=1e-2, atol=1e-3 * largest, equal_nan=True)


def is_of_adapter(name: str) -> bool:
    """Whether a parameter was added by `peft` or is the text map."""
    return "lora_" in name or name.endswith(".text_map")


def plain_name(name: str) -> str:
    """Return the name of a parameter in a model without `peft` wrappers and without a text map."""
    return _PARAMETRIZED.sub(r"\1", name.replace(".base_layer", ""))


def input_projection(attention: Any) -> tuple[Float[Tensor, "three_width width"], Float[Tensor, " three_width"]]:
    """Return weight and bias of the query, key and value projection, including any `peft` adapters."""
    if not hasattr(attention, "base_layer"):
        return attention.in_proj_weight, attention.in_proj_bias
    weight = attention.base_layer.in_proj_weight
    for adapter in attention.active_adapters:
        if adapter in attention.lora_A:
            weight = weight + attention.get_delta_weight(adapter).to(weight.dtype)
    return weight, attention.base_layer.in_proj_bias


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Params = ParamSpec("Params")


def add_work_method(block: Any) -> str:
    """Route all work of a block through a method of it, and return the method's name.

    The functions below read the weights of a block without calling it, so hooks on the block would not fire. Hooks on
    this method do.
    """
    block.work = MethodType(_work, block)
    return "work"


def _work(block: Any, run: Callable[..., Tensor], *args: Any, **named: Any) -> Tensor:
    return run(block, *args, **named)


def _through_method(run: Callable[Concatenate[Any, Params], Tensor]) -> Callable[Concatenate[Any, Params], Tensor]:
    """Run a function on a block through the block's `work` method if it has one."""

    @wraps(run)
    def through(block: Any, /, *args: Params.args, **named: Params.kwargs) -> Tensor:
        work = getattr(block, "work", None)
        return run(block, *args, **named) if work is None else cast(Tensor, work(run, *args, **named))

    return through


@_through_method
def run_block(block: Any, states: Float[Tensor, "*rows width"], attend: Attend) -> Float[Tensor, "*rows width"]:
    """Run one block over rows of states in any layout.

    Args:
        block: of a transformer for which `why_unknown` returns None.
        states: one row per token.
        attend: maps queries, keys and values of these rows [*rows, width] to the attention output of each row.
    """
    weight, bias = input_projection(block.attn)
    query, key, value = linear(block.ln_1(states), weight, bias).chunk(3, dim=-1)
    return _after_attention(block, states, attend(query, key, value))


@_through_method
def run_last_block(
    block: Any, states: Float[Tensor, "*rows width"], attend: Attend, *, read: Callable[[Tensor], Tensor]
) -> Float[Tensor, "wanted width"]:
    """Run the last block only for the states that are read; all others only provide keys and values.

    Args:
        block: as in `run_block`.
        states: one row per token.
        attend: maps the queries of the wanted rows [wanted, width] and the keys and values of all to [wanted, width].
        read: selects the wanted rows.
    """
    weight, bias = input_projection(block.attn)
    width = states.shape[-1]
    normal = block.ln_1(states)
    query = linear(read(normal), weight[:width], bias[:width])
    key, value = linear(normal, weight[width:], bias[width:]).chunk(2, dim=-1)
    return _after_attention(block, read(states), attend(query, key, value))


def run_blocks(
    transformer: Any, states: Tensor, attend: Attend, *, training: bool, first: int = 0, end: int = -1
) -> Tensor:
    """Run the blocks from `first` to before `end`, without keeping activations if gradient checkpointing is on."""
    for block in transformer.resblocks[first:end]:
        if transformer.grad_checkpointing and training and torch.is_grad_enabled():
            states = checkpoint(run_block, block, states, attend, use_reentrant=False)
        else:
            states = run_block(block, states, attend)
    return states


def _after_attention(block: Any, states: Tensor, attended: Tensor) -> Tensor:
    from open_clip.transformer import QuickGELU

    attended = apply_layer(getattr(block.attn, "base_layer", block.attn).out_proj, attended)
    states = states + block.ls_1(attended)
    inner = block.mlp
    wide = apply_layer(inner.c_fc, block.ln_2(states))
    wide = cast(Tensor, _QuickGELU.apply(wide)) if type(inner.gelu) is QuickGELU else inner.gelu(wide)
    changed: Tensor = states + block.ls_2(apply_layer(inner.c_proj, wide))
    return changed


class _QuickGELU(torch.autograd.Function):
    """x sigmoid(1.702 x) as silu(1.702 x) / 1.702: only one tensor is kept for the backward pass and read once."""

    @staticmethod
    def forward(context: Any, states: Tensor) -> Tensor:
        steep = 1.702 * states
        context.save_for_backward(steep)
        return functional.silu(steep).div_(1.702)

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad: Tensor) -> Tensor:
        (steep,) = context.saved_tensors
        return cast(Tensor, torch.ops.aten.silu_backward(grad, steep))


def split_heads(rows: Float[Tensor, "batch length width"], heads: int) -> Float[Tensor, "batch heads length head"]:
    """Give each attention head its own axis."""
    batch, length, width = rows.shape
    return rows.view(batch, length, heads, width // heads).transpose(1, 2)


def attend_both_ways(heads: int) -> Attend:
    """Return bidirectional attention over the rows of a sequence [batch, length, width]."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = (split_heads(rows, heads) for rows in (query, key, value))
        return attention(*parts).transpose(1, 2).flatten(2)

    return attend


def heads_of(transformer: Any) -> int:
    """Return the number of attention heads of one of open_clip's own transformers."""
    return int(transformer.resblocks[0].attn.num_heads)


_LONG = 128
"""Number of keys from which a sequence is long: an image has 197 in ViT-B/16, 50 in ViT-B/32; a caption at most 77."""


def attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Compute scaled dot-product attention with the fastest kernel."""
    if not plain_is_faster(query, key):
        return scaled_dot_product_attention(query, key, value, **options)
    # Chosen here, inside the code that gradient checkpointing runs again, so that both passes use the same kernel.
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(query, key, value, **options)


def plain_is_faster(query: Tensor, key: Tensor) -> bool:
    """Whether the plain kernel (products and a softmax) is faster for queries and keys [..., length, width]."""
    if query.device.type != "cpu":
        return False
    if torch.compiler.is_compiling():  # The parts become part of the graph; the compiler may fuse them to flash again.
        return True
    # Training passes without gradients (teacher, first pass of gradient caching) must round like the others.
    return query.dtype.itemsize < 4 and key.shape[-2] < _LONG and not torch.is_inference_mode_enabled()
