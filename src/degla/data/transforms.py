"""RGB pictures to normalised tensors: the crop of training, and the model's own transform elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from degla.data.decoding import Box

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
_ATTEMPTS = 10


Transform = Callable[[Image.Image, Random], Float[Tensor, "3 height width"]]
"""What a dataset calls: an RGB picture and the generator of its row and epoch to a tensor, the same for equal ones."""


@dataclass(frozen=True)
class ImageTransform:
    """What a model expects of its images.

    Attributes:
        size: height and width, pixels.
        mean: of red, green and blue, on the scale 0 to 1.
        std: of red, green and blue, on the scale 0 to 1.
        interpolation: how pictures are resized; antialiased where they shrink.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def to_tensor(self, picture: Image.Image) -> Float[Tensor, "3 height width"]:
        """Scale the bytes to 0..1, subtract the mean and divide by the standard deviation."""
        return self.normalise(torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1))

    def normalise(self, pixels: UInt8[Tensor, "3 height width"]) -> Float[Tensor, "3 height width"]:
        """The same for bytes that are a tensor already."""
        mean = torch.tensor(self.mean).view(3, 1, 1)
        std = torch.tensor(self.std).view(3, 1, 1)
        # One pass turns and widens the bytes, two more scale them.
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).sub_(255 * mean).div_(255 * std)


@dataclass(frozen=True)
class RandomCrop:
    """A random part of the picture, resized to the model's size: the training of every compared paper.

    Attributes:
        image: what the model expects.
        scale: smallest and largest share of the picture's area, (0.9 and 1 in NegCLIP and DeGLA).
        ratio: smallest and largest width over height of the part.
        scaled: decode JPEG files at no more than the resolution that the part needs.
    """

    image: ImageTransform
    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    scaled: bool = True

    def __call__(self, picture: Image.Image, rng: Random) -> Float[Tensor, "3 height width"]:
        """Cut, resize and normalise."""
        left, top, width, height = self.draw(picture.size, rng)
        # Cut before resizing: Pillow's `box` would let the filter see pixels outside the part.
        return self.finish(picture.crop((left, top, left + width, top + height)))

    def draw(self, size: tuple[int, int], rng: Random) -> Box:
        """Which part of a picture of that width and height to take."""
        return draw_box(size, scale=self.scale, ratio=self.ratio, rng=rng)

    def finish(self, part: Image.Image) -> Float[Tensor, "3 height width"]:
        """Resize the part, to the byte as Pillow does it or one beside, and normalise it."""
        pixels = torch.from_numpy(np.array(part, dtype=np.uint8)).permute(2, 0, 1)[None]
        size = (self.image.size, self.image.size)
        # PyTorch's antialiased filter over bytes is Pillow's, several times faster.
        small = functional.interpolate(pixels, size, mode=self.image.interpolation, antialias=True)
        return self.image.normalise(small[0])


def draw_box(
    size: tuple[int, int], *, scale: tuple[float, float], ratio: tuple[float, float], rng: Random
) -> tuple[int, int, int, int]:
    """Draw (left, top, width, height) in pixels: area uniform in `scale`, log of the ratio uniform.

    After ten draws that do not fit, the largest centred part with an allowed ratio is taken.
    """
    full_width, full_height = size
    for _ in range(_ATTEMPTS):
        area = full_width * full_height * rng.uniform(*scale)
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width, height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < width <= full_width and 0 < height <= full_height:
            left = rng.randint(0, full_width - width)
            top = rng.randint(0, full_height - height)
            return left, top, width, height
    width = min(full_width, max(1, round(full_height * ratio[1])))
    height = min(full_height, max(1, round(full_width / ratio[0])))
    return (full_width - width) // 2, (full_height - height) // 2, width, height
