"""A benchmark's pictures by path: a file, a member of a tar (`a.tar#b.jpg`), a row of a Parquet or Arrow file
(`a.parquet#image/17`) or of CIFAR (`test#17`).

So are the pictures of captions, which a model embeds too: rows of a dataset and parts of packed shards, see
`data.images`. Every one is decoded by `data.decoding`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
from pathlib import Path, PurePosixPath
from threading import Lock
from types import ModuleType

import numpy as np
from PIL import Image

from degla.data.containers import read_tar_member, tar_members
from degla.data.decoding import ImageError, Subject, decode, decode_part, is_file, shown
from degla.errors import InputError
from degla.evaluation.archives import MARK, SUFFIXES, as_image_file, has_bytes, read_batch, read_bytes
from degla.records import ImageReading, ItemImage

logger = logging.getLogger(__name__)
LARGEST = 10_000
"""Bytes of a thumbnail of the usual size in a page, in base64; of a larger one, as many more as it has more pixels."""
SIDE = 144
"""Pixels of its longer side."""
_FRAME = ".npy"
"""Ending of frames of videos as EqBen has them."""
_QUALITIES = (82, 65, 45, 25)


def _split(root: Path, path: str) -> tuple[Path, str]:
    """The file, and the name of the picture in it; "" where the file is the picture."""
    file, mark, member = path.rpartition(MARK)
    return (root / file, member) if mark and is_file(root / file) else (root / path, "")


def has_picture(root: Path, path: str) -> bool:
    """Whether there is such a picture; what it holds is not looked at."""
    file, member = _split(root, path)
    if not member:
        return bool(_images().is_there(_images().locate(path, root)))
    if file.suffix == ".tar":
        return member in tar_members(file)
    if file.suffix in SUFFIXES:
        return has_bytes(file, member)
    return 0 <= _row(member) < len(read_batch(file)[1])


def size_of(root: Path, path: str) -> int:
    """Bytes of a picture's file; 0 for a row of CIFAR, which is no file of its own.

    Raises:
        InputError: see `tar_members`.
    """
    file, member = _split(root, path)
    if not member:
        return file.stat().st_size
    if file.suffix in SUFFIXES:
        return len(read_bytes(file, member))
    return tar_members(file)[member][1] if file.suffix == ".tar" else 0


def read_picture(root: Path, path: str) -> bytes:
    """The bytes of an image file.

    Raises:
        ImageError: it cannot be read.
        InputError: nor can the file that holds it.
    """
    file, member = _split(root, path)
    if not member:
        content = _images().read_bytes(_images().locate(path, root), _subject(root, path))
        return _frame_file(content, _subject(root, path)) if file.suffix == _FRAME else content
    if file.suffix in SUFFIXES:
        return read_bytes(file, member)
    return read_tar_member(file, member) if file.suffix == ".tar" else as_image_file(file, _row(member))


def _frame_file(content: bytes, subject: Subject) -> bytes:
    """A frame that OpenCV read and numpy saved, blue first, as the bytes of a PNG file."""
    try:
        pixels = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ImageError(f"{subject.name} is no array that numpy saved ({error}). {subject.if_damaged}") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageError(
            f"{subject.name} is an array {pixels.shape} of {pixels.dtype}, not [height, width, 3] of bytes."
        )
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def content_digest(root: Path, path: str) -> str:
    """sha256 of a picture's bytes, wherever it lies.

    Raises:
        InputError: it cannot be read.
    """
    return hashlib.sha256(read_picture(root, path)).hexdigest()


class PictureFiles:
    """The files of images, read once for their digests and, where memory allows, kept for decoding.

    Args:
        root: folder that paths are relative to.
        room: bytes that may be kept.
    """

    def __init__(self, root: Path, *, room: int) -> None:
        self._root, self._room, self._lock = root, room, Lock()
        self._kept: dict[str, bytes] = {}

    def digest(self, path: str) -> str:
        """sha256 of a file's bytes.

        Raises:
            InputError: it cannot be read.
        """
        content = read_picture(self._root, path)
        with self._lock:
            if len(content) <= self._room:
                self._room -= len(content)
                self._kept[path] = content
        return hashlib.sha256(content).hexdigest()

    def read(self, path: str, digest: str) -> bytes:
        """The bytes of which `digest` was made.

        Raises:
            InputError: the file cannot be read, or was changed.
        """
        if (kept := self._kept.get(path)) is not None:
            return kept
        content = read_picture(self._root, path)
        if hashlib.sha256(content).hexdigest() != digest:
            place = shown(str(self._root / path))
            raise InputError(f"{place}: was changed while it was read. Evaluate again when nobody writes to it.")
        return content


def decode_picture(content: bytes, root: Path, path: str, *, reading: ImageReading = "upright") -> Image.Image:
    """The RGB picture in the bytes that `read_picture` gave.

    Raises:
        ImageError: see `data.decoding`.
    """
    return decode(content, _subject(root, path), reading=reading)


def decode_item(content: bytes, root: Path, image: ItemImage, *, reading: ImageReading = "upright") -> Image.Image:
    """The RGB picture of an item's image, or its crop of it.

    Raises:
        ImageError: see `data.decoding`.
        InputError: the crop lies outside of the image. One that begins above or left of the image, as some boxes of
            Visual Genome do by a pixel or two, is black there, as in the released codes.
    """
    picture = decode_picture(content, root, image.path, reading=reading)
    if image.crop is None:
        return picture
    path = shown(str(root / image.path))
    x, y, width, height = image.crop
    if width <= 0 or height <= 0 or x + width <= 0 or y + height <= 0:
        raise InputError(f"{path}: crop {image.crop} must be (x, y, width, height) with a part of the image in it.")
    if x + width > picture.width or y + height > picture.height:
        raise InputError(
            f"{path}: crop {image.crop} lies outside the image of {picture.width} x {picture.height} "
            "pixels. The image is not the one that the annotation is about."
        )
    return picture.crop((x, y, x + width, y + height))


def _row(member: str) -> int:
    """The number of a row of CIFAR; -1 for what is none."""
    return int(member) if member.isdecimal() and len(member) < 10 else -1


def _subject(root: Path, path: str) -> Subject:
    return Subject(f"{shown(_images().locate(path, root))}: the image")


def thumbnail(image: ItemImage, *, root: Path, side: int = SIDE) -> str | None:
    """A JPEG of bounded bytes and pixels a side, as a `data:` address.

    Args:
        image: its path must lead into the root folder; its crop is cut out first.
        root: folder that image paths are relative to.
        side: pixels of the longer side, at most.

    Returns:
        None where there is no such file, it is no picture, or its path leads out of the folder.
    """
    path = PurePosixPath(image.path)
    if path.is_absolute() or ".." in path.parts:
        return None
    try:
        if not has_picture(root, image.path):
            return None
        content, subject = read_picture(root, image.path), _subject(root, image.path)
        picture = decode_part(content, subject, draw=lambda size: image.crop or (0, 0, *size), least=2 * side)
    except InputError as error:
        logger.debug("no thumbnail: %s", error)
        return None
    largest = LARGEST * side * side // (SIDE * SIDE)
    while True:
        picture.thumbnail((side, side))
        for quality in _QUALITIES:
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=quality, optimize=True)
            text = base64.b64encode(stream.getvalue()).decode("ascii")
            if len(text) <= largest:
                return f"data:image/jpeg;base64,{text}"
        side //= 2


def _images() -> ModuleType:
    from degla.data import images  # Opens Arrow, which a report of results needs not.

    return images
