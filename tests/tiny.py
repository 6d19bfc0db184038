"""A CLIP with a few thousand parameters as an open_clip folder, and image-caption data for it."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

MERGES = 2000
"""The first of CLIP's 48,894 merges: embeddings of all its tokens would be 98 % of a tiny model's parameters."""

ALL_TOKENS: dict[str, Any] = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
"""For `text_cfg`, with open_clip's own tokenizer and no file of it."""

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": ALL_TOKENS | {"vocab_size": 2 * 256 + MERGES + 2, "tokenizer_kwargs": {"bpe_path": "bpe_tiny.txt.gz"}},
}

CAPTIONS = [
    "a red square above a blue circle",
    "a green star beside a yellow heart",
    "two small dogs on a wooden bench",
    "an old man with a white hat",
    "a cat",
    "three black birds over the quiet grey sea at night",
]

CLASSES = ["square", "dog", "old man"]


RESNET: dict[str, Any] = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}
"""OpenAI's kind of ResNet, with BatchNorm, for `vision_cfg`."""


def timm_tower(name: str = "test_efficientnet", *, image_size: int = 32) -> dict[str, Any]:
    """A tower of timm, with BatchNorm by default, for `vision_cfg`."""
    return {"timm_model_name": name, "timm_pool": "avg", "timm_proj": "linear", "image_size": image_size}


def write_model(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Random weights as a `local-dir:` folder; `changes` replace fields of the configuration."""
    import open_clip

    config = CONFIG | changes
    size = config["vision_cfg"]["image_size"]
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": size}}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        options = {name: value for name, value in config.items() if name != "custom_text"}
        kind: Any = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
        kind = open_clip.CoCa if "multimodal_cfg" in config else kind
        weights = kind(**options).state_dict()
    own = CONFIG["text_cfg"]["tokenizer_kwargs"]
    if config["text_cfg"].get("tokenizer_kwargs") == own:
        (folder / own["bpe_path"]).write_bytes(merges())
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "open_clip_model.safetensors")
    return folder


def write_nan_model(folder: Path, model: Path) -> Path:
    """A copy of a model whose texts have no finite embedding."""
    shutil.copytree(model, folder)
    weights = load_file(model / "open_clip_model.safetensors")
    weights["text_projection"][0, 0] = math.nan
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


@cache
def merges() -> bytes:
    """CLIP's merges file, truncated."""
    import open_clip

    lines = gzip.decompress(Path(open_clip.tokenizer.default_bpe()).read_bytes()).decode().split("\n")
    return gzip.compress("\n".join(lines[: MERGES + 1]).encode())


def write_small_world(folder: Path) -> Path:
    """A model like the embedded world's, with random weights and a tenth of its parameters."""
    from degla.world import world_model_folder, world_vocabulary_file

    config = json.loads((world_model_folder() / "open_clip_config.json").read_text())["model_cfg"]
    vision = config["vision_cfg"] | {"width": 32, "layers": 2, "head_width": 16}
    text = config["text_cfg"] | {"width": 32, "heads": 2, "layers": 2}
    write_model(folder, embed_dim=32, quick_gelu=False, vision_cfg=vision, text_cfg=text)
    shutil.copy(world_vocabulary_file(), folder)
    return folder


def write_pairs(folder: Path, *, images: int = 12, captions_per_image: int = 2) -> dict[str, Path]:
    """Coloured noise with captions, one to three negatives each and all optional fields, as files."""
    (folder / "images").mkdir(parents=True)
    captions, negatives, neighbours = [], [], []
    generator = numpy.random.default_rng(0)
    for image in range(images):
        name = f"{image:03d}.png"
        pixels = generator.integers(0, 255, (40, 36, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        for number in range(captions_per_image):
            key = f"{image}-{number}"
            text = CAPTIONS[(image + number) % len(CAPTIONS)]
            other = (image + 1) % images
            caption = {"id": key, "image": name, "text": text, "image_id": str(image)}
            caption |= {"positives": [f"here is {text}", f"{text} again"][: image % 3]}
            if image % 4:
                caption |= {"distractor_image": f"{other:03d}.png", "distractor_text": f"no {text}"}
            captions.append(caption | {"label": CLASSES[image % len(CLASSES)] if image % 5 else None})
            foils = [f"some {word}" for word in ("dogs", "birds")[: image % 3]]
            units = [{"text": text.split()[-1], "foils": foils}, {"text": f"it is {text}", "kind": "relation"}]
            captions[-1] |= {"units": units[: image % 4], "concepts": text.split()[: image % 3]}
            captions[-1] |= {"masked_words": text.split()[1 : 1 + image % 3]}
            near = [f"{other}-{number}", f"{(image + 2) % images}-0"]
            neighbours.append({"caption_id": key, "neighbours": near})
            for kind, rule in enumerate(["reshuffle_order", "swap_nouns", "replace_nouns"][: 1 + image % 3]):
                words = text.split()
                changed = " ".join(words[::-1] if kind == 0 else [*words[1:], f"thing{kind}"])
                row = {"caption_id": key, "rule": rule, "kind": "order", "text": changed, "source": "test"}
                negatives.append(row | {"accepted": True})
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in captions))
    (folder / "negatives.jsonl").write_text("".join(json.dumps(row) + "\n" for row in negatives))
    (folder / "neighbours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in neighbours))
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return {
        "captions": folder / "captions.jsonl",
        "images": folder / "images",
        "negatives": folder / "negatives.jsonl",
        "neighbours": folder / "neighbours.jsonl",
        "classes": folder / "classes.txt",
    }


def write_classes(folder: Path, *, images: int = 24) -> Path:
    """Coloured noise of three classes for the benchmark `zeroshot`: two batches of a small model, for two processes."""
    generator = numpy.random.default_rng(1)
    for name in ("dog", "hat", "red square"):
        place = folder / "zeroshot" / "noise" / name
        place.mkdir(parents=True)
        for number in range(images):
            pixels = generator.integers(0, 255, (40, 36, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
    return folder
