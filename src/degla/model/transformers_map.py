"""Which weight of transformers' CLIP, MetaCLIP 2 and SigLIP is which of open_clip's.

They are renamed, joined, split or turned, never computed with, so that the way back gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["clip", "siglip"]
"""The two layouts of weights; MetaCLIP 2 has CLIP's."""

_BLOCK = {"layer_norm1": "ln_1", "self_attn.out_proj": "attn.out_proj", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
          "mlp.fc2": "mlp.c_proj"}  # fmt: skip
_TIMM_BLOCK = {"layer_norm1": "norm1", "self_attn.out_proj": "attn.proj", "layer_norm2": "norm2", "mlp.fc1": "mlp.fc1",
               "mlp.fc2": "mlp.fc2"}  # fmt: skip
_POOL = {"attention.out_proj": "proj", "layernorm": "norm", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_ENDS = ("weight", "bias")


@dataclass(frozen=True)
class Piece:
    """Weights of one model that are the same numbers as weights of the other.

    Attributes:
        theirs: names in transformers; several are joined along their rows.
        ours: names in open_clip, likewise.
        turned: rows of the one are columns of the other.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    turned: bool = False


def pieces(kind: Kind, *, text_layers: int, image_layers: int, text: str = "") -> list[Piece]:
    """All weights of a two-tower model.

    Args:
        kind: layout of the weights.
        text_layers: blocks of the text tower.
        image_layers: blocks of the image tower.
        text: what open_clip's names of the text tower begin with: "" in its class CLIP, "text." in CustomTextCLIP.
    """
    found = [
        _one("logit_scale", "logit_scale"),
        _one("text_model.embeddings.token_embedding.weight", f"{text}token_embedding.weight"),
        _one("text_model.embeddings.position_embedding.weight", f"{text}positional_embedding"),
        *_ends("text_model.final_layer_norm", f"{text}ln_final"),
        *_blocks("text_model", f"{text}transformer.resblocks", text_layers, _BLOCK, "attn.in_proj_{}"),
    ]
    if kind == "clip":
        return [
            *found,
            *_clip_image(image_layers),
            _one("text_projection.weight", f"{text}text_projection", turned=True),
        ]
    return [
        *found, *_siglip_image(image_layers), *_ends("text_model.head", f"{text}text_projection"),
        _one("logit_bias", "logit_bias"),
    ]  # fmt: skip


def _clip_image(layers: int) -> list[Piece]:
    inside = "vision_model.embeddings"
    return [
        _one(f"{inside}.class_embedding", "visual.class_embedding"),
        _one(f"{inside}.patch_embedding.weight", "visual.conv1.weight"),
        _one(f"{inside}.position_embedding.weight", "visual.positional_embedding"),
        *_ends("vision_model.pre_layrnorm", "visual.ln_pre"),
        *_ends("vision_model.post_layernorm", "visual.ln_post"),
        *_blocks("vision_model", "visual.transformer.resblocks", layers, _BLOCK, "attn.in_proj_{}"),
        _one("visual_projection.weight", "visual.proj", turned=True),
    ]


def _siglip_image(layers: int) -> list[Piece]:
    trunk, pool, head = "visual.trunk", "visual.trunk.attn_pool", "vision_model.head"
    return [
        *_ends("vision_model.embeddings.patch_embedding", f"{trunk}.patch_embed.proj"),
        _one("vision_model.embeddings.position_embedding.weight", f"{trunk}.pos_embed"),
        *_ends("vision_model.post_layernorm", f"{trunk}.norm"),
        *_blocks("vision_model", f"{trunk}.blocks", layers, _TIMM_BLOCK, "attn.qkv.{}"),
        _one(f"{head}.probe", f"{pool}.latent"),
        *(Piece((f"{head}.attention.in_proj_{end}",), (f"{pool}.q.{end}", f"{pool}.kv.{end}")) for end in _ENDS),
        *(piece for theirs, ours in _POOL.items() for piece in _ends(f"{head}.{theirs}", f"{pool}.{ours}")),
    ]


def _one(theirs: str, ours: str, *, turned: bool = False) -> Piece:
    return Piece((theirs,), (ours,), turned)


def _ends(theirs: str, ours: str) -> list[Piece]:
    return [_one(f"{theirs}.{end}", f"{ours}.{end}") for end in _ENDS]


def _blocks(tower: str, ours: str, layers: int, names: Mapping[str, str], joined: str) -> list[Piece]:
    found = []
    for number in range(layers):
        theirs, mine = f"{tower}.encoder.layers.{number}", f"{ours}.{number}"
        found += [piece for name, other in names.items() for piece in _ends(f"{theirs}.{name}", f"{mine}.{other}")]
        for end in _ENDS:
            parts = tuple(f"{theirs}.self_attn.{part}_proj.{end}" for part in "qkv")
            found.append(Piece(parts, (f"{mine}.{joined.format(end)}",)))
    return found


def to_open_clip(
    state: Mapping[str, Tensor], plan: Sequence[Piece], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Weights of transformers under open_clip's names; `shapes`: of the open_clip model's weights.

    Raises:
        KeyError: a weight is missing on either side.
        ValueError: a weight has another shape; says which.
    """
    return _carried(state, [(piece.theirs, piece.ours, piece.turned) for piece in plan], shapes)


def to_transformers(
    state: Mapping[str, Tensor], plan: Sequence[Piece], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Weights of open_clip under the names of transformers; see `to_open_clip`. All of them must have one."""
    left = sorted(state.keys() - {name for piece in plan for name in piece.ours})
    if left:
        raise ValueError(f"{left[0]} has no place")
    return _carried(state, [(piece.ours, piece.theirs, piece.turned) for piece in plan], shapes)


def _carried(
    state: Mapping[str, Tensor], moves: Sequence[tuple[Any, Any, bool]], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    carried: dict[str, Tensor] = {}
    for sources, targets, turned in moves:
        value = torch.cat([state[name] for name in sources]) if len(sources) > 1 else state[sources[0]]
        value = value.T if turned else value
        wanted = [shapes[name] for name in targets]
        parts = [value] if len(wanted) == 1 else _split(value, wanted)
        for name, part, shape in zip(targets, parts, wanted, strict=True):
            # Axes of length one come and go; any other difference is another model.
            if [size for size in part.shape if size != 1] != [size for size in shape if size != 1]:
                raise ValueError(f"{' + '.join(sources)} has the shape {list(part.shape)}, {name} has {list(shape)}")
            carried[name] = part.reshape(shape).contiguous()
    return carried


def _split(value: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    rows = [shape[0] for shape in shapes]
    if sum(rows) != len(value):
        raise ValueError(f"a weight of {len(value)} rows does not split into {rows}")
    return list(torch.split(value, rows))
