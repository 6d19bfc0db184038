"""Text towers without computation for padding: exact if attention is causal and the embedding is read at the end token.

Embeddings of texts, and on request the outputs for every token.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from degla.model.block import (
    Attend,
    attention,
    heads_of,
    run_block,
    run_blocks,
    run_last_block,
    split_heads,
    why_unknown,
)
from degla.prefixes import MASKED, GrowTree, PrefixTree, ends_of

_GROUPS, _SMALLEST = 4, 8
"""Groups of texts of similar length that a tower of transformers reads, and the fewest texts of each."""


def text_tower(clip: nn.Module) -> Any:
    """Return the module with the text tower's parts: `clip.text`, or `clip` itself for open_clip's CLIP class."""
    return getattr(clip, "text", clip)


def pool_type(clip: nn.Module) -> str:
    """Return how the tower pools token outputs into one vector: "argmax" and "eos" read the end token."""
    tower = text_tower(clip)
    return str(getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", "none"))


def end_token(clip: nn.Module) -> int | None:
    """Return the id of the token that open_clip's own tower is read at; None if it is the largest id of a text."""
    tower = text_tower(clip)
    return None if pool_type(clip) == "argmax" else int(getattr(tower, "text_eos_id", None) or tower.eos_id)


def why_padded(clip: nn.Module) -> str | None:
    """Return why texts must be padded; None if they can be trimmed to the longest of the batch without any change.

    None for open_clip's own causal towers that are pooled at the end token: no token attends to its right, and nothing
    after the end token is read. None for towers of `transformers`: open_clip passes them an attention mask, so they
    neither attend to padding nor pool it. A reason for towers that attend to padding (SigLIP) or append a class token
    after it (CoCa).
    """
    if masks_padding(clip):
        return None
    tower = text_tower(clip)
    parts = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
    if not all(hasattr(tower, part) for part in parts):
        return f"is a {type(tower).__name__}, not open_clip's own transformer"
    if getattr(tower, "attn_mask", None) is None:
        return "attends both ways, to padding too"
    if getattr(tower, "cls_emb", None) is not None:
        return "appends a class token"
    return None if pool_type(clip) in ("argmax", "eos") else f"is read by {pool_type(clip)!r}, not at the end token"


def masks_padding(clip: nn.Module) -> bool:
    """Whether the text tower is one of `transformers`."""
    from open_clip.hf_model import HFTextEncoder

    return isinstance(text_tower(clip), HFTextEncoder)


def padding_token(clip: nn.Module) -> int:
    """Return the padding token id."""
    return int(text_tower(clip).config.pad_token_id) if masks_padding(clip) else 0


def can_trim(clip: nn.Module) -> bool:
    """Whether texts can be trimmed to the longest of the batch without changing any embedding."""
    return why_padded(clip) is None


def why_no_tree(clip: nn.Module) -> str | None:
    """Return why texts cannot share the states of common prefixes; None if that is exact."""
    return why_padded(clip) or why_unknown(text_tower(clip).transformer)


def encode_trimmed(clip: nn.Module, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts dim"]:
    """Run a text tower on texts of any length up to its context length.

    open_clip 3's own `encode_text` adds the whole positional table, so it accepts only padded texts.

    Args:
        clip: a model for which `can_trim` holds.
        tokens: token ids, each row with its end token within `length`.

    Returns:
        One vector per text, not normalised.
    """
    if masks_padding(clip):
        return _encode_by_length(clip, tokens)
    tower = text_tower(clip)
    length = tokens.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    outputs = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
    outputs = tower.transformer(outputs, attn_mask=tower.attn_mask[:length, :length])
    # Selecting the end token first avoids the final normalisation of all other positions.
    pooled = outputs[torch.arange(len(tokens), device=tokens.device), ends_of(tokens, end_token(clip))]
    return project_texts(tower, tower.ln_final(pooled))


def _encode_by_length(clip: Any, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts dim"]:
    """Run a tower of `transformers` on a few groups of texts of similar length, each trimmed to its longest.

    On a CPU, where several small calls cost no more than one large one: the longest of a batch's captions and negatives
    has about twice the tokens of the others.
    """
    if tokens.device.type != "cpu" or len(tokens) < _GROUPS * _SMALLEST:
        return cast(Tensor, clip.encode_text(tokens))
    places = torch.arange(1, tokens.shape[1] + 1)
    length = (places * (tokens != padding_token(clip))).amax(dim=1)
    order = length.argsort(stable=True)
    parts = [clip.encode_text(tokens[rows, : max(int(length[rows[-1]]), 1)]) for rows in order.tensor_split(_GROUPS)]
    return torch.cat(parts)[order.argsort()]


def project_texts(tower: Any, pooled: Float[Tensor, "texts width"]) -> Float[Tensor, "texts dim"]:
    """Project rows of states, after the final normalisation, into the joint space."""
    projection = tower.text_projection
    if projection is not None:
        pooled = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
    return pooled


def tree_grower(clip: nn.Module) -> GrowTree | None:
    """Return a builder of prefix trees for this tower; None if shared prefixes would not be exact.

    They are exact if `can_trim` holds and all blocks are open_clip's plain ones.
    """
    return None if why_no_tree(clip) is not None else GrowTree(end_token(clip))


MaskToken = Float[Tensor, " width"] | None
"""Embedding of a masked word before positions are added; None if no text has one."""


def embed_nodes(tower: Any, tree: PrefixTree, mask: MaskToken = None) -> Float[Tensor, "nodes width"]:
    """Return the input of the first block: one state per node."""
    dtype = tower.transformer.get_cast_dtype()
    if mask is None:
        words = tower.token_embedding(tree.token)
    else:
        words = tower.token_embedding(tree.token.clamp(min=0))
        words = torch.where((tree.token == MASKED)[:, None], mask.to(words.dtype), words)
    states: Tensor = words.to(dtype) + tower.positional_embedding[tree.position].to(dtype)
    return states


def along_texts(tree: PrefixTree, rows: Tensor, *, heads: int) -> Float[Tensor, "different heads length head"]:
    """Return the rows of the nodes on each text's path, by attention head."""
    return split_heads(rows.index_select(0, tree.path.flatten()).view(*tree.path.shape, -1), heads)


def attend_along(tree: PrefixTree, *, heads: int) -> Attend:
    """Return causal attention of nodes to the preceding nodes of their texts."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended = attention(*(along_texts(tree, rows, heads=heads) for rows in (query, key, value)), is_causal=True)
        return attended.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, tree.source)

    return attend


def encode_tree(clip: nn.Module, tree: PrefixTree, mask: MaskToken = None) -> Float[Tensor, "texts dim"]:
    """Run a causal text tower once over every distinct prefix of the texts.

    Token-wise operations, which are most of the work, run over the tree's nodes. Attention runs over whole texts, whose
    queries, keys and values are gathered from the nodes on their path.

    Args:
        clip: a model for which `tree_grower` returns a builder.
        tree: made by that builder.
        mask: embedding of masked words.

    Returns:
        One vector per text, not normalised.
    """
    tower = text_tower(clip)
    return project_texts(tower, tower.ln_final(_tree_ends(clip, tree, mask))).index_select(0, tree.text)


def encode_tree_states(
    clip: nn.Module, tree: PrefixTree, mask: MaskToken = None
) -> tuple[Float[Tensor, "texts dim"], Float[Tensor, "texts width"]]:
    """As `encode_tree`, also returning its input to the projection: each end token's state after the last norm."""
    tower = text_tower(clip)
    states = tower.ln_final(_tree_ends(clip, tree, mask))
    return project_texts(tower, states).index_select(0, tree.text), states.index_select(0, tree.text)


def _tree_ends(clip: nn.Module, tree: PrefixTree, mask: MaskToken) -> Float[Tensor, "different width"]:
    tower = text_tower(clip)
    heads = heads_of(tower.transformer)
    attend = attend_along(tree, heads=heads)
    reached = (torch.arange(tree.path.shape[1], device=tree.path.device) <= tree.end[:, None])[:, None, None]
    last = tree.path.gather(1, tree.end[:, None])[:, 0]

    def attend_once(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = (along_texts(tree, rows, heads=heads) for rows in (key, value))
        return attention(split_heads(query[:, None], heads), keys, values, attn_mask=reached).flatten(1)

    states = run_blocks(tower.transformer, embed_nodes(tower, tree, mask), attend, training=tower.transformer.training)
    return run_last_block(
        tower.transformer.resblocks[-1], states, attend_once, read=lambda rows: rows.index_select(0, last)
    )


def encode_tokens(
    clip: nn.Module, tree: PrefixTree, mask: MaskToken = None
) -> tuple[Float[Tensor, "texts dim"], Float[Tensor, "texts length dim"]]:
    """Run a causal text tower for which `tree_grower` returns a builder.

    Returns:
        The embedding of each text (the end token's output) and the outputs of its tokens; projected, not normalised.
        Positions after the end token hold outputs of arbitrary other tokens.
    """
    tower = text_tower(clip)
    attend = attend_along(tree, heads=heads_of(tower.transformer))
    states = run_blocks(tower.transformer, embed_nodes(tower, tree, mask), attend, training=tower.transformer.training)
    nodes = project_texts(tower, tower.ln_final(run_block(tower.transformer.resblocks[-1], states, attend)))
    path = tree.path.index_select(0, tree.text)
    outputs = torch.unflatten(nodes.index_select(0, path.flatten()), 0, path.shape)
    end = tree.end.index_select(0, tree.text)
    return outputs[torch.arange(len(end), device=end.device), end], outputs
