"""Files with weights and images: checkpoints for evaluation and resuming, model folders, images, shards."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from degla.config.fields import read_config
from degla.data.images import read_image
from degla.data.pack import Packing, pack
from degla.data.pairs import PairRow
from degla.data.sources import read_captions
from degla.model.load import load_encoder
from degla.training.loop import train
from degla.world import world_model_folder
from tests.hostile.trials import Kind
from tests.tiny import write_model, write_pairs
from tests.training.configs import tiny_config

READINGS = 8
STUDENT = "open_clip_model.safetensors"
CHECKPOINT = (
    ("open_clip_model.safetensors", "bytes"),
    ("open_clip_config.json", "json"),
    ("state.json", "json"),
    ("config.json", "json"),
    ("teacher.safetensors", "bytes"),
    ("optimizer.pt", "bytes"),
)


def picture_kinds(folder: Path) -> list[Kind]:
    pairs = write_pairs(folder / "pairs", images=4)
    return [*_models(folder), *_images(folder), *_shards(folder, pairs)]


def checkpoint_kinds(folder: Path) -> list[Kind]:
    pairs = write_pairs(folder / "pairs", images=4)
    model = write_model(folder / "base")
    config = tiny_config("degla", model=model, pairs=pairs, out=folder / "run", steps=2, epochs=1)
    train(replace(config, checkpoint=replace(config.checkpoint, every_steps=1)))
    whole, step = folder / "run", folder / "run" / "step-1"
    shutil.rmtree(whole / "step-2")

    @cache
    def good() -> list[Any]:
        """Rounding depends on memory alignment, so an undamaged run has two or three outcomes."""
        return [resumed() for _ in range(READINGS)]

    def evaluated() -> Any:
        return _answers(load_encoder(str(whole)))

    def resumed() -> Any:
        """The second step on a copy of the run: a wrong resume shows in its weights."""
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        outcome = train(read_config(copy), resume=True)
        return outcome.step, hashlib.sha256((copy / "step-2" / STUDENT).read_bytes()).hexdigest()

    kinds = [Kind(f"evaluate, {name}", step / name, evaluated, form, exact=True) for name, form in CHECKPOINT[:4]]
    kinds += [Kind(f"resume, {name}", step / name, resumed, form, exact=True, good=good) for name, form in CHECKPOINT]
    kinds.append(Kind("resume, metrics.jsonl", whole / "metrics.jsonl", resumed, "jsonl", exact=True, good=good))
    return kinds


def _models(folder: Path) -> list[Kind]:
    """An open_clip folder without recorded checksums: its configuration may differ."""
    model = write_model(folder / "bare")
    config = model / "open_clip_config.json"
    kinds = [Kind("model folder, open_clip_config.json", config, lambda: _answers(load_encoder(str(model))), "json")]
    words = folder / "words"
    shutil.copytree(world_model_folder(), words)
    table = next(words.glob("*.gz"))
    kinds.append(Kind("model folder, bpe gz", table, lambda: _answers(load_encoder(str(words))), "bytes", exact=True))
    return kinds


def _answers(encoder: Any) -> Any:
    """Weights, tokens of a text, pixels of an image: the basis of every result."""
    picture = Image.fromarray(np.arange(48 * 48 * 3, dtype=np.uint32).astype(np.uint8).reshape(48, 48, 3))
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.clip.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    digest.update(encoder.tokenize(["a red square above a blue circle"]).numpy().tobytes())
    digest.update(encoder.transform(picture).numpy().tobytes())
    return digest.hexdigest()


def _images(folder: Path) -> list[Kind]:
    place = folder / "pictures"
    place.mkdir()
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (40, 56, 3), dtype=np.uint8))
    kinds = []
    for ending in ("png", "jpg", "webp", "gif", "bmp", "tif", "ppm"):
        file = place / f"a.{ending}"
        noise.save(file)
        kinds.append(Kind(f"image {ending}", file, _reading(file), "bytes"))
    turned = place / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.save(turned, exif=exif)
    deep = place / "deep.png"
    Image.fromarray(rng.integers(0, 65535, (40, 56), dtype=np.uint16)).save(deep)
    return [
        *kinds,
        Kind("image jpg, turned", turned, _reading(turned), "bytes"),
        Kind("image png, 16-bit", deep, _reading(deep), "bytes"),
    ]


def _reading(file: Path) -> Callable[[], Any]:
    def read() -> Any:
        picture = read_image(file.name, folder=file.parent, caption_id="c1")
        return picture.size, hashlib.sha256(picture.tobytes()).hexdigest()

    return read


def _shards(folder: Path, pairs: dict[str, Path]) -> list[Kind]:
    packed = folder / "packed"
    rows = [PairRow(caption=record, negatives=(), rules=()) for record in read_captions(pairs["captions"])]
    pack(rows, folder=pairs["images"], out=packed, packing=Packing(size=32))
    shard = next(packed.glob("*.tar"))

    def read() -> Any:
        captions = list(read_captions(packed / "captions.jsonl"))
        pictures = [read_image(one.image, folder=packed, caption_id=one.id) for one in captions]
        return [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures]

    return [
        Kind("packed shard", shard, read, "bytes"),
        Kind("packed captions", packed / "captions.jsonl", read, "jsonl"),
    ]
