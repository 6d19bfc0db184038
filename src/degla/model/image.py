"""Image towers, read only at the class token, so that the last block computes nothing else; or with all patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from degla.inputs import FrozenStates
from degla.model.block import (
    attend_both_ways,
    heads_of,
    run_block,
    run_blocks,
    run_last_block,
    split_heads,
    why_unknown,
)
from degla.model.token_mask import take_tokens
from degla.model.towers import tower_depth

SeesAttention = Callable[
    [Float[Tensor, "batch heads length"], Float[Tensor, "batch heads length head"]], Float[Tensor, "batch heads length"]
]
"""Maps the class token's attention in the last block (to itself first) and the values to the attention to use."""


def why_all_patches(clip: nn.Module) -> str | None:
    """Return why the last block is computed for all patches; None if the embedding is read only at its class token.

    None for open_clip's own vision transformers with plain blocks and `pool_type` "tok"; a reason for those that
    average or attend over patches, and for ResNets and towers of `timm`.
    """
    from open_clip.transformer import VisionTransformer

    visual: Any = getattr(clip, "visual", clip)
    if type(visual) is not VisionTransformer:
        return f"is a {type(visual).__name__}, not open_clip's own vision transformer"
    if visual.attn_pool is not None or visual.pool_type != "tok":
        return f"is read {'by attention' if visual.attn_pool is not None else repr(visual.pool_type)} over its patches"
    return why_unknown(visual.transformer)


def reads_class_token(clip: nn.Module) -> bool:
    """Whether the image embedding depends only on the last block's class token."""
    return why_all_patches(clip) is None


def why_no_patches(clip: nn.Module) -> str | None:
    """Return why an image tower provides no patch outputs; None if it `reads_class_token` or `averages_a_map`."""
    return None if averages_a_map(clip) else why_all_patches(clip)


def averages_a_map(clip: nn.Module) -> bool:
    """Whether the image embedding is the mean of a linear layer's outputs over the positions of a feature map.

    This holds for EfficientNets and ResNets of `timm` with average pooling and a linear projection.
    """
    from open_clip.timm_model import TimmModel

    visual: Any = getattr(clip, "visual", clip)
    if type(visual) is not TimmModel:
        return False
    from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
    from timm.models.efficientnet import EfficientNet
    from timm.models.resnet import ResNet

    trunk: Any = visual.trunk
    pool = getattr(trunk, "global_pool", None)
    return (
        type(trunk) in (EfficientNet, ResNet)
        and isinstance(pool, SelectAdaptivePool2d)
        and pool.pool_type == "avg"
        and all(
            isinstance(part, nn.Identity | nn.Dropout | nn.Linear) for part in (trunk.get_classifier(), *visual.head)
        )
    )


def count_frozen(clip: nn.Module) -> int:
    """Return how many first blocks student and teacher can share: nothing in or before them is trained.

    The last block is never shared. It is 0 for towers for which `reads_class_token` does not hold, and for those that
    drop patches in training, which a teacher does not.
    """
    visual: Any = getattr(clip, "visual", clip)
    depth = tower_depth(clip, "image") if reads_class_token(clip) else None
    if depth is None or getattr(visual.patch_dropout, "prob", 0.0) > 0:
        return 0
    named = dict(clip.named_parameters())
    trained = [number for name, number in depth.of.items() if named[name].requires_grad]
    return max(min([*trained, depth.count - 1]), 0)


@torch.no_grad()
def run_frozen(clip: nn.Module, images: Float[Tensor, "batch 3 height width"], blocks: int) -> FrozenStates:
    """Run the first `blocks` blocks of a vision transformer, of which nothing is trained."""
    visual: Any = clip.visual
    attend = attend_both_ways(heads_of(visual.transformer))
    states = run_blocks(visual.transformer, visual._embeds(images), attend, training=False, end=blocks)
    return FrozenStates(states, blocks)


def encode_class_token(
    clip: nn.Module,
    images: Float[Tensor, "batch 3 height width"] | FrozenStates,
    places: Int[Tensor, "batch places"] | None = None,
    look: SeesAttention | None = None,
) -> Float[Tensor, "batch dim"]:
    """Run a vision transformer for which `reads_class_token` holds; return its embeddings, not normalised.

    Args:
        clip: the model.
        images: transformed; or their states after the first blocks.
        places: indices of the patches to read; all by default. The others are dropped before the first block, after
            positional embeddings are added. Not with states.
        look: receives the class token's attention in the last block and may change it.
    """
    visual: Any = clip.visual
    states, first = _start(visual, images)
    if places is not None:
        states = torch.cat([states[:, :1], take_tokens(states[:, 1:], places)], dim=1)
    heads = heads_of(visual.transformer)
    attend = attend_both_ways(heads)

    def attend_once(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if look is None:
            return attend(query[:, None], key, value)[:, 0]
        one, keys, values = (split_heads(rows, heads) for rows in (query[:, None], key, value))
        row = look((one @ keys.transpose(2, 3) / keys.shape[3] ** 0.5).softmax(dim=3)[:, :, 0], values)
        return (row[:, :, None] @ values)[:, :, 0].flatten(1)

    states = run_blocks(visual.transformer, states, attend, training=visual.training, first=first)
    pooled = run_last_block(visual.transformer.resblocks[-1], states, attend_once, read=lambda rows: rows[:, 0])
    pooled = visual.ln_post(pooled)
    return cast(Tensor, pooled if visual.proj is None else pooled @ visual.proj)


def _start(visual: Any, images: Tensor | FrozenStates) -> tuple[Tensor, int]:
    """Return the states to continue with, and the number of the block that comes next."""
    return (images.values, images.blocks) if isinstance(images, FrozenStates) else (visual._embeds(images), 0)


def encode_patches(
    clip: nn.Module, images: Float[Tensor, "batch 3 height width"] | FrozenStates
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch patches dim"]]:
    """Run an image tower for which `why_no_patches` returns None.

    Returns:
        The embedding and the outputs of the patches; projected, not normalised. The embedding of a vision transformer
        is the class token's output. That of a convolutional network is the mean over the positions of its last feature
        map, which serve as patches.
    """
    visual: Any = clip.visual
    if averages_a_map(clip):
        places = visual.trunk.forward_features(images).flatten(2).transpose(1, 2)
        outputs = visual.head(visual.trunk.get_classifier()(places))
        return outputs.mean(dim=1), outputs
    attend = attend_both_ways(heads_of(visual.transformer))
    states, first = _start(visual, images)
    states = run_blocks(visual.transformer, states, attend, training=visual.training, first=first)
    states = visual.ln_post(run_block(visual.transformer.resblocks[-1], states, attend))
    outputs = states if visual.proj is None else states @ visual.proj
    return outputs[:, 0], outputs[:, 1:]
