"""Conversion of settings and weights between transformers' CLIP, MetaCLIP 2 and SigLIP and open_clip.

Settings come from `config.json` and `preprocessor_config.json`. Weights are only renamed, joined, split or transposed,
so converting back gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from degla.errors import InputError

LAYOUTS: dict[str, Kind] = {"clip": "clip", "metaclip_2": "clip", "siglip": "siglip"}
"""Maps `model_type` of config.json to the layout of the weights. SigLIP 2 of fixed resolution is also "siglip"."""
ACTIVATIONS: dict[str, dict[str, Any]] = {
    "quick_gelu": {},
    "gelu": {},
    "gelu_pytorch_tanh": {"act_kwargs": {"approximate": "tanh"}},
}
"""Maps the name of an activation in transformers to the settings of an open_clip tower."""
_RESAMPLING = {2: "bilinear", 3: "bicubic"}
_CLIP_EPS = 1e-5


class NoExactFormError(InputError):
    """open_clip has no equivalent of a transformers model.

    Attributes:
        folder: the model's folder, which transformers can score; None if only one setting was read.
    """

    folder: Path | None = None


def model_config_of(config: Any) -> dict[str, Any]:
    """Return open_clip's `model_cfg` for a two-tower model.

    Args:
        config: a `CLIPConfig`, `MetaClip2Config` or `SiglipConfig`.

    Raises:
        NoExactFormError: says which setting open_clip does not have.
    """
    text, vision = config.text_config, config.vision_config
    for name, tower in (("text", text), ("vision", vision)):
        if tower.hidden_act not in ACTIVATIONS:
            raise NoExactFormError(
                f"the activation of its {name} tower, {tower.hidden_act!r}, is not supported by open_clip "
                f"({', '.join(ACTIVATIONS)})"
            )
    siglip = LAYOUTS[config.model_type] == "siglip"
    model_config = _siglip(text, vision) if siglip else _clip(config, text, vision)
    model_config["text_cfg"] |= {
        "context_length": int(text.max_position_embeddings), "vocab_size": int(text.vocab_size),
        "width": int(text.hidden_size), "heads": int(text.num_attention_heads), "layers": int(text.num_hidden_layers),
        **_mlp_ratio(text), **ACTIVATIONS[text.hidden_act],
    }  # fmt: skip
    return model_config


def _clip(config: Any, text: Any, vision: Any) -> dict[str, Any]:
    if (text.hidden_act == "quick_gelu") != (vision.hidden_act == "quick_gelu"):
        raise NoExactFormError(
            f"its towers use {text.hidden_act} and {vision.hidden_act}, but in open_clip both or neither use quick_gelu"
        )
    eps = {name: float(tower.layer_norm_eps) for name, tower in (("text_cfg", text), ("vision_cfg", vision))}
    norms = {name: {"norm_kwargs": {"eps": value}} if value != _CLIP_EPS else {} for name, value in eps.items()}
    return {
        "embed_dim": int(config.projection_dim),
        "quick_gelu": text.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": _square(vision.image_size, "image_size"),
            "patch_size": _square(vision.patch_size, "patch_size"),
            "width": int(vision.hidden_size), "layers": int(vision.num_hidden_layers),
            "head_width": int(vision.hidden_size) // int(vision.num_attention_heads),
            **_mlp_ratio(vision), **norms["vision_cfg"], **ACTIVATIONS[vision.hidden_act],
        },
        "text_cfg": {**_end(config.model_type, text), **norms["text_cfg"]},
    }  # fmt: skip


def _end(model_type: str, text: Any) -> dict[str, Any]:
    """Where the text embedding is read: at the largest token id of the text, or at the first end token."""
    end = int(text.eos_token_id)
    # In transformers' CLIP, 2 is a legacy mistake that means the largest id; MetaCLIP 2 really uses 2.
    if (model_type == "clip" and end == 2) or end == int(text.vocab_size) - 1:
        return {}
    return {"pool_type": "eos", "eos_id": end}


def _siglip(text: Any, vision: Any) -> dict[str, Any]:
    if "quick_gelu" in (text.hidden_act, vision.hidden_act):
        raise NoExactFormError("open_clip has no SigLIP with quick_gelu")
    if not getattr(vision, "vision_use_head", True):
        raise NoExactFormError("its image tower has no attention pooling (field 'vision_config.vision_use_head')")
    eps = float(text.layer_norm_eps)
    return {
        "embed_dim": int(text.projection_size), "init_logit_bias": -10, "custom_text": True, "quick_gelu": False,
        "vision_cfg": {
            "image_size": _square(vision.image_size, "image_size"), "timm_model_name": _siglip_tower(vision),
            "timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none",
        },
        "text_cfg": {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": eps}},
    }  # fmt: skip


def _siglip_tower(vision: Any) -> str:
    """The timm tower with these sizes and this activation.

    Raises:
        NoExactFormError: there is none.
    """
    import timm

    from degla.model import timm_towers

    size, patch = _square(vision.image_size, "image_size"), _square(vision.patch_size, "patch_size")
    names = [name for name in timm.list_models(f"vit_*_patch{patch}_siglip_{size}*") if "_gap_" not in name]
    sizes = (
        int(vision.hidden_size), int(vision.num_hidden_layers), int(vision.num_attention_heads),
        int(vision.intermediate_size), float(vision.layer_norm_eps), str(vision.hidden_act),
    )  # fmt: skip
    # The plain name first, if both are equivalent.
    for name in sorted(names, key=lambda name: name.endswith(timm_towers.ENDING)):
        with torch.device("meta"):
            tower: Any = timm.create_model(name, num_classes=0, global_pool="map")
        block = tower.blocks[0]
        activation = "gelu_pytorch_tanh" if "Tanh" in type(block.mlp.act).__name__ else "gelu"
        own = (tower.embed_dim, len(tower.blocks), block.attn.num_heads, block.mlp.fc1.out_features, block.norm1.eps)
        if (*own, activation) == sizes:
            return str(name)
    raise NoExactFormError(
        f"open_clip uses SigLIP's image towers from timm, which has none with {size} pixels, patch size {patch}, "
        f"width {vision.hidden_size}, {vision.num_hidden_layers} blocks, {vision.num_attention_heads} heads and "
        f"{vision.hidden_act}"
    )


def _mlp_ratio(tower: Any) -> dict[str, Any]:
    width, inner = int(tower.hidden_size), int(tower.intermediate_size)
    # open_clip rounds width times ratio down.
    return {} if inner == 4 * width else {"mlp_ratio": inner / width if inner % width == 0 else (inner + 0.5) / width}


def _square(value: Any, name: str) -> int:
    sides = [value] if isinstance(value, int) else list(value)
    if len(set(sides)) != 1:
        raise NoExactFormError(f"field 'vision_config.{name}' is {value!r}, but images and patches must be square")
    return int(sides[0])


def preprocess_config_of(processor: dict[str, Any], *, size: int) -> dict[str, Any]:
    """Return open_clip's `preprocess_cfg` for an image processor's settings.

    Args:
        processor: settings as in `preprocessor_config.json`, with defaults filled in.
        size: side length of the model's images in pixels.

    Raises:
        NoExactFormError: the processor does something that open_clip's transform does not.
    """
    switches = {"do_resize": True, "do_rescale": True, "do_normalize": True}
    for name, value in switches.items():
        if processor.get(name) is not value:
            raise NoExactFormError(
                f"its image processor has {name} {processor.get(name)!r}, but open_clip's transform always does it"
            )
    factor = float(processor.get("rescale_factor", 1 / 255))
    if abs(255 * factor - 1) > 1e-6:
        raise NoExactFormError(f"its image processor scales by {factor:g}, but open_clip's transform by 1/255")
    interpolation = _RESAMPLING.get(int(processor.get("resample", -1)))
    if interpolation is None:
        raise NoExactFormError(f"its image processor has resample {processor.get('resample')!r}; known: {_RESAMPLING}")
    return {
        "size": [size, size],
        "mode": "RGB",
        "mean": three_channels(processor["image_mean"]),
        "std": three_channels(processor["image_std"]),
        "interpolation": interpolation,
        "resize_mode": _resize_mode(processor, size),
        "fill_color": 0,
    }


def three_channels(value: Any) -> list[float]:
    """Return a mean or standard deviation per channel; configurations may have one number for all.

    Raises:
        InputError: it is neither one number nor three.
    """
    parts = value if isinstance(value, list | tuple) else [value] * 3
    if len(parts) != 3 or not all(isinstance(part, int | float) for part in parts):
        raise InputError(f"a mean or standard deviation of images is {value!r}; it must be one number or three.")
    return [float(part) for part in parts]


def _resize_mode(processor: dict[str, Any], size: int) -> str:
    resized, crop = dict(processor.get("size") or {}), dict(processor.get("crop_size") or {})
    crops = bool(processor.get("do_center_crop"))
    square = {"height": size, "width": size}
    if _set(resized) == {"shortest_edge": size} and crops and _set(crop) == square:
        return "shortest"
    if _set(resized) == square and (not crops or _set(crop) == square):
        return "squash"
    cut = f" and crops to {_set(crop)}" if crops else ""
    raise NoExactFormError(
        f"its image processor resizes to {_set(resized)}{cut}; open_clip's transform resizes the shorter side to "
        f"{size} pixels and crops the centre, or resizes both sides to it"
    )


def _set(sizes: dict[str, Any]) -> dict[str, int]:
    return {name: int(value) for name, value in sizes.items() if value is not None}


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
    """Corresponding weights of the two models.

    Attributes:
        theirs: names in transformers; several are concatenated along their rows.
        ours: names in open_clip, likewise.
        turned: whether one is the transpose of the other.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    turned: bool = False


def pieces(kind: Kind, *, text_layers: int, image_layers: int, text: str = "") -> list[Piece]:
    """List the corresponding weights of a two-tower model.

    Args:
        kind: layout of the weights.
        text_layers: number of blocks of the text tower.
        image_layers: number of blocks of the image tower.
        text: prefix of the text tower's names in open_clip: "" in its class CLIP, "text." in CustomTextCLIP.
    """
    plan = [
        _one("logit_scale", "logit_scale"),
        _one("text_model.embeddings.token_embedding.weight", f"{text}token_embedding.weight"),
        _one("text_model.embeddings.position_embedding.weight", f"{text}positional_embedding"),
        *_ends("text_model.final_layer_norm", f"{text}ln_final"),
        *_blocks("text_model", f"{text}transformer.resblocks", text_layers, _BLOCK, "attn.in_proj_{}"),
    ]
    if kind == "clip":
        return [
            *plan,
            *_clip_image(image_layers),
            _one("text_projection.weight", f"{text}text_projection", turned=True),
        ]
    return [
        *plan,
        *_siglip_image(image_layers),
        *_ends("text_model.head", f"{text}text_projection"),
        _one("logit_bias", "logit_bias"),
    ]


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
    plan = []
    for number in range(layers):
        theirs, mine = f"{tower}.encoder.layers.{number}", f"{ours}.{number}"
        plan += [piece for name, other in names.items() for piece in _ends(f"{theirs}.{name}", f"{mine}.{other}")]
        for end in _ENDS:
            parts = tuple(f"{theirs}.self_attn.{part}_proj.{end}" for part in "qkv")
            plan.append(Piece(parts, (f"{mine}.{joined.format(end)}",)))
    return plan


def to_open_clip(
    state: Mapping[str, Tensor], plan: Sequence[Piece], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Convert weights of transformers to open_clip's names; `shapes` are those of the open_clip model's weights.

    Raises:
        KeyError: a weight is missing on either side.
        ValueError: a weight has a different shape; says which.
    """
    return _carried(state, [(piece.theirs, piece.ours, piece.turned) for piece in plan], shapes)


def to_transformers(
    state: Mapping[str, Tensor], plan: Sequence[Piece], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Convert weights of open_clip to the names of transformers, see `to_open_clip`; all must have a counterpart."""
    extra = sorted(state.keys() - {name for piece in plan for name in piece.ours})
    if extra:
        raise ValueError(f"{extra[0]} has no counterpart")
    return _carried(state, [(piece.ours, piece.theirs, piece.turned) for piece in plan], shapes)


def _carried(
    state: Mapping[str, Tensor], moves: Sequence[tuple[Any, Any, bool]], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    carried: dict[str, Tensor] = {}
    for sources, targets, turned in moves:
        value = torch.cat([state[name] for name in sources]) if len(sources) > 1 else state[sources[0]]
        value = value.T if turned else value
        target_shapes = [shapes[name] for name in targets]
        parts = [value] if len(target_shapes) == 1 else _split(value, target_shapes)
        for name, part, shape in zip(targets, parts, target_shapes, strict=True):
            # Axes of length one may differ; any other difference means another model.
            if [size for size in part.shape if size != 1] != [size for size in shape if size != 1]:
                raise ValueError(f"{' + '.join(sources)} has the shape {list(part.shape)}, {name} has {list(shape)}")
            carried[name] = part.reshape(shape).contiguous()
    return carried


def _split(value: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    rows = [shape[0] for shape in shapes]
    if sum(rows) != len(value):
        raise ValueError(f"a weight with {len(value)} rows cannot be split into {rows}")
    return list(torch.split(value, rows))
