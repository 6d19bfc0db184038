"""Embeddings together with the outputs for every patch of an image and every token of a text, in one pass."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from degla.model.block import attend_both_ways, heads_of, run_block, run_blocks
from degla.model.image import averages_a_map
from degla.model.text import MaskToken, attend_along, embed_nodes, project_texts, text_tower
from degla.prefixes import PrefixTree


def encode_patches(
    clip: nn.Module, images: Float[Tensor, "batch 3 height width"]
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch patches dim"]]:
    """Run an image tower for which `image.why_no_patches` gives no reason.

    Returns:
        The embedding and the outputs of the patches; projected, not normalised. Of a vision transformer, the embedding
        is the class token's output; of a convolutional network, the mean over the places of its last map, which are
        the patches.
    """
    visual: Any = clip.visual
    if averages_a_map(clip):
        places = visual.trunk.forward_features(images).flatten(2).transpose(1, 2)
        outputs = visual.head(visual.trunk.get_classifier()(places))
        return outputs.mean(dim=1), outputs
    attend = attend_both_ways(heads_of(visual.transformer))
    states = run_blocks(visual.transformer, visual._embeds(images), attend, training=visual.training)
    states = visual.ln_post(run_block(visual.transformer.resblocks[-1], states, attend))
    outputs = states if visual.proj is None else states @ visual.proj
    return outputs[:, 0], outputs[:, 1:]


def encode_tokens(
    clip: nn.Module, tree: PrefixTree, mask: MaskToken = None
) -> tuple[Float[Tensor, "texts dim"], Float[Tensor, "texts length dim"]]:
    """Run a causal text tower for which `text.tree_grower` gives something.

    Returns:
        The embedding of each text (the end token's output) and the outputs of its tokens; projected, not normalised.
        What stands behind the end token is some other token's output.
    """
    tower = text_tower(clip)
    attend = attend_along(tree, heads=heads_of(tower.transformer))
    states = run_blocks(tower.transformer, embed_nodes(tower, tree, mask), attend, training=tower.transformer.training)
    nodes = project_texts(tower, run_block(tower.transformer.resblocks[-1], states, attend))
    path = tree.path.index_select(0, tree.text)
    outputs = torch.unflatten(nodes.index_select(0, path.flatten()), 0, path.shape)
    end = tree.end.index_select(0, tree.text)
    return outputs[torch.arange(len(end), device=end.device), end], outputs
