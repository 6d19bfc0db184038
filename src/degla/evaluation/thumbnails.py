"""Small pictures for a page: an image file under a root folder enters, a `data:` address leaves."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path, PurePosixPath

from degla.errors import InputError
from degla.evaluation.pictures import is_there, part_of_picture
from degla.records import ItemImage

logger = logging.getLogger(__name__)
LARGEST = 10_000
"""Bytes of a thumbnail in the page, in base64."""
_SIDE = 144
_QUALITIES = (82, 65, 45, 25)


def thumbnail(image: ItemImage, *, root: Path) -> str | None:
    """A JPEG of at most `LARGEST` bytes and 144 pixels a side, as a `data:` address.

    Args:
        image: its path must lead into the root folder; its crop is cut out first.
        root: folder that image paths are relative to.

    Returns:
        None where there is no such file, it is no picture, or its path leads out of the folder.
    """
    path = PurePosixPath(image.path)
    if path.is_absolute() or ".." in path.parts:
        return None
    try:
        if not is_there(root, image.path):
            return None
        picture = part_of_picture(image, root=root, least=2 * _SIDE)
    except InputError as error:
        logger.debug("no thumbnail: %s", error)
        return None
    side = _SIDE
    while True:
        picture.thumbnail((side, side))
        for quality in _QUALITIES:
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=quality, optimize=True)
            text = base64.b64encode(stream.getvalue()).decode("ascii")
            if len(text) <= LARGEST:
                return f"data:image/jpeg;base64,{text}"
        side //= 2
