"""Access a benchmark's images by path: a file, a member of a tar (`a.tar#b.jpg`), a row of a Parquet or Arrow file
(`a.parquet#image/17`) or of CIFAR (`test#17`).

Images of captions work too: rows of a dataset and parts of packed shards, see
`data.images`. All are decoded by `data.decoding`.
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

log = logging.getLogger(__name__)
LARGEST = 10_000
"""Largest size of a default thumbnail in a page, in base64 bytes; scaled with the pixels for larger ones."""
SIDE = 144
"""Longer side of a default thumbnail, in pixels."""
_FRAME = ".npy"
"""Extension of EqBen's video frames."""
_QUALITIES = (82, 65, 45, 25)


def _split(root: Path, path: str) -> tuple[Path, str]:
    """The file, and the name of the image in it; "" if the file is the image."""
    file, mark, member = path.rpartition(MARK)
    return (root / file, member) if mark and is_file(root / file) else (root / path, "")


def has_image(root: Path, path: str) -> bool:
    """Whether the image exists; its content is not read."""
    file, member = _split(root, path)
    if not member:
        return bool(_images_module().is_there(_images_module().locate(path, root)))
    if file.suffix == ".tar":
        return member in tar_members(file)
    if file.suffix in SUFFIXES:
        return has_bytes(file, member)
    return 0 <= _row(member) < len(read_batch(file)[1])


def size_of(root: Path, path: str) -> int:
    """Return the size of an image file in bytes; 0 for a row of CIFAR, which is not a file.

    Raises:
        InputError: it cannot be read.
    """
    file, member = _split(root, path)
    if not member:
        state = _images_module().image_state(_images_module().locate(path, root))
        return len(read_image_file(root, path)) if state is None else int(state[0])
    if file.suffix in SUFFIXES:
        return len(read_bytes(file, member))
    return tar_members(file)[member][1] if file.suffix == ".tar" else 0


def read_image_file(root: Path, path: str) -> bytes:
    """Return the bytes of an image file.

    Raises:
        ImageError: the image cannot be read.
        InputError: the file that contains it cannot be read.
    """
    file, member = _split(root, path)
    if not member:
        content = _images_module().read_bytes(_images_module().locate(path, root), _subject(root, path))
        return _frame_file(content, _subject(root, path)) if file.suffix == _FRAME else content
    if file.suffix in SUFFIXES:
        return read_bytes(file, member)
    return read_tar_member(file, member) if file.suffix == ".tar" else as_image_file(file, _row(member))


def _frame_file(content: bytes, subject: Subject) -> bytes:
    """A frame saved by numpy in OpenCV's BGR order, as the bytes of a PNG file."""
    try:
        pixels = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ImageError(f"{subject.name} is not a saved numpy array ({error}). {subject.if_damaged}") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageError(
            f"{subject.name} is an array {pixels.shape} of {pixels.dtype}, not [height, width, 3] of uint8."
        )
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1])).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def content_digest(root: Path, path: str) -> str:
    """Return the sha256 of an image's bytes, wherever it is stored.

    Raises:
        InputError: it cannot be read.
    """
    return hashlib.sha256(read_image_file(root, path)).hexdigest()


class ImageFiles:
    """Image files, read once for their digests and, if memory allows, kept for decoding.

    Args:
        root: folder that paths are relative to.
        room: largest number of bytes to keep.
    """

    def __init__(self, root: Path, *, room: int) -> None:
        self._root, self._room, self._lock = root, room, Lock()
        self._contents: dict[str, bytes] = {}

    def digest(self, path: str) -> str:
        """Return the sha256 of a file's bytes.

        Raises:
            InputError: it cannot be read.
        """
        content = read_image_file(self._root, path)
        with self._lock:
            if len(content) <= self._room:
                self._room -= len(content)
                self._contents[path] = content
        return hashlib.sha256(content).hexdigest()

    def read(self, path: str, digest: str) -> bytes:
        """Return the bytes with this digest.

        Raises:
            InputError: the file cannot be read, or was changed.
        """
        if (cached := self._contents.get(path)) is not None:
            return cached
        content = read_image_file(self._root, path)
        if hashlib.sha256(content).hexdigest() != digest:
            place = shown(str(self._root / path))
            raise InputError(f"{place}: was changed while it was read. Evaluate again when nothing writes to it.")
        return content


def decode_image(content: bytes, root: Path, path: str, *, reading: ImageReading = "upright") -> Image.Image:
    """Decode the bytes from `read_image_file` to an RGB image.

    Raises:
        ImageError: see `data.decoding`.
    """
    return decode(content, _subject(root, path), reading=reading)


def decode_item(content: bytes, root: Path, image: ItemImage, *, reading: ImageReading = "upright") -> Image.Image:
    """Decode an item's image to RGB and apply its crop.

    Raises:
        ImageError: see `data.decoding`.
        InputError: the crop is outside the image. A crop that starts above or left of the image, as some boxes of
            Visual Genome do by a pixel or two, is black there, as in the released codes.
    """
    picture = decode_image(content, root, image.path, reading=reading)
    if image.crop is None:
        return picture
    path = shown(str(root / image.path))
    x, y, width, height = image.crop
    if width <= 0 or height <= 0 or x + width <= 0 or y + height <= 0:
        raise InputError(f"{path}: crop {image.crop} must be (x, y, width, height) with a part of the image in it.")
    if x + width > picture.width or y + height > picture.height:
        raise InputError(
            f"{path}: crop {image.crop} lies outside the image of {picture.width} x {picture.height} "
            "pixels. This is not the image that the annotation is about."
        )
    return picture.crop((x, y, x + width, y + height))


def _row(member: str) -> int:
    """The number of a row of CIFAR; -1 if it is not a number."""
    return int(member) if member.isdecimal() and len(member) < 10 else -1


def _subject(root: Path, path: str) -> Subject:
    return Subject(f"{shown(_images_module().locate(path, root))}: the image")


def thumbnail(image: ItemImage, *, root: Path, side: int = SIDE) -> str | None:
    """Return a JPEG thumbnail of bounded size, as a `data:` URL.

    Args:
        image: its path must stay inside the root folder; its crop is applied first.
        root: folder that image paths are relative to.
        side: largest number of pixels of the longer side.

    Returns:
        None if there is no such file, it is not an image, or its path leads out of the folder.
    """
    path = PurePosixPath(image.path)
    if path.is_absolute() or ".." in path.parts:
        return None
    try:
        if not has_image(root, image.path):
            return None
        content, subject = read_image_file(root, image.path), _subject(root, image.path)
        picture = decode_part(content, subject, draw=lambda size: image.crop or (0, 0, *size), least=2 * side)
    except InputError as error:
        log.debug("no thumbnail: %s", error)
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


def _images_module() -> ModuleType:
    from degla.data import images  # Imports Arrow, which a report of results does not need.

    return images
