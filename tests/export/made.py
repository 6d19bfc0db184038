"""Small transformers models with random weights, tokenizer and preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.model.test_load_transformers import write_tokenizer

SIZES = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2}
TINY_TOWER = "vit_tiny_patch8_siglip_32"


def register_tiny_tower() -> None:
    """Register a small SigLIP tower in timm, whose own are too large for tests."""
    import timm
    from timm.models import register_model
    from timm.models.vision_transformer import VisionTransformer

    from degla.model import timm_towers

    if timm.is_model(TINY_TOWER):
        return

    def tower(pretrained: bool = False, **options: Any) -> Any:
        for unknown in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            options.pop(unknown, None)
        sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "class_token": False}
        model = VisionTransformer(**sizes | {"global_pool": "map"} | options)
        model.default_cfg = model.pretrained_cfg = {}
        return model

    tower.__name__, tower.__module__ = TINY_TOWER, __name__
    globals()[TINY_TOWER] = tower
    register_model(tower)
    timm_towers.register(TINY_TOWER)


def write_openai_tokenizer(folder: Path) -> None:
    """Write OpenAI's tokenizer in the format of transformers, made from the merges in open_clip."""
    import open_clip

    from degla.export.tokenizer import clip_files

    folder.mkdir(parents=True, exist_ok=True)
    for name, content in clip_files(open_clip.SimpleTokenizer(), context=77).items():
        (folder / name).write_text(content)


def write_clip(folder: Path, *, kind: str = "clip", seed: int = 0, own: bool = False, **changes: Any) -> Any:
    """Write a CLIP or MetaCLIP 2 and return it; `own`: with OpenAI's vocabulary."""
    if own:
        write_openai_tokenizer(folder)
        end, vocabulary, context = 49407, 49408, 77
    else:
        tokenizer = write_tokenizer(folder, "clip")
        end, vocabulary, context = tokenizer.eos_token_id, 40, 24
    text = SIZES | {"vocab_size": vocabulary, "max_position_embeddings": context, "eos_token_id": end}
    vision = SIZES | {"image_size": 32, "patch_size": 8}
    text |= changes.pop("text", {})
    vision |= changes.pop("vision", {})
    names = {"clip": ("CLIPConfig", "CLIPModel"), "metaclip_2": ("MetaClip2Config", "MetaClip2Model")}[kind]
    config = getattr(transformers, names[0])(text_config=text, vision_config=vision, projection_dim=16)
    torch.manual_seed(seed)
    model = spread(getattr(transformers, names[1])(config))
    model.save_pretrained(folder, **changes)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6]
    ).save_pretrained(folder)
    return model


def write_siglip(folder: Path, *, seed: int = 0, activation: str = "gelu_pytorch_tanh") -> Any:
    """Write a SigLIP with an image tower from `register_tiny_tower` and return it."""
    write_tokenizer(folder, "siglip")
    text = SIZES | {"vocab_size": 40, "max_position_embeddings": 16, "hidden_act": activation}
    vision = SIZES | {"image_size": 32, "patch_size": 8, "hidden_act": activation}
    torch.manual_seed(seed)
    model = spread(transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision)))
    model.save_pretrained(folder)
    transformers.SiglipImageProcessor(size={"height": 32, "width": 32}, resample=2).save_pretrained(folder)
    return model


def spread(model: Any) -> Any:
    """Perturb every weight, so that none keeps an initial zero or one and unread ones are noticed."""
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.1)
    return model.eval()


def change_json(path: Path, **fields: Any) -> None:
    """Replace fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
