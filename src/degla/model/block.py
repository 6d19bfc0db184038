"""open_clip's residual attention block in parts, so that a tower can compute only the states that are read.

Attention goes by the faster of PyTorch's two kernels for processors. That is flash attention, which PyTorch takes, but
in half precision, whose backward pass is slow there: short sequences are trained by the plain kernel, and so is what is
compiled (`bench/attention_kernel.py` has figures). Nothing is measured here: the two round otherwise, and a resumed run
must compute by the kernel that it began with, on another machine or a busy one too.
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
    """Why `run_block` cannot compute all blocks; None where each of them computes what `run_block` does.

    A block is known by what it is, not by its class, since open_clip 3 and 4 attend by different ones: it has the
    parameters of CLIP's block and no others, drops nothing out, and computes the same on a few rows.
    """
    blocks = list(cast(Any, transformer).resblocks) if hasattr(transformer, "resblocks") else []
    if not blocks:
        return f"is {_kind(transformer)}, not one of open_clip's own transformers"
    for block in blocks:
        names = {plain_name(name) for name, _ in block.named_parameters() if not is_of_adapter(name)}
        if more := sorted(names - _PARAMETERS - _LAYER_SCALES):
            return f"has {more[0]} in its blocks, which those of CLIP have not"
        if missing := sorted(_PARAMETERS - names):
            return f"has no {missing[0]} in its blocks, which those of CLIP have"
        if any(_drops_out(part) for part in block.modules()):
            return "drops states out in training"
    kinds = {(type(block), type(block.attn)): block for block in blocks}
    if not all(_computes_the_same(block) for block in kinds.values()):
        return f"has blocks ({_kind(blocks[0])}) that compute something else than those of CLIP"
    return None


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__.partition('.')[0]} {type(module).__name__}"


def _drops_out(part: nn.Module) -> bool:
    # nn.MultiheadAttention holds its rate as a number, layers of dropout as `p`.
    rate = getattr(part, "dropout", 0.0) if hasattr(part, "out_proj") else getattr(part, "p", 0.0)
    return isinstance(rate, float) and rate > 0


@torch.no_grad()
def _computes_the_same(block: Any) -> bool:
    """Whether the block itself gives what `run_block` gives, on three rows of arbitrary numbers."""
    like = block.ln_1.weight
    states = torch.arange(3 * len(like), device=like.device, dtype=torch.float32).sin().to(like.dtype).view(1, 3, -1)
    try:
        expected = block(states) - states
    except (RuntimeError, TypeError, ValueError, AssertionError):  # another signature
        return False
    found = run_block(block, states, attend_both_ways(block.attn.num_heads)) - states
    largest = float(expected.abs().max())
    return torch.allclose(found, expected, rtol=1e-2, atol=1e-3 * largest, equal_nan=True)


def is_of_adapter(name: str) -> bool:
    """Whether a parameter is one that `peft` added, or the map of the texts."""
    return "lora_" in name or name.endswith(".text_map")


def plain_name(name: str) -> str:
    """Name of a parameter in a model without the wrappers of `peft` and without a map of the texts."""
    return _PARAMETRIZED.sub(r"\1", name.replace(".base_layer", ""))


def input_projection(attention: Any) -> tuple[Float[Tensor, "three_width width"], Float[Tensor, " three_width"]]:
    """Weight and bias that give queries, keys and values; with the adapters of `peft` where there are some."""
    if not hasattr(attention, "base_layer"):
        return attention.in_proj_weight, attention.in_proj_bias
    weight = attention.base_layer.in_proj_weight
    for adapter in attention.active_adapters:
        if adapter in attention.lora_A:
            weight = weight + attention.get_delta_weight(adapter).to(weight.dtype)
    return weight, attention.base_layer.in_proj_bias


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Given = ParamSpec("Given")


def add_work_method(block: Any) -> str:
    """Let all work of a block go through a method of it, and return the method's name.

    The functions below read the weights of a block without calling it, so hooks around its calls would not see them;
    around this method they do.
    """
    block.work = MethodType(_work, block)
    return "work"


def _work(block: Any, run: Callable[..., Tensor], *given: Any, **named: Any) -> Tensor:
    return run(block, *given, **named)


def _through_method(run: Callable[Concatenate[Any, Given], Tensor]) -> Callable[Concatenate[Any, Given], Tensor]:
    """The work that a function does for a block, by the block's own method where it has one."""

    @wraps(run)
    def through(block: Any, /, *given: Given.args, **named: Given.kwargs) -> Tensor:
        work = getattr(block, "work", None)
        return run(block, *given, **named) if work is None else cast(Tensor, work(run, *given, **named))

    return through


@_through_method
def run_block(block: Any, states: Float[Tensor, "*rows width"], attend: Attend) -> Float[Tensor, "*rows width"]:
    """One block over rows of states of any layout.

    Args:
        block: of a transformer for which `why_unknown` gives None.
        states: one row a token.
        attend: from queries, keys and values of these rows [*rows, width] to what each row has attended to.
    """
    weight, bias = input_projection(block.attn)
    query, key, value = linear(block.ln_1(states), weight, bias).chunk(3, dim=-1)
    return _after_attention(block, states, attend(query, key, value))


@_through_method
def run_last_block(
    block: Any, states: Float[Tensor, "*rows width"], attend: Attend, *, read: Callable[[Tensor], Tensor]
) -> Float[Tensor, "wanted width"]:
    """The last block, only for the states that are read from it: all others matter for their keys and values alone.

    Args:
        block: as in `run_block`.
        states: one row a token.
        attend: from the queries of the wanted rows [wanted, width], and keys and values of all, to [wanted, width].
        read: picks the wanted rows out of all.
    """
    weight, bias = input_projection(block.attn)
    width = states.shape[-1]
    normal = block.ln_1(states)
    query = linear(read(normal), weight[:width], bias[:width])
    key, value = linear(normal, weight[width:], bias[width:]).chunk(2, dim=-1)
    return _after_attention(block, read(states), attend(query, key, value))


def run_blocks(transformer: Any, states: Tensor, attend: Attend, *, training: bool) -> Tensor:
    """All blocks but the last, without their activations where gradient checkpointing is on."""
    for block in transformer.resblocks[:-1]:
        if transformer.grad_checkpointing and training and torch.is_grad_enabled():
            states = checkpoint(run_block, block, states, attend, use_reentrant=False)
        else:
            states = run_block(block, states, attend)
    return states


def _after_attention(block: Any, states: Tensor, attended: Tensor) -> Tensor:
    attended = apply_layer(getattr(block.attn, "base_layer", block.attn).out_proj, attended)
    states = states + block.ls_1(attended)
    inner = block.mlp
    wide = _activate(inner.gelu, apply_layer(inner.c_fc, block.ln_2(states)))
    changed: Tensor = states + block.ls_2(apply_layer(inner.c_proj, wide))
    return changed


def _activate(activation: nn.Module, states: Tensor) -> Tensor:
    from open_clip.transformer import QuickGELU

    if type(activation) is QuickGELU:
        return cast(Tensor, _QuickGELU.apply(states))  # type: ignore[no-untyped-call]
    return cast(Tensor, activation(states))


class _QuickGELU(torch.autograd.Function):
    """x sigmoid(1.702 x) as silu(1.702 x) / 1.702: one tensor is kept for the backward pass, which reads it once."""

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
    """Attention of all rows of a sequence [batch, length, width] to one another."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = (split_heads(rows, heads) for rows in (query, key, value))
        return attention(*parts).transpose(1, 2).flatten(2)

    return attend


def heads_of(transformer: Any) -> int:
    """Number of attention heads of one of open_clip's own transformers."""
    return int(transformer.resblocks[0].attn.num_heads)


_LONG = 128
"""Keys from which a sequence counts as long: a picture of ViT-B/16 has 197, of ViT-B/32 50, a caption at most 77."""


def attention(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Scaled dot-product attention by the kernel that is fastest here."""
    if not plain_is_faster(query, key):
        return scaled_dot_product_attention(query, key, value, **options)
    # The choice is made here, inside of what gradient checkpointing runs again, so that both passes take the same.
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(query, key, value, **options)


def plain_is_faster(query: Tensor, key: Tensor) -> bool:
    """Whether queries and keys [..., length, width] are better attended by products and a softmax in turn."""
    if query.device.type != "cpu":
        return False
    if torch.compiler.is_compiling():  # The parts join the graph, of which the compiler may make flash attention again.
        return True
    # A training's passes without gradients (teacher, first pass of a gradient cache) must round as the others do.
    return query.dtype.itemsize < 4 and key.shape[-2] < _LONG and not torch.is_inference_mode_enabled()
