"""Export an open_clip model to transformers: CLIP, MetaCLIP 2 or SigLIP, with tokenizer and preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from degla.errors import InputError
from degla.export.check import Probe, require_tokens
from degla.export.tokenizer import change_settings, write_tokenizer
from degla.model import probe
from degla.model.encoder import Encoder
from degla.model.fast_paths import why_not_plain
from degla.model.from_transformers import pooled
from degla.model.text import end_token, pool_type, text_tower
from degla.model.transformers_files import INSTALL, open_transformers
from degla.model.transformers_map import LAYOUTS, pieces, to_transformers
from degla.progress import quiet_transformers

_REMEDY = "Export it to open_clip or onnx."


def write_transformers(encoder: Encoder, folder: Path) -> None:
    """Write config.json, model.safetensors, tokenizer and preprocessor_config.json.

    Raises:
        InputError: `transformers` is not installed or has no equivalent model.
    """
    try:
        import transformers
    except ImportError:
        raise InputError(f"--to transformers needs transformers, which is not installed. {INSTALL}") from None
    kind, config = _config(encoder)
    model_type = config.pop("model_type")
    names = {"clip": "CLIP", "metaclip_2": "MetaClip2", "siglip": "Siglip"}
    if not hasattr(transformers, f"{names[model_type]}Model"):
        raise InputError(f"{encoder.name}: needs a newer transformers, with {names[model_type]}Model.")
    model_config = getattr(transformers, f"{names[model_type]}Config")(**config)
    model = getattr(transformers, f"{names[model_type]}Model")(model_config).float().eval()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    plan = pieces(
        kind,
        text_layers=config["text_config"]["num_hidden_layers"],
        image_layers=config["vision_config"]["num_hidden_layers"],
        text="" if text_tower(encoder.clip) is encoder.clip else "text.",
    )
    try:
        state = to_transformers(encoder.clip.state_dict(), plan, shapes)
        model.load_state_dict(state, strict=True)
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{encoder.name}: has weights that transformers' {names[model_type]} lacks: {error}. {_REMEDY}"
        ) from None
    with quiet_transformers():
        model.save_pretrained(folder)
    write_processor(encoder, folder)
    write_tokenizer(encoder, folder)
    if kind == "siglip":
        # It attends to padding, so the attention mask that most tokenizers return would change the embeddings.
        change_settings(folder, model_input_names=["input_ids"])


def write_processor(encoder: Encoder, folder: Path) -> None:
    """Write preprocessor_config.json.

    Raises:
        InputError: the model's preprocessing pads images, which the processors of transformers do not support.
    """
    import transformers

    settings = encoder.description.preprocess_config
    mode, (height, width) = settings.get("resize_mode", "shortest"), encoder.image_size
    if mode == "longest" or (mode == "shortest" and height != width):
        raise InputError(
            f"{encoder.name}: images are resized by {mode!r} to {height} x {width}, which no processor "
            "of transformers does. Export it to open_clip."
        )
    side: dict[str, Any] = {"height": height, "width": width}
    kind: Any = transformers.SiglipImageProcessor if mode == "squash" else transformers.CLIPImageProcessor
    sizes = {"size": side} if mode == "squash" else {"size": {"shortest_edge": height}, "crop_size": side}
    processor: Any = kind(
        **sizes,
        image_mean=settings["mean"],
        image_std=settings["std"],
        resample=2 if settings.get("interpolation") == "bilinear" else 3,
    )
    processor.save_pretrained(folder)


def check_transformers(encoder: Encoder, folder: Path) -> tuple[float, float]:
    """Load the folder with transformers; return the largest differences in embeddings and in pixels (levels of 255).

    Raises:
        DeglaError: embeddings differ by more than rounding, or texts are encoded differently.
    """
    opened = open_transformers(folder)
    reference = Probe.of(encoder)
    texts = opened.tokenizer(
        list(probe.TEXTS), padding="max_length", truncation=True, max_length=encoder.context_length, return_tensors="pt"
    )
    require_tokens("transformers", encoder, reference.tokens, texts["input_ids"])
    with torch.no_grad():
        images = pooled(opened.model.get_image_features(pixel_values=reference.pixels))
        rows = pooled(opened.model.get_text_features(**texts))
    difference = reference.require("transformers", images, rows, bound=probe.EXACT)
    pixels = opened.processor(images=list(reference.pictures), return_tensors="pt")["pixel_values"]
    std = torch.tensor(encoder.description.preprocess_config["std"]).view(3, 1, 1)
    return difference, float(((pixels - reference.pixels).abs() * std * 255).max())


def _config(encoder: Encoder) -> tuple[Any, dict[str, Any]]:
    """The layout of the weights, and the arguments of transformers' configuration with its `model_type`.

    Raises:
        InputError: the towers have no equivalent in transformers' CLIP or SigLIP.
    """
    clip = encoder.clip
    if why_not_plain(clip) is None and not isinstance(clip.visual.ln_pre, nn.Identity):
        config = _clip_config(encoder)
    elif _is_siglip(clip):
        config = _siglip_config(encoder)
    else:
        why = why_not_plain(clip) or "its image tower has no normalisation before its blocks"
        raise InputError(f"{encoder.name}: transformers has no equivalent CLIP or SigLIP: {why}. {_REMEDY}")
    return LAYOUTS[config["model_type"]], config


def _clip_config(encoder: Encoder) -> dict[str, Any]:
    clip, visual = encoder.clip, encoder.clip.visual
    if clip.logit_bias is not None:
        raise InputError(f"{encoder.name}: has a logit_bias, which transformers' CLIP lacks. {_REMEDY}")
    text = _text_config(encoder)
    model_type = "clip"
    end = end_token(clip)
    if end is None:
        largest = int(getattr(encoder.tokenize, "eot_token_id", -1))
        # In transformers' CLIP, 2 means the largest id of the text.
        end = largest if largest == text["vocab_size"] - 1 else 2
    elif end == 2:
        model_type = "metaclip_2"
    text["eos_token_id"] = end
    dimension = int(visual.proj.shape[1])
    text["projection_dim"] = dimension
    start = int(getattr(encoder.tokenize, "sot_token_id", 1))
    text |= {"bos_token_id": start, "pad_token_id": text["eos_token_id"] if model_type == "clip" else 1}
    vision = {
        **_blocks(visual.transformer.resblocks),
        "image_size": encoder.image_size[0],
        "patch_size": int(visual.patch_size[0]),
        "projection_dim": dimension,
    }
    if len({*visual.patch_size}) > 1 or len({*encoder.image_size}) > 1:
        raise InputError(f"{encoder.name}: its images or patches are not square, as transformers needs. {_REMEDY}")
    return {"model_type": model_type, "text_config": text, "vision_config": vision, "projection_dim": dimension}


def _is_siglip(clip: Any) -> bool:
    """Whether the towers are SigLIP's: a timm tower with attention pooling, and a text tower read at its last token."""
    trunk = getattr(clip.visual, "trunk", None)
    tower = text_tower(clip)
    return (
        type(getattr(trunk, "attn_pool", None)).__name__ == "AttentionPoolLatent"
        and not list(clip.visual.head.children())
        and hasattr(tower, "token_embedding")
        and getattr(tower, "attn_mask", None) is None
        and pool_type(clip) == "last"
        and isinstance(tower.text_projection, nn.Linear)
        and clip.logit_bias is not None
    )


def _siglip_config(encoder: Encoder) -> dict[str, Any]:
    trunk = encoder.clip.visual.trunk
    block = trunk.blocks[0]
    vision = {
        "hidden_size": int(trunk.embed_dim), "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": int(block.attn.num_heads), "intermediate_size": int(block.mlp.fc1.out_features),
        "hidden_act": _activation(block.mlp.act), "layer_norm_eps": float(block.norm1.eps),
        "image_size": encoder.image_size[0], "patch_size": int(trunk.patch_embed.patch_size[0]),
    }  # fmt: skip
    text = _text_config(encoder)
    text["projection_size"] = int(text_tower(encoder.clip).text_projection.out_features)
    inner: Any = getattr(encoder.tokenize, "tokenizer", None)
    # Where one is missing, transformers takes CLIP's, which may lie outside of this vocabulary.
    text |= {name: getattr(inner, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {"model_type": "siglip", "text_config": text, "vision_config": vision}


def _text_config(encoder: Encoder) -> dict[str, Any]:
    tower = text_tower(encoder.clip)
    return {
        **_blocks(tower.transformer.resblocks),
        "vocab_size": int(tower.token_embedding.num_embeddings),
        "max_position_embeddings": int(tower.positional_embedding.shape[0]),
    }


def _blocks(blocks: Any) -> dict[str, Any]:
    block = blocks[0]
    return {
        "hidden_size": len(block.ln_1.weight), "num_hidden_layers": len(blocks),
        "num_attention_heads": int(block.attn.num_heads), "intermediate_size": int(block.mlp.c_fc.out_features),
        "hidden_act": _activation(block.mlp.gelu), "layer_norm_eps": float(block.ln_1.eps),
    }  # fmt: skip


def _activation(module: Any) -> str:
    kind = type(module).__name__
    if kind == "QuickGELU":
        return "quick_gelu"
    return "gelu_pytorch_tanh" if "Tanh" in kind or getattr(module, "approximate", "none") == "tanh" else "gelu"
