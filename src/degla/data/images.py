"""Files to RGB pictures, decoded to the last pixel or refused with the file, the caption and the remedy."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from degla.data.formats.datasets import PREFIX, read_image_bytes
from degla.errors import InputError

_log = logging.getLogger(__name__)

_PACKED = re.compile(r"(?P<shard>.+\.tar)@(?P<start>\d+)\+(?P<size>\d+)")
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)

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


Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""


def read_part(
    image: str,
    *,
    folder: Path,
    caption_id: str,
    draw: Callable[[tuple[int, int]], Box],
    least: int,
) -> Image.Image:
    """Decode what is needed of one image: a part of it, at no more than the resolution that is asked for.

    JPEG files can be decoded at a half, a quarter or an eighth of their size in a fraction of the time. The smallest
    such size is taken at which the part still has `least` pixels on either side; other files are decoded whole.

    Args:
        image: `CaptionRecord.image`.
        folder: what relative paths are relative to.
        caption_id: for messages.
        draw: from the upright picture's full width and height to the part.
        least: pixels on either side of the part that must be left; a very large number decodes all files whole.

    Raises:
        ImageError: as `read_image`.
    """
    picture = open_image(image, folder=folder, caption_id=caption_id)
    try:
        turned = picture.getexif().get(_ORIENTATION, 1) in _SIDEWAYS if picture.format == "JPEG" else False
        if picture.format == "JPEG":
            full = picture.size[::-1] if turned else picture.size
            box = draw(full)
            factor = next((by for by in (8, 4, 2) if min(box[2:]) // by >= least), 1)
            if factor > 1:
                picture.draft(None, (picture.width // factor, picture.height // factor))
            picture.load()
            whole = to_rgb(upright(picture))
        else:
            picture.load()
            whole = to_rgb(upright(picture))
            full = whole.size
            box = draw(full)
    except Exception as error:  # as in `read_image`
        raise damaged(image, folder=folder, caption_id=caption_id, error=error) from None
    across, down = whole.width / full[0], whole.height / full[1]
    left, top = round(box[0] * across), round(box[1] * down)
    right, bottom = round((box[0] + box[2]) * across), round((box[1] + box[3]) * down)
    # Cut before resizing: Pillow's `box` would let the filter see pixels outside the part.
    return whole.crop((left, top, right, bottom))


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
        content = read_bytes(place)
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


def read_bytes(place: str) -> bytes:
    """The bytes of an image file, of a row of a dataset, or of a member of a packed shard.

    Raises:
        OSError: there is no such file.
        InputError: the dataset or shard does not hold it.
    """
    if place.startswith(PREFIX):
        return read_image_bytes(place)
    packed = _PACKED.fullmatch(place)
    if packed is None:
        return Path(place).read_bytes()
    start, size = int(packed["start"]), int(packed["size"])
    with Path(packed["shard"]).open("rb") as stream:
        stream.seek(start)
        content = stream.read(size)
    if len(content) != size:
        raise InputError(f"the shard ends before byte {start + size}; pack it again.")
    return content


def is_there(place: str) -> bool:
    """Whether the file, or the shard that holds it, exists; rows of datasets are taken to."""
    packed = _PACKED.fullmatch(place)
    return place.startswith(PREFIX) or Path(packed["shard"] if packed else place).is_file()


def packed_place(shard: str, *, start: int, size: int) -> str:
    """How `CaptionRecord.image` names bytes of a shard: ``SHARD.tar@START+SIZE``."""
    return f"{shard}@{start}+{size}"


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
