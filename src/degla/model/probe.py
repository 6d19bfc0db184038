"""Made pictures and texts on which two forms of one model must give the same embeddings."""

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
"""Short, with capitals, digits, apostrophes and marks, and longer than any context."""
EXACT, ROUNDED = 1e-5, 1e-4
"""Largest difference of a coordinate of unit embeddings: between forms in PyTorch, and to ONNX."""
_PICTURES = 4


def pixels(size: tuple[int, int], *, count: int = _PICTURES) -> Float[Tensor, "count 3 height width"]:
    """Noise with the spread of normalised pixels; the same for the same arguments."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, *size, generator=generator)


def picture(*, width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    """A made picture of soft shapes, RGB."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@torch.no_grad()
def gap(first: Tensor, second: Tensor) -> float:
    """Largest difference of a coordinate between two tables of embeddings, brought to length one."""
    normal = torch.nn.functional.normalize
    difference = normal(first.float(), dim=-1) - normal(second.float(), dim=-1)
    # A value that is no number compares as false with every bound.
    return float(difference.abs().max().nan_to_num(float("inf")))


def require_close(what: str, difference: float, bound: float) -> None:
    """Refuse a form of a model whose embeddings are not those of the model.

    Raises:
        DeglaError: they differ by more than the bound.
    """
    if not difference <= bound:
        raise DeglaError(
            f"{what}: its embeddings differ by {difference:.2g} from those of the model, and at most {bound:g} is "
            "rounding; nothing was written."
        )
