"""The pictures of captions: a path, a row of a dataset or bytes of a packed shard enters, an RGB picture leaves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from degla.data.decoding import Box, ImageError, Subject, bytes_to_read, decode, decode_part, is_file, read_file, shown
from degla.data.formats.datasets import PREFIX, read_image_bytes
from degla.errors import InputError

# Numbers that a file's size can have: longer ones are no reference.
_PACKED = re.compile(r"(?P<shard>.+\.tar)@(?P<start>[0-9]{1,18})\+(?P<size>[0-9]{1,18})", re.DOTALL)


def locate(image: str, folder: Path) -> str:
    """The image's full path, or its reference into a dataset (see `formats/datasets.py`)."""
    return image if image.startswith(PREFIX) else str(folder / image)


def read_image(image: str, *, folder: Path, caption_id: str) -> Image.Image:
    """Decode one image completely into mode RGB, upright; see `decoding`.

    Args:
        image: `CaptionRecord.image`.
        folder: what relative paths are relative to.
        caption_id: for messages.

    Raises:
        ImageError: the file is missing, not an image, damaged or cut off, or refused by the rules of `decoding`.
    """
    subject = subject_of(image, folder, caption_id)
    return decode(read_bytes(locate(image, folder), subject), subject)


def read_part(
    image: str,
    *,
    folder: Path,
    caption_id: str,
    draw: Callable[[tuple[int, int]], Box],
    least: int,
) -> Image.Image:
    """Decode a part of one image, at no more than the resolution that is asked for; see `decoding.decode_part`.

    Raises:
        ImageError: as `read_image`.
    """
    subject = subject_of(image, folder, caption_id)
    return decode_part(read_bytes(locate(image, folder), subject), subject, draw=draw, least=least)


def look_for(image: str, *, folder: Path, caption_id: str) -> None:
    """Ask for the file, or for the part of the shard, without reading it; rows of datasets are taken to be there.

    Raises:
        ImageError: as `read_image`, as far as can be known without opening the file.
    """
    place, subject = locate(image, folder), subject_of(image, folder, caption_id)
    if not place.startswith(PREFIX):
        path, part = _parsed(place)
        bytes_to_read(path, subject, **part)


def is_there(place: str) -> bool:
    """Whether there is such a file, or the shard that holds it; rows of datasets are taken to be there."""
    return place.startswith(PREFIX) or is_file(_parsed(place)[0])


def read_bytes(place: str, subject: Subject) -> bytes:
    """The bytes of an image file, of a row of a dataset, or of a member of a packed shard.

    Raises:
        ImageError: there is no such file, or the dataset or shard does not hold it.
    """
    if not place.startswith(PREFIX):
        path, part = _parsed(place)
        return read_file(path, subject, **part)
    try:
        return read_image_bytes(place)
    except (InputError, OSError, ValueError) as error:
        raise ImageError(f"{subject.name} cannot be read: {error}") from None


def packed_place(shard: str, *, start: int, size: int) -> str:
    """How `CaptionRecord.image` names bytes of a shard: ``SHARD.tar@START+SIZE``."""
    return f"{shard}@{start}+{size}"


def _parsed(place: str) -> tuple[Path, dict[str, int]]:
    """The file, and the part of it that is the image where it is not all of it."""
    packed = _PACKED.fullmatch(place)
    if packed is None:
        return Path(place), {}
    return Path(packed["shard"]), {"start": int(packed["start"]), "size": int(packed["size"])}


def subject_of(image: str, folder: Path, caption_id: str) -> Subject:
    """How messages of training name an image."""
    return Subject(
        f"{shown(locate(image, folder))}: the image of caption {caption_id!r}",
        if_missing=f"Check the image folder ({folder}) that paths are relative to.",
        if_damaged="Fetch the file again, or leave its rows out (in training with --data.bad-images skip).",
    )
