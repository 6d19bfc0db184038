"""A benchmark's pictures by path: an image file, a member of a tar (`a.tar#b.jpg`) or a row of CIFAR (`test#17`)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from degla.errors import InputError
from degla.evaluation.data_sets.cifar import as_image_file, read_batch
from degla.evaluation.data_sets.tars import members_of, read_member

if TYPE_CHECKING:
    from PIL.Image import Image

MARK = "#"
"""Stands between a file that holds several pictures and the name of one in it."""


def _split(root: Path, path: str) -> tuple[Path, str]:
    """The file, and the name of the picture in it; "" where the file is the picture."""
    file, mark, member = path.rpartition(MARK)
    return (root / file, member) if mark and (root / file).is_file() else (root / path, "")


def is_there(root: Path, path: str) -> bool:
    """Whether there is such a picture; what it holds is not looked at."""
    file, member = _split(root, path)
    if not member:
        return file.is_file()
    if file.suffix == ".tar":
        return member in members_of(file)
    return member.isdecimal() and int(member) < len(read_batch(file)[1])


def size_of(root: Path, path: str) -> int:
    """Bytes of a picture's file; 0 for a row of CIFAR, which is no file of its own.

    Raises:
        InputError: see `members_of`.
    """
    file, member = _split(root, path)
    if not member:
        return file.stat().st_size
    return members_of(file)[member][1] if file.suffix == ".tar" else 0


def read_picture(root: Path, path: str) -> bytes:
    """The bytes of an image file.

    Raises:
        InputError: it cannot be read.
    """
    file, member = _split(root, path)
    try:
        if not member:
            return file.read_bytes()
        return read_member(file, member) if file.suffix == ".tar" else as_image_file(file, int(member))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{root / path}: cannot be read as an image: {reason}. Fetch the file again.") from None


def decode(content: bytes, where: str) -> Image:
    """An RGB picture of any size.

    Raises:
        InputError: not an image, a truncated one, or one of so many pixels that it must be meant to do harm.
    """
    from PIL import Image, ImageFile

    # Some libraries switch this on for the whole process; cut-off files then decode to half grey pictures.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(content)) as opened:
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: cannot be read as an image: {error}. Fetch the file again.") from None
