"""Files to RGB pictures, decoded to the last pixel or refused with the file, the caption and the remedy."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from degla.data.formats.datasets import PREFIX, read_image_bytes
from degla.errors import InputError

_log = logging.getLogger(__name__)

MAX_PIXELS = 89_478_485
"""Largest picture that is decoded: a quarter of a gibibyte as RGB, Pillow's own limit for a warning."""


class ImageError(InputError):
    """One image cannot be used; `bad_images="skip"` leaves its rows out."""


def locate(image: str, folder: Path) -> str:
    """The image's full path, or its reference into a dataset (see `formats/datasets.py`)."""
    return image if image.startswith(PREFIX) else str(folder / image)


def read_image(image: str, *, folder: Path, caption_id: str) -> Image.Image:
    """Decode one image completely into mode RGB, upright.

    The rotation that a camera wrote into EXIF is applied. Grey, palette and CMYK pictures are converted, 16-bit
    grey is brought to 8 bits, transparent pixels show white, and an animation gives its first picture.

    Args:
        image: `CaptionRecord.image`.
        folder: what relative paths are relative to.
        caption_id: for messages.

    Raises:
        ImageError: the file is missing, not an image, damaged or cut off, or larger than `MAX_PIXELS`.
    """
    picture = open_image(image, folder=folder, caption_id=caption_id)
    try:
        picture.load()
        return to_rgb(upright(picture))
    except Exception as error:  # Pillow's decoders raise a dozen unrelated kinds for damaged files
        raise damaged(image, folder=folder, caption_id=caption_id, error=error) from None


def open_image(image: str, *, folder: Path, caption_id: str) -> Image.Image:
    """Read a file and parse its header; the pixels are not decoded yet, and no file stays open.

    Raises:
        ImageError: the file is missing, not an image, or larger than `MAX_PIXELS`.
    """
    # Some libraries switch this on for the whole process; cut-off files then decode to half grey pictures.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    place = locate(image, folder)
    whose = f"{place}: the image of caption {caption_id!r}"
    try:
        content = read_image_bytes(place) if place.startswith(PREFIX) else Path(place).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{whose} is missing. Check the image folder ({folder}) that paths are relative to.") from None
    except OSError as error:
        raise ImageError(f"{whose} cannot be read: {error.strerror}.") from None
    except InputError as error:
        raise ImageError(f"{whose} cannot be read: {error}") from None
    bomb = f"{whose} has more than {MAX_PIXELS:,} pixels and is not decoded. Make it smaller, or leave it out."
    try:
        picture = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        found = f"it starts with {content[:16]!r}" if content else "the file is empty"
        raise ImageError(f"{whose} is not an image in any format that Pillow reads: {found}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(bomb) from None
    except Exception as error:
        raise damaged(image, folder=folder, caption_id=caption_id, error=error) from None
    if picture.width * picture.height > MAX_PIXELS:
        raise ImageError(bomb)
    return picture


def damaged(image: str, *, folder: Path, caption_id: str, error: Exception) -> ImageError:
    """The error for a file whose pixels cannot be decoded."""
    return ImageError(
        f"{locate(image, folder)}: the image of caption {caption_id!r} is damaged or cut off: {error}. "
        "Fetch the file again, or leave its rows out with --data.bad-images skip."
    )


def upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF block says; a block that cannot be read (they often cannot) turns nothing."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception as error:  # EXIF is parsed by the same decoders
        _log.debug("EXIF orientation passed over: %s", error)
        return picture


def to_rgb(picture: Image.Image) -> Image.Image:
    """Convert a decoded picture of any mode to RGB.

    Raises:
        ValueError: its pixel values have no known range (floating point, or whole numbers beyond 16 bits).
    """
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    if picture.mode.startswith("I"):
        # Pillow's own conversion would clip 16-bit grey at 255 and give a white picture.
        values = np.asarray(picture)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ValueError("its pixels are whole numbers beyond 16 bits; save it with 8 bits a channel")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("its pixels are floating point numbers; save it with 8 bits a channel")
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return picture.convert("RGB")
