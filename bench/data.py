"""Images per second: PIL on loose files, as in common training scripts, scaled decoding, and packed pairs."""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import open_clip
import torch
from PIL import Image

from degla.cli import exit_status_of
from degla.data.dataset import ImageTransform, RandomCrop
from degla.data.images import read_image, read_part
from degla.data.joining import join
from degla.data.pack import Packing, pack
from degla.data.sources import read_captions
from degla.model.clip_tokenizer import fast
from degla.speed.loading import plain_transform
from degla.verbs._arguments import at_least

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _tell_tokens(texts: list[str], *, rounds: int, pictures: float) -> None:
    """Time to tokenize a pair with four negatives, each as long as its caption, relative to its packed image."""
    theirs = open_clip.get_tokenizer("ViT-B-32")
    ways = {"open_clip": theirs, "degla": fast(theirs)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, tokenize in ways.items():
            started = time.process_time()
            for text in texts:
                tokenize([text, *(f"{text} {number}" for number in range(4))])
            seconds[name].append(time.process_time() - started)
    for name in ways:
        taken = statistics.median(seconds[name][1:])
        print(
            f"tokens of five texts per pair, {name}: {1000 * taken / len(texts):.3f} ms, {taken / pictures:.1%} of a "
            "packed image"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="any captions file, for example COCO's captions_val2017.json")
    parser.add_argument("--images", type=Path, required=True, help="folder that its image paths are relative to")
    parser.add_argument("--pixels", type=at_least(1), default=224, help="height and width of the model's input (224)")
    parser.add_argument("--size", type=at_least(1), default=256, help="shorter side in the pack (256)")
    parser.add_argument("--rounds", type=at_least(1), default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = {row.caption.image: row for row in join(read_captions(given.captions), None)}
    crop = RandomCrop(ImageTransform(size=given.pixels, mean=MEAN, std=STD))
    plain = plain_transform(given.pixels, mean=MEAN, std=STD)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "pack"
        started = time.process_time()
        pack(list(rows.values()), folder=given.images, out=out, packing=Packing(size=given.size))
        packing = time.process_time() - started
        packed = {row.id: row.image for row in read_captions(out / "captions.jsonl")}
        loose = [(row.caption.image, row.caption.id) for row in rows.values()]

        def scaled(image: str, caption_id: str, folder: Path = given.images) -> torch.Tensor:
            rng = Random(caption_id)
            part = read_part(
                image, folder=folder, caption_id=caption_id, draw=lambda size: crop.draw(size, rng), least=given.pixels
            )
            return crop.finish(part)

        def whole(image: str, caption_id: str, folder: Path) -> torch.Tensor:
            """Read the whole image without random augmentation."""
            return crop.finish(read_part(image, folder=folder, caption_id=caption_id, draw=lambda size: (0, 0, *size),
                                         least=given.pixels))  # fmt: skip

        def exact(image: str, caption_id: str) -> torch.Tensor:
            picture = read_image(image, folder=given.images, caption_id=caption_id)
            return crop.image.to_tensor(picture.resize((given.pixels, given.pixels), Image.Resampling.BICUBIC))

        ways: dict[str, Callable[[str, str], torch.Tensor]] = {
            "PIL and torchvision, loose files": lambda image, _: plain(Image.open(given.images / image).convert("RGB")),
            "degla, decoded whole": lambda image, key: crop(
                read_image(image, folder=given.images, caption_id=key), Random(key)
            ),
            "degla, scaled decoding": scaled,
            "degla, packed": lambda _, key: scaled(packed[key], key, out),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.rounds + 1):
            for name, read in ways.items():
                started = time.process_time()
                for image, key in loose:
                    read(image, key)
                seconds[name].append(time.process_time() - started)
        print(f"{platform.machine()}, one thread, {len(loose)} images, {given.pixels} pixels, "
              f"packed at {given.size}; packing took {packing:.2f} s; processor seconds")  # fmt: skip
        first = statistics.median(seconds["PIL and torchvision, loose files"][1:])
        std = torch.tensor(STD).view(3, 1, 1) * 255
        for name in ways:
            taken = statistics.median(seconds[name][1:])
            line = f"{name:<34} {len(loose) / taken:7.0f} images/s  x {first / taken:.2f}"
            if name in ("degla, scaled decoding", "degla, packed"):
                own = out if name == "degla, packed" else given.images
                gaps = [
                    ((whole(packed[k] if own == out else i, k, own) - exact(i, k)) * std).abs().flatten()
                    for i, k in loose
                ]
                share = torch.cat(gaps)[::997].quantile(0.99)
                line += (
                    f"  pixels differ by {torch.cat(gaps).mean():.2f} of 255 on average, 99 % by at most {share:.0f}"
                )
            print(line)
        _tell_tokens([row.caption.text for row in rows.values()], rounds=given.rounds, pictures=taken)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
