"""Labelled images: published data sets, the world's, and drawn shapes with a distractor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from degla.data.decoding import IMAGE_SUFFIXES, Subject, decode, read_file
from degla.errors import InputError
from degla.evaluation.archives import read_batch
from degla.pages.words import counted
from degla.parse import read_gzip, read_text
from degla.systems.excon.settings import FASHION, ExconSettings

SHAPES: Final = ("disc", "square", "diamond", "ring", "cross", "bars", "triangle", "frame")
_COLOURS: Final = ((230, 60, 60), (60, 190, 80), (70, 100, 230), (230, 200, 50), (200, 70, 200), (60, 200, 210),
                   (240, 140, 40), (150, 90, 50))  # fmt: skip
_FOLDER_SIDE: Final = 64
_SHORTCUT: Final = 0.9


@dataclass(frozen=True)
class LabelledImages:
    """Images with their class numbers."""

    pixels: UInt8[Tensor, "pictures 3 height width"]
    label: Int[Tensor, " pictures"]

    def select(self, places: Int[Tensor, " places"]) -> LabelledImages:
        """Return the images at these indices."""
        return LabelledImages(self.pixels[places], self.label[places])


ImageSets = tuple[LabelledImages, LabelledImages]
"""Training and test images."""


@dataclass(frozen=True)
class _Pool:
    """Images to draw from before decoding: their labels, and a function that reads some of them."""

    label: list[int]
    read: Callable[[Sequence[int]], NDArray[np.uint8]]


@lru_cache(maxsize=2)
def read_images(settings: ExconSettings, name: str, seed: int) -> ImageSets:
    """Return training and test images, at most as many as the settings say, drawn with the seed.

    For the part "validation", the second are drawn from the remaining training images.

    Raises:
        InputError: the name or folder is unknown; files are missing or damaged; the images have only one class; or no
            epoch has masked views.
    """
    if settings.explained_from >= settings.epochs:
        raise InputError(
            f"--explained-from is {settings.explained_from}, counted from 0, but --epochs is {settings.epochs}: no "
            "masked view would be trained on. Lower --explained-from."
        )
    image_sets = _drawn(settings, name, seed) if name in ("shapes", "shortcut") else _read(settings, name, seed)
    for pictures, what in zip(image_sets, ("training", settings.part), strict=True):
        if len(set(pictures.label.tolist())) < 2:
            raise InputError(f"{name}: the {what} images have only one class; two or more are needed.")
    return image_sets


def _drawn(settings: ExconSettings, name: str, seed: int) -> ImageSets:
    rate = _SHORTCUT if name == "shortcut" else 0.0
    other = 3 * seed + (2 if settings.part == "validation" else 1)
    train = draw_shapes(settings.images, rate=rate, seed=3 * seed)
    return train, draw_shapes(settings.test_images, rate=0.0, seed=other)


def _read(settings: ExconSettings, name: str, seed: int) -> ImageSets:
    images, test_images, part = settings.images, settings.test_images, settings.part
    train, test = _pools(name)
    order = np.random.default_rng(seed).permutation(len(train.label))
    first, rest = order[:images], order[images : images + test_images]
    if part == "test":
        rest = np.random.default_rng([seed, 1]).permutation(len(test.label))[:test_images]
    if not len(rest):
        raise InputError(
            f"{name}: --images uses all of its {counted(len(order), 'training image')}. Lower it for --part validation."
        )
    parts = [(train, first), (test if part == "test" else train, rest)]
    image_sets = [
        LabelledImages(torch.from_numpy(pool.read(places.tolist())), torch.tensor(pool.label)[places])
        for pool, places in parts
    ]
    return image_sets[0], image_sets[1]


def _pools(name: str) -> tuple[_Pool, _Pool]:
    if name == "world":
        return _world("train"), _world("test")
    folder = FASHION if name == "fashion" else Path(name)
    if (folder / "train-images-idx3-ubyte.gz").is_file():
        return _fashion(folder, "train"), _fashion(folder, "t10k")
    if name == "fashion":
        raise InputError(
            "fashion: Debian's package dataset-fashion-mnist is not installed. Install it, pass the "
            "folder of its files instead, or use --data world."
        )
    for place in (folder, folder / "cifar-100-python"):
        if (place / "train").is_file():
            return _cifar(place / "train"), _cifar(place / "test")
    if (folder / "val" / "val_annotations.txt").is_file():
        return _tiny_imagenet(folder)
    for test in ("test", "val"):
        if (folder / "train").is_dir() and (folder / test).is_dir():
            names = _subfolders(folder / "train")
            other = sorted(path for path in (folder / test).iterdir() if path.is_dir() and path.name not in names)
            if other:
                raise InputError(f"{other[0]}: train has no such class. Add its training images, or remove it.")
            return _class_folders(folder / "train", names), _class_folders(folder / test, names)
    raise InputError(
        f"{name}: not a data set or the folder of one. Known: fashion, world, shapes, shortcut; or a folder of "
        "Fashion-MNIST (train-images-idx3-ubyte.gz, ...), of CIFAR-100 (cifar-100-python/train, test), of "
        "Tiny-ImageNet (train, val/val_annotations.txt), or with train and test of one subfolder per class."
    )


def _fashion(folder: Path, part: str) -> _Pool:
    """Read IDX files (a magic number, the sizes, then bytes); images are padded with black to 32 by 32."""
    pixels, label = (_idx(folder / f"{part}-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1"))
    if len(pixels) != len(label):
        raise InputError(
            f"{folder}: {counted(len(pixels), 'image')} and {counted(len(label), 'label')} in {part}. Download the "
            "files again."
        )

    def read(places: Sequence[int]) -> NDArray[np.uint8]:
        grey = np.pad(pixels[list(places)], ((0, 0), (2, 2), (2, 2)))
        return np.repeat(grey[:, None], 3, axis=1)

    return _Pool(label.tolist(), read)


def _idx(file: Path) -> NDArray[np.uint8]:
    content = read_gzip(file)
    axes = content[3] if content[:3] == b"\x00\x00\x08" else 0
    start = 4 + 4 * axes
    sizes = [int.from_bytes(content[place : place + 4]) for place in range(4, start, 4)]
    if not axes or len(content) != start + math.prod(sizes):
        raise InputError(f"{file}: not an IDX byte file, or truncated. Download or recreate it.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def _cifar(file: Path) -> _Pool:
    pixels, label = read_batch(file)
    return _Pool(list(label), lambda places: pixels[list(places)])


def _world(part: str) -> _Pool:
    """Return the twenty animals of the embedded world, 32 by 32, with 300 training and 60 test images of each."""
    from degla.world.domains import DOMAINS
    from degla.world.scenes import stream

    animals, each = DOMAINS["animal"], 300 if part == "train" else 60

    def read(places: Sequence[int]) -> NDArray[np.uint8]:
        images = []
        for place in places:
            name = animals.classes[place // each]
            picture = animals.paint(name, stream("excon", part, name, place % each)).picture
            images.append(np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BOX)))
        return np.stack(images).transpose(0, 3, 1, 2).copy()

    return _Pool([number for number in range(len(animals.classes)) for _ in range(each)], read)


def _subfolders(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if len(names) < 2:
        raise InputError(f"{folder}: has {counted(len(names), 'subfolder')}; one per class is needed, at least two.")
    return names


def _class_folders(folder: Path, names: Sequence[str]) -> _Pool:
    """Read one subfolder per class; Tiny-ImageNet's have a folder `images` in them."""
    files: list[tuple[Path, int]] = []
    for number, name in enumerate(names):
        paths = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise InputError(f"{folder / name}: no image of this class. Add some, or remove it from train too.")
        files += [(path, number) for path in paths]
    return _of_files(files)


def _tiny_imagenet(folder: Path) -> tuple[_Pool, _Pool]:
    names = _subfolders(folder / "train")
    file = folder / "val" / "val_annotations.txt"
    files = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        words = line.split("\t")
        if len(words) < 2 or words[1] not in names:
            raise InputError(f"{file} line {number}: must be an image and a class of train, got {line[:80]!r}.")
        files.append((folder / "val" / "images" / words[0], names.index(words[1])))
    return _class_folders(folder / "train", names), _of_files(files)


def _of_files(files: Sequence[tuple[Path, int]]) -> _Pool:
    def one(path: Path) -> NDArray[np.uint8]:
        subject = Subject(f"{path}: the image", if_missing="Put it there, or remove its line.")
        picture = decode(read_file(path, subject), subject)
        return np.asarray(ImageOps.fit(picture, (_FOLDER_SIDE, _FOLDER_SIDE), Image.Resampling.BICUBIC))

    def read(places: Sequence[int]) -> NDArray[np.uint8]:
        return np.stack([one(files[place][0]) for place in places]).transpose(0, 3, 1, 2).copy()

    return _Pool([label for _, label in files], read)


def draw_shapes(count: int, *, rate: float, seed: int) -> LabelledImages:
    """Draw eight grey shapes on noise, each with a coloured patch.

    Args:
        count: number of images; classes alternate.
        rate: share of images whose patch has the colour of their class; the others have a random one.
        seed: seed of positions, sizes, greys, colours and noise.
    """
    chance = np.random.default_rng([seed, 17])
    pixels = chance.normal(90, 28, (count, 32, 32, 3))
    label = np.arange(count) % len(SHAPES)
    y, x = np.mgrid[0:32, 0:32]
    for number, kind in enumerate(label):
        radius = chance.uniform(5, 8)
        middle = chance.uniform(radius + 1, 30 - radius, 2)
        mask = _inside(SHAPES[kind], (x - middle[0]) / radius, (y - middle[1]) / radius)
        pixels[number][mask] = chance.uniform(150, 250) + chance.normal(0, 15, (int(mask.sum()), 1))
        colour = kind if chance.random() < rate else chance.integers(len(_COLOURS))
        left, top = chance.integers(0, 26, 2)
        pixels[number, top : top + 6, left : left + 6] = _COLOURS[colour]
    clipped = pixels.clip(0, 255).astype(np.uint8).transpose(0, 3, 1, 2).copy()
    return LabelledImages(torch.from_numpy(clipped), torch.from_numpy(label))


def _inside(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    across, away, square = np.abs(x) + np.abs(y), np.hypot(x, y), np.maximum(np.abs(x), np.abs(y))
    inside: dict[str, NDArray[np.bool_]] = {
        "disc": away < 1,
        "square": square < 0.85,
        "diamond": across < 1.1,
        "ring": (away < 1) & (away > 0.55),
        "cross": (square < 1) & (np.minimum(np.abs(x), np.abs(y)) < 0.3),
        "bars": (square < 0.95) & (np.abs(np.abs(x) - 0.6) < 0.3),
        "triangle": (y < 0.8) & (np.abs(x) < (y + 1) / 1.8),
        "frame": (square < 0.95) & (square > 0.55),
    }
    return inside[shape]
