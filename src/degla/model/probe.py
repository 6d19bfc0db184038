"""Generated images and texts for which two formats of a model must return the same embeddings."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from degla.errors import DeglaError

TEXTS = (
    "a photo of a cat",
    "Two dogs, a red ball and 3 children don't run!",
    "an old man's hat",
    "MOUNTAINS above the sea: blue, grey (and white).",
    " ".join(["a very long sentence about a street in the rain"] * 20),
)
"""Short texts, texts with capitals, digits, apostrophes and punctuation, and one longer than any context."""
EXACT, ROUNDED = 1e-5, 1e-4
"""Largest difference in a coordinate of unit-length embeddings: between PyTorch models, and PyTorch and ONNX."""
_PICTURES = 4


def pixels(size: tuple[int, int], *, count: int = _PICTURES) -> Float[Tensor, "count 3 height width"]:
    """Return noise with the spread of normalised pixels, the same for the same arguments."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, *size, generator=generator)


def picture(*, width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    """Generate an RGB image of soft shapes."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@torch.no_grad()
def gap(first: Tensor, second: Tensor) -> float:
    """Return the largest difference in a coordinate between two tables of embeddings, after normalisation."""
    normal = torch.nn.functional.normalize
    difference = normal(first.float(), dim=-1) - normal(second.float(), dim=-1)
    # NaN compares as false with every bound.
    return float(difference.abs().max().nan_to_num(float("inf")))


def require_close(what: str, difference: float, bound: float) -> None:
    """Refuse a converted model whose embeddings differ from those of the original.

    Raises:
        DeglaError: they differ by more than the bound.
    """
    if not difference <= bound:
        raise DeglaError(
            f"{what}: its embeddings differ from those of the model by {difference:.2g}, but at most {bound:g} is "
            "rounding. Nothing was written."
        )
