"""Text towers on trimmed sequences: exact where attention is causal and the embedding is read at the end token."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def text_tower(clip: nn.Module) -> Any:
    """The module that holds the text tower's parts: `clip.text`, or `clip` itself in open_clip's CLIP class."""
    return getattr(clip, "text", clip)


def pool_type(clip: nn.Module) -> str:
    """How the tower turns token outputs into one vector: "argmax" and "eos" read it at the end token."""
    tower = text_tower(clip)
    return str(getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", "none"))


def can_trim(clip: nn.Module) -> bool:
    """Whether texts may be cut to the longest of the batch without changing any embedding.

    True for open_clip's own causal towers that are pooled at the end token: there, no token looks to its right and
    what stands behind the end token is never read. False for towers that attend both ways, append a class token
    (CoCa) or come from `transformers`.
    """
    tower = text_tower(clip)
    parts = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
    if not all(hasattr(tower, part) for part in parts):
        return False
    mask = getattr(tower, "attn_mask", None)
    if mask is None or getattr(tower, "cls_emb", None) is not None:
        return False
    return pool_type(clip) in ("argmax", "eos")


def encode_trimmed(clip: nn.Module, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts dim"]:
    """Run a causal text tower on texts of any length up to its context length.

    open_clip 3's own `encode_text` adds the whole positional table and so accepts only padded texts.

    Args:
        clip: a model for which `can_trim` holds.
        tokens: token numbers, each row with its end token inside `length`.

    Returns:
        One vector a text, not normalised.
    """
    tower = text_tower(clip)
    length = tokens.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    outputs = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
    outputs = tower.transformer(outputs, attn_mask=tower.attn_mask[:length, :length])
    if pool_type(clip) == "argmax":
        end = tokens.argmax(dim=-1)
    else:
        number = getattr(tower, "text_eos_id", None) or tower.eos_id
        end = (tokens == number).int().argmax(dim=-1)
    # Reading the end token first spares the final normalisation of all other positions.
    pooled = tower.ln_final(outputs[torch.arange(len(tokens), device=tokens.device), end])
    projection = tower.text_projection
    if projection is not None:
        pooled = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
    return cast(Tensor, pooled)
