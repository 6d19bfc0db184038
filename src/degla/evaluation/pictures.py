"""A benchmark's pictures by path: a file, a member of a tar (`a.tar#b.jpg`), a row of CIFAR (`test#17`).

So are the pictures of captions, which a model embeds too: rows of a dataset and parts of packed shards, see
`data.images`. Every one is decoded by `data.decoding`.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from degla.data import images
from degla.data.decoding import Subject, decode, decode_part, is_file, shown
from degla.evaluation.data_sets.cifar import as_image_file, read_batch
from degla.evaluation.data_sets.tars import MARK, members_of, read_member
from degla.records import ImageReading, ItemImage


def _split(root: Path, path: str) -> tuple[Path, str]:
    """The file, and the name of the picture in it; "" where the file is the picture."""
    file, mark, member = path.rpartition(MARK)
    return (root / file, member) if mark and is_file(root / file) else (root / path, "")


def is_there(root: Path, path: str) -> bool:
    """Whether there is such a picture; what it holds is not looked at."""
    file, member = _split(root, path)
    if not member:
        return images.is_there(images.locate(path, root))
    if file.suffix == ".tar":
        return member in members_of(file)
    return 0 <= _row(member) < len(read_batch(file)[1])


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
        ImageError: it cannot be read.
        InputError: nor can the file that holds it.
    """
    file, member = _split(root, path)
    if not member:
        return images.read_bytes(images.locate(path, root), _subject(root, path))
    return read_member(file, member) if file.suffix == ".tar" else as_image_file(file, _row(member))


def decode_picture(content: bytes, root: Path, path: str, *, reading: ImageReading = "upright") -> Image.Image:
    """The RGB picture in the bytes that `read_picture` gave.

    Raises:
        ImageError: see `data.decoding`.
    """
    return decode(content, _subject(root, path), reading=reading)


def _row(member: str) -> int:
    """The number of a row of CIFAR; -1 for what is none."""
    return int(member) if member.isdecimal() and len(member) < 10 else -1


def part_of_picture(image: ItemImage, *, root: Path, least: int) -> Image.Image:
    """The crop of a picture, or all of it, at no more than the resolution that is asked for; see `decode_part`.

    Raises:
        ImageError: see `data.decoding`; or its file cannot be read.
        InputError: nor can the file that holds it.
    """
    content = read_picture(root, image.path)
    return decode_part(content, _subject(root, image.path), draw=lambda size: image.crop or (0, 0, *size), least=least)


def _subject(root: Path, path: str) -> Subject:
    return Subject(f"{shown(images.locate(path, root))}: the image")
