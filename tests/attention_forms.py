"""Towers with attention blocks as in open_clip 4: the same parameter names as in version 3, but other classes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention


class Attention(nn.Module):
    """Self-attention, batch first, of one tensor to one tensor; the parameters are those of another attention."""

    def __init__(self, other: Any) -> None:
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = other.in_proj_weight, other.in_proj_bias
        self.out_proj, self.num_heads = nn.Linear(*other.out_proj.weight.shape[::-1]), other.num_heads
        self.out_proj.weight, self.out_proj.bias = other.out_proj.weight, other.out_proj.bias
        self.attn_drop = nn.Dropout(0.0)
        self.ln_q = self.ln_inner = nn.Identity()

    def forward(
        self, x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None, attn_mask: Tensor | None = None
    ) -> Tensor:
        """Keys and values are those of `x`; the mask is added to the logits."""
        assert k_x is v_x is None or (k_x is x and v_x is x)
        parts = linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        attended = scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A residual block around it, of the layers of another block."""

    def __init__(self, other: Any) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ls_1 = other.ln_1, Attention(other.attn), other.ls_1
        self.ln_2, self.mlp, self.ls_2 = other.ln_2, other.mlp, other.ls_2

    def get_weight_dtype(self) -> Any:
        """Which open_clip asks a tower's first block for."""
        return self.mlp.c_fc.weight.dtype

    def forward(self, q_x: Tensor, k_x: Any = None, v_x: Any = None, attn_mask: Tensor | None = None) -> Tensor:
        """As open_clip's transformers call a block."""
        rows = self.ln_1(q_x)
        states = q_x + self.ls_1(self.attn(rows, k_x=rows, v_x=rows, attn_mask=attn_mask))
        return states + self.ls_2(self.mlp(self.ln_2(states)))


@contextlib.contextmanager
def models_of(form: str) -> Iterator[None]:
    """Let open_clip make models of that form, for the length of the block."""
    import open_clip

    original = open_clip.create_model_and_transforms

    def create(*arguments: Any, **options: Any) -> Any:
        clip, *rest = original(*arguments, **options)
        for part in clip.modules():
            blocks = getattr(part, "resblocks", [])
            for number, block in enumerate(blocks):
                if {name for name, _ in block.attn.named_parameters(recurse=False)} == {
                    "in_proj_weight",
                    "in_proj_bias",
                }:
                    blocks[number] = Block(block)
        return clip, *rest

    with pytest.MonkeyPatch.context() as patch:
        if form != "installed":
            patch.setattr(open_clip, "create_model_and_transforms", create)
        yield
