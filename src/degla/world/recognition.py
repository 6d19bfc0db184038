"""Draw recognition domains as labelled images, in a folder that both training and the benchmark `zeroshot` read.

A style changes a whole image: the class stays true, but pre-training never showed such images.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import numpy as np

from degla.errors import InputError
from degla.files import write_json, write_text
from degla.records import CaptionRecord, write_jsonl
from degla.shelf import did_you_mean
from degla.world.domains import DOMAINS, Domain, class_slug
from degla.world.draw import begin, finish, save_picture
from degla.world.painting import Picture
from degla.world.scenes import WORLD_VERSION, Split, stream

CLASS_TEMPLATE: Final = "a photo of {}"
"""Prompt of a class; the world's class names include their articles."""
_MOSAIC_PIXELS: Final = 4
_SNOW_SHARE: Final = 0.45


def _plain(picture: Picture, rng: Random) -> Picture:
    """Unchanged: the style of pre-training and of the world's benchmark."""
    return picture


def _turned(picture: Picture, rng: Random) -> Picture:
    """A quarter turn to the left."""
    return np.ascontiguousarray(np.rot90(picture))


def _sketched(picture: Picture, rng: Random) -> Picture:
    """Dark lines on white where brightness or colour changes; the strongest change is black."""
    values = np.pad(picture.astype(np.float32), ((0, 1), (0, 1), (0, 0)), mode="edge")
    down, right = np.diff(values, axis=0)[:, :-1], np.diff(values, axis=1)[:-1]
    change = np.sqrt((down**2 + right**2).sum(axis=2))
    grey = 255.0 * (1.0 - change / max(float(change.max()), 1.0))
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def _mosaic(picture: Picture, rng: Random) -> Picture:
    """Tiles of 4 x 4 pixels, each in its mean colour."""
    height, width, channels = picture.shape
    side = _MOSAIC_PIXELS
    tiles = picture.reshape(height // side, side, width // side, side, channels).mean(axis=(1, 3))
    return np.repeat(np.repeat(tiles.astype(np.uint8), side, axis=0), side, axis=1)


def _snowy(picture: Picture, rng: Random) -> Picture:
    """Nearly half of all pixels, chosen at random, are white."""
    snow = np.random.default_rng(rng.getrandbits(64)).random(picture.shape[:2]) < _SNOW_SHARE
    return np.where(snow[:, :, None], np.uint8(255), picture)


STYLES: Final[dict[str, Callable[[Picture, Random], Picture]]] = {
    "plain": _plain,
    "turned": _turned,
    "sketched": _sketched,
    "mosaic": _mosaic,
    "snowy": _snowy,
}
"""Styles by name: functions of a 64 x 64 image and a random generator that return the changed image."""


@dataclass(frozen=True)
class DrawnRecognition:
    """What `draw_recognition` wrote."""

    captions: Path
    """JSONL of `CaptionRecord` with `label`; `image` is relative to `images`."""
    images: Path
    """The folder itself: one subfolder per class, and `classes.json`, as the benchmark `zeroshot` reads it."""
    classes: Path
    """Class names, one per line."""


def draw_recognition(
    folder: Path,
    *,
    domains: Sequence[str] = tuple(DOMAINS),
    style: str = "plain",
    split: Split = "train",
    images_per_class: int = 100,
    seed: int = 0,
) -> DrawnRecognition:
    """Draw images of every class of some domains, each with the prompt of its class.

    Args:
        folder: output folder for one subfolder per class, `classes.json`, `captions.jsonl` and `classes.txt`.
        domains: names of recognition domains; their classes form one classification task.
        style: one of `STYLES`.
        split: images of "train" are in no benchmark; "test" in style "plain" has those of the world's benchmark.
        images_per_class: images per class.
        seed: another seed gives other images of the same split.

    Raises:
        InputError: the domain or style is unknown, or the folder was drawn with other settings.
    """
    for name in domains:
        _check("domain", name, allowed=DOMAINS)
    _check("style", style, allowed=STYLES)
    if not domains or len(set(domains)) != len(domains):
        raise InputError("name at least one domain, each only once.")
    paths = DrawnRecognition(folder / "captions.jsonl", folder, folder / "classes.txt")
    settings = {
        "what": "recognition", "version": WORLD_VERSION, "domains": list(domains), "style": style, "split": split,
        "images_per_class": images_per_class, "seed": seed,
    }  # fmt: skip
    if not begin(folder, settings):
        return paths
    chosen = [DOMAINS[name] for name in domains]
    records = _records(folder, chosen, style=style, split=split, count=images_per_class, seed=seed)
    write_jsonl(paths.captions, records)
    classes = {class_slug(name): name for domain in chosen for name in domain.classes}
    templates = list(dict.fromkeys(template for domain in chosen for template in domain.templates))
    write_json(folder / "classes.json", {"classes": classes, "templates": templates})
    write_text(paths.classes, "".join(f"{name}\n" for name in classes.values()))
    finish(folder, settings)
    return paths


def _check(kind: str, name: str, *, allowed: Collection[str]) -> None:
    if name not in allowed:
        raise InputError(f"unknown {kind} {name!r}.{did_you_mean(name, allowed)} Known: {', '.join(allowed)}.")


def _records(
    folder: Path, domains: Sequence[Domain], *, style: str, split: Split, count: int, seed: int
) -> Iterator[CaptionRecord]:
    for domain in domains:
        for name in domain.classes:
            slug = class_slug(name)
            (folder / slug).mkdir(exist_ok=True)
            for number in range(count):
                drawing = domain.paint(name, stream("recognition", split, domain.name, seed, name, number))
                change = stream("style", style, split, domain.name, seed, name, number)
                image = f"{slug}/{number:03d}.png"
                save_picture(STYLES[style](drawing.picture, change), folder / image)
                key, text = f"{slug}-{number:03d}", CLASS_TEMPLATE.format(name)
                yield CaptionRecord(id=key, image=image, text=text, image_id=key, label=name)
