"""The world model's configuration, and how a state becomes a folder that open_clip loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from degla.world import world_vocabulary_file

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE: Final = "open_clip_config.json"
WEIGHTS_FILE: Final = "open_clip_model.safetensors"
CONTEXT_TOKENS: Final = 32


def model_config(*, vocabulary_size: int) -> dict[str, Any]:
    """open_clip's `model_cfg` of the world model: 64 pixels, patch 16, 3.35 million parameters."""
    return {
        "embed_dim": 256,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 192, "layers": 5, "head_width": 32},
        "text_cfg": {
            "context_length": CONTEXT_TOKENS,
            "vocab_size": vocabulary_size,
            "width": 128,
            "heads": 4,
            "layers": 3,
            "tokenizer_kwargs": {"bpe_path": world_vocabulary_file().name},
        },
    }


PREPROCESS: Final[dict[str, Any]] = {
    "size": [64, 64],
    "mode": "RGB",
    "mean": [0.45, 0.45, 0.45],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
"""open_clip's `preprocess_cfg` of the world model."""


def write_model_folder(folder: Path, state: Mapping[str, Tensor], *, vocabulary_size: int, provenance: str) -> None:
    """Write a model folder; weights are stored as float16 and become float32 again when open_clip loads them."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_config(vocabulary_size=vocabulary_size), "preprocess_cfg": PREPROCESS}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    half = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in state.items()}
    save_file(half, folder / WEIGHTS_FILE, metadata={"format": "pt", "provenance": provenance})
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors writes files that only their owner can read
    copy = folder / world_vocabulary_file().name
    if copy.resolve() != world_vocabulary_file().resolve():
        shutil.copyfile(world_vocabulary_file(), copy)
