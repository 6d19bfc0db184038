"""What makes an embedding the same one: the model as it computes, the picture's or text's content, never its name."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from degla.data import decoding
from degla.evaluation.pictures import read_picture
from degla.records import ImageReading

if TYPE_CHECKING:
    from degla.evaluation.embedding_model import EmbeddingModel

_LIBRARIES = ("torch", "torchvision", "pillow")


def identity_of(
    encoder: EmbeddingModel, *, fingerprint: str | None = None, image_reading: ImageReading = "upright"
) -> str:
    """sha256 of all that an embedding depends on besides its input.

    That is the weights, the activation, the precision, the kind of device, the reading of images, the preprocessing,
    and the versions of the libraries that decode, transform and multiply: another version may round otherwise, and a
    score that changes with the age of a cache would be no result.

    Args:
        encoder: the model.
        fingerprint: the encoder's own, where the caller has it already (it reads all weights).
        image_reading: see `data.decoding.decode`.
    """
    from degla.model.linear_kernel import NAME, has_kernel

    device = getattr(encoder.device, "type", None) or str(encoder.device).partition(":")[0]
    parts = {
        "fingerprint": encoder.fingerprint if fingerprint is None else fingerprint,
        "activation": encoder.activation,
        "precision": encoder.precision,
        "device": device,
        "reading": f"{image_reading} {decoding.VERSION}",
        "preprocessing": preprocessing_digest(encoder.transform),
        "libraries": _versions(),
        "linear": NAME if device == "cpu" and has_kernel() else "",
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def preprocessing_digest(transform: Any) -> str:
    """sha256 of what a transform makes of one fixed picture.

    What it does says more than what it is called: sizes, crops, filters, means and deviations all show in the pixels,
    whether or not the transform can describe itself. A transform that draws random numbers never gives the same.
    """
    import torch
    from PIL import Image

    pixels = np.asarray(torch.as_tensor(transform(Image.fromarray(_probe()))).detach().cpu())
    return hashlib.sha256(f"{pixels.dtype}{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def content_digest(root: Path, path: str) -> str:
    """sha256 of a picture's bytes, wherever it lies; see `pictures`.

    Raises:
        InputError: it cannot be read.
    """
    return hashlib.sha256(read_picture(root, path)).hexdigest()


@cache
def _probe() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A picture `[467, 613, 3]`, neither square nor round in size, with slow and fast changes in each colour."""
    height, width = 467, 613
    y, x = np.mgrid[:height, :width]
    slow = (x * 251 // width + y * 241 // height) // 2
    fast = (x * x * 7 + y * y * 13 + x * y * 3) % 256
    return np.stack([slow, fast, (slow + fast) % 256], axis=-1).astype(np.uint8)


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
