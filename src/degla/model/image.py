"""Image towers that are read at their class token alone: the last block computes nothing else."""

from __future__ import annotations

from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from degla.model.block import attention, known_blocks, run_blocks, run_last_block, split_heads


def reads_class_token(clip: nn.Module) -> bool:
    """Whether the image embedding is a function of the last block's class token alone.

    True for open_clip's own vision transformers of plain blocks with `pool_type` "tok"; False for those that average
    or attend over patches, return tokens, and for ResNets and towers of `timm`.
    """
    from open_clip.transformer import VisionTransformer

    visual: Any = getattr(clip, "visual", None)
    return bool(
        type(visual) is VisionTransformer
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.output_tokens
        and known_blocks(visual.transformer)
    )


def encode_class_token(clip: nn.Module, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
    """Run a vision transformer for which `reads_class_token` holds; the same vectors, not normalised."""
    visual: Any = clip.visual
    states = visual._embeds(images)
    heads = visual.transformer.resblocks[0].attn.num_heads

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = (split_heads(rows, heads) for rows in (query, key, value))
        return attention(*parts).transpose(1, 2).flatten(2)

    def attend_once(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend(query[:, None], key, value)[:, 0]

    states = run_blocks(visual.transformer, states, attend, training=visual.training)
    pooled = run_last_block(visual.transformer.resblocks[-1], states, attend_once, read=lambda rows: rows[:, 0])
    pooled = visual.ln_post(pooled)
    return cast(Tensor, pooled if visual.proj is None else pooled @ visual.proj)
