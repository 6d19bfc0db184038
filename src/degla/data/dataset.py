"""Rows to pairs: a pair is a pure function of (seed, epoch, index), so workers and resumed runs need no state.

Images become normalised tensors by a random crop in training, by the model's own transform elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from degla.data.batches import Pair
from degla.data.decoding import Box
from degla.data.draws import Offer, open_draw
from degla.data.extras import ExtraData, RowExtras
from degla.data.images import ReadBytes, read_bytes, read_image, read_part
from degla.data.plan import RowKey
from degla.data.randomness import random_for
from degla.data.table import ColumnFile, PairTable
from degla.errors import InputError
from degla.prefixes import Tokenize
from degla.shelf import own_errors

_ATTEMPTS = 10
_RATIO = (3 / 4, 4 / 3)
"""Smallest and largest width over height of a crop."""


Transform = Callable[[Image.Image, Random], Float[Tensor, "3 height width"]]
"""Maps an RGB image and the generator of its row and epoch to a tensor, deterministically."""


@dataclass(frozen=True)
class ImageTransform:
    """The preprocessing that a model expects.

    Attributes:
        size: height and width in pixels.
        mean: of red, green and blue, on a scale from 0 to 1.
        std: of red, green and blue, on a scale from 0 to 1.
        interpolation: how images are resized; antialiased when shrinking.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def to_tensor(self, picture: Image.Image) -> Float[Tensor, "3 height width"]:
        """Scale the bytes to 0..1, subtract the mean and divide by the standard deviation."""
        return self.normalise(torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1))

    def normalise(self, pixels: UInt8[Tensor, "3 height width"]) -> Float[Tensor, "3 height width"]:
        """As `to_tensor`, for bytes that are already a tensor."""
        mean, std = _in_bytes(self.mean), _in_bytes(self.std)
        # One pass transposes and converts the bytes, two more scale them.
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).sub_(mean).div_(std)


@cache
def _in_bytes(colour: tuple[float, float, float]) -> Float[Tensor, "3 1 1"]:
    """A value of each colour on the scale of bytes; to make it anew takes longer than to scale a small image."""
    return 255 * torch.tensor(colour).view(3, 1, 1)


@dataclass(frozen=True)
class RandomCrop:
    """A random part of the image, resized to the model's size, as in the training of every compared paper.

    Attributes:
        image: the preprocessing that the model expects.
        scale: smallest and largest share of the image's area (0.9 and 1 in NegCLIP and DeGLA).
        scaled: decode JPEG files only at the resolution that the part needs.
    """

    image: ImageTransform
    scale: tuple[float, float] = (0.9, 1.0)
    scaled: bool = True

    def __call__(self, picture: Image.Image, rng: Random) -> Float[Tensor, "3 height width"]:
        """Crop, resize and normalise."""
        left, top, width, height = self.draw(picture.size, rng)
        # Crop before resizing: Pillow's `box` would let the filter see pixels outside the part.
        return self.finish(picture.crop((left, top, left + width, top + height)))

    def draw(self, size: tuple[int, int], rng: Random) -> Box:
        """Draw the part to take from an image of this width and height.

        Its area is uniform in `scale`, and so is the log of its aspect ratio between 3:4 and 4:3. After ten draws that
        do not fit, it is the largest centred one with an allowed ratio.
        """
        full_width, full_height = size
        for _ in range(_ATTEMPTS):
            area = full_width * full_height * rng.uniform(*self.scale)
            shape = math.exp(rng.uniform(*map(math.log, _RATIO)))
            width, height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < width <= full_width and 0 < height <= full_height:
                left = rng.randint(0, full_width - width)
                top = rng.randint(0, full_height - height)
                return left, top, width, height
        width = min(full_width, round(full_height * _RATIO[1]))
        height = min(full_height, round(full_width / _RATIO[0]))
        return (full_width - width) // 2, (full_height - height) // 2, width, height

    def finish(self, part: Image.Image) -> Float[Tensor, "3 height width"]:
        """Resize the part, within one byte value of Pillow's result, and normalise it."""
        pixels = torch.from_numpy(np.array(part, dtype=np.uint8)).permute(2, 0, 1)[None]
        size = (self.image.size, self.image.size)
        # PyTorch's antialiased filter over bytes matches Pillow's and is several times faster.
        small = functional.interpolate(pixels, size, mode=self.image.interpolation, antialias=True)
        return self.image.normalise(small[0])


@dataclass(eq=False)
class PairDataset(Dataset[Pair]):
    """Training pairs by (epoch, index).

    Attributes:
        rows: at least one.
        folder: base of relative image paths.
        transform: maps an image and a generator to [3, height, width]; must be picklable for spawned workers.
        tokenize: maps texts to padded token ids [texts, context]; must be picklable for spawned workers.
        negatives_per_caption: K, 0 or more; missing negatives are masked.
        seed: of crops and draws.
        draw: how K of a row's negatives are chosen in an epoch, a member of the shelf `degla.data.draws`.
        negatives_share: share of the rows, redrawn in each epoch, that use their negatives.
        read: reads the bytes of the rows' own images; their additional images are always read with `read_bytes`.
        extras: optional columns to read as well.

    Raises:
        InputError: there are no rows, no row has what `extras` needs, or `draw` cannot draw from the rows.
    """

    rows: PairTable
    _: KW_ONLY
    folder: Path
    transform: Transform
    tokenize: Tokenize
    negatives_per_caption: int
    seed: int
    draw: str = "random"
    negatives_share: float = 1.0
    read: ReadBytes = read_bytes
    extras: RowExtras = field(default_factory=lambda: RowExtras(None, ExtraData(), seed=0))
    features: Callable[[str], Tensor] | None = field(default=None, init=False)
    """Embeddings [D] by path, used instead of pixels if the image tower is frozen; None reads pixels."""

    def __post_init__(self) -> None:
        if not self.rows:
            raise InputError("there are no pairs to train on.")
        self._choose = open_draw(self.draw, self.rows)
        self.rules = self.rows.rules
        """Names of the rules; `Pair.rule` numbers them."""
        self.groups = self.rows.groups()
        """One number per row, equal if and only if two rows show the same image; `BatchPlan` needs it."""

    def __len__(self) -> int:
        return len(self.rows)

    def image_paths(self) -> Iterator[str]:
        """Yield the paths of all images of the rows, including additional ones; a path may occur more than once."""
        for chunk in self.rows.chunks("image"):
            yield from chunk.to_pylist()
        for name in self.extras.images:
            assert self.extras.file is not None
            for chunk in self.extras.file.chunks(name):
                yield from chunk.drop_null().to_pylist()

    def __getitem__(self, key: RowKey) -> Pair:
        """Return the pair of row `index` in `epoch`.

        Raises:
            ImageError: the image is missing or damaged; names its path and the caption id.
        """
        epoch, index = key
        caption_id = self.rows.at("id", index)
        image = self._image(self.rows.at("image", index), caption_id, epoch=epoch, index=index, read=self.read)

        texts, rules = self._drawn(epoch, index)
        further = {name: self.extras.text_of(name, epoch=epoch, index=index) for name in self.extras.texts}
        caption_text = self.rows.at("text", index)
        tokens = self.tokenize(
            [caption_text, *texts, *(text or caption_text for text in chain(*further.values()))]
        ).long()
        caption = tokens[0]
        own, *others = torch.split(tokens[1:], [len(texts), *map(len, further.values())])
        missing = self.negatives_per_caption - len(texts)
        negative = torch.cat([own, caption.expand(missing, -1)])
        # A long text is truncated to the context length; one that differs only after that is not a negative. This
        # also masks the repeated captions that replace missing negatives.
        valid = (negative != caption).any(dim=-1)
        rule = torch.tensor(rules + [-1] * missing, dtype=torch.int64)
        extra = self._further_images(key, caption_id, image) | self._further_texts(
            dict(zip(further, others, strict=True)), caption
        )
        extra |= self.extras.masked_of(index, caption, self.tokenize)
        return Pair(
            image=image,
            caption=caption,
            negative=negative,
            valid=valid,
            rule=torch.where(valid, rule, -1),
            group=int(self.groups[index]),
            id=caption_id,
            extra=extra | self.extras.numbers(index, further) | self.extras.target_of(epoch=epoch, index=index),
        )

    def _further_images(self, key: RowKey, caption_id: str, image: Tensor) -> dict[str, Tensor | int]:
        """The row's additional images; its own image where it has none."""
        extra: dict[str, Tensor | int] = {}
        for name, each in self.extras.images.items():
            path = self.extras.at(name, key[1])
            # The old name keeps the random crops of published results.
            purpose = "partner crop" if name == "distractor_image" else f"{name} crop"
            there = path is not None
            extra[name] = self._image(path, caption_id, epoch=key[0], index=key[1], purpose=purpose) if there else image
            if each.mask:
                extra[each.mask] = there
        return extra

    def _further_texts(self, further: dict[str, Tensor], caption: Tensor) -> dict[str, Tensor | int]:
        """The row's additional texts, padded with its caption."""
        extra: dict[str, Tensor | int] = {}
        for name, texts in further.items():
            missing = self.extras.texts_per_row(name) - len(texts)
            tokens = torch.cat([texts, caption.expand(missing, -1)])
            each = self.extras.texts[name]
            valid = (tokens != caption).any(dim=-1)
            if each.may_repeat:
                valid = torch.arange(len(tokens)) < len(texts)
            several = len(each.shape) == 3
            extra[name] = tokens if several else tokens[0]
            if mask := each.mask:
                extra[mask] = valid if several else bool(valid[0])
        return extra

    def _image(
        self,
        image: str,
        caption_id: str,
        *,
        epoch: int,
        index: int,
        purpose: str = "crop",
        read: ReadBytes = read_bytes,
    ) -> Tensor:
        if self.features is not None:
            return self.features(image)
        rng = random_for(purpose, seed=self.seed, epoch=epoch, index=index)
        transform = self.transform
        if not (isinstance(transform, RandomCrop) and transform.scaled):
            return transform(read_image(image, folder=self.folder, caption_id=caption_id, read=read), rng)
        part = read_part(
            image,
            folder=self.folder,
            caption_id=caption_id,
            draw=lambda size: transform.draw(size, rng),
            least=transform.image.size,
            read=read,
        )
        return transform.finish(part)

    def _drawn(self, epoch: int, index: int) -> tuple[list[str], list[int]]:
        share = self.negatives_share
        if share < 1 and random_for("negatives share", seed=self.seed, epoch=epoch, index=index).random() >= share:
            return [], []
        texts, scores = self.rows.at("negatives", index), self.rows.at("scores", index)
        rules = self.rows.rule_of[self.rows.at("rules", index)].tolist()
        chance = random_for("negatives", seed=self.seed, epoch=epoch, index=index)
        with own_errors():  # A loader's process sends no traceback that names a place.
            chosen = self._choose(Offer(rules, scores), self.negatives_per_caption, chance)
        return [texts[number] for number in chosen], [rules[number] for number in chosen]


def data_digests(*files: ColumnFile | None) -> dict[str, str]:
    """Return a digest of each column of the rows as read, joined and checked; no image is read.

    Args:
        files: the rows, their additional columns and their neighbours.

    Returns:
        Maps the column's name (ids, images, captions, negatives, rules, ...) to the first 32 hexadecimal digits of its
        sha256. Columns that the run does not read are not included.
    """
    digests = {name: value for file in files if file is not None for name, value in file.digests.items()}
    return dict(sorted(digests.items()))


def data_counts(dataset: PairDataset) -> dict[str, int]:
    """Count captions, images and negatives of the joined and checked rows."""
    negatives, images = int(dataset.rows.lengths("negatives").sum()), int(dataset.groups.max()) + 1
    return {"captions": len(dataset), "images": images} | ({"negatives": negatives} if negatives else {})
