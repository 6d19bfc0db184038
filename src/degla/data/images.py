"""Images of captions, by path, dataset row or byte range of a packed shard: reading and checking."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
from PIL import Image

from degla.data.containers import find_cell, parsed_cell, parsed_place
from degla.data.decoding import (
    Box,
    ImageError,
    Subject,
    bytes_to_read,
    decode,
    decode_part,
    is_file,
    read_file,
    refused,
    shown,
)
from degla.data.formats.datasets import PREFIX, read_image_bytes
from degla.data.table import PairTable, RowIndex, encoded
from degla.errors import DeglaError, InputError
from degla.pages.words import counted
from degla.progress import TaskProgress
from degla.records import Record
from degla.remote import address_of, display_path, file_state, state_of


def locate(image: str, folder: Path) -> str:
    """Return the image's full path, or its reference into a dataset (see `formats/datasets.py`)."""
    if image.startswith(PREFIX):
        return image
    if address_of(image) is not None and address_of(folder) is None:
        # The user who passes the captions decides what is requested over the network, not the captions file.
        return str(folder.absolute() / image)
    return str(folder / image)


def read_bytes(place: str, subject: Subject) -> bytes:
    """Read the bytes of an image file, of a row of a dataset or Parquet file, or of a member of a shard.

    Raises:
        ImageError: the file does not exist, or the dataset or shard does not contain the image.
    """
    cell = parsed_cell(place)
    if not place.startswith(PREFIX) and cell is None:
        path, part = parsed_place(place)
        return read_file(path, subject, **part)
    with refused(subject):
        return read_image_bytes(place) if cell is None else bytes(find_cell(*cell).as_py())


ReadBytes = Callable[[str, Subject], bytes]
"""Reads the bytes of an image, as `read_bytes` does."""


def read_image(image: str, *, folder: Path, caption_id: str, read: ReadBytes = read_bytes) -> Image.Image:
    """Decode one image completely into mode RGB, upright; see `decoding`.

    Args:
        image: `CaptionRecord.image`.
        folder: base of relative paths.
        caption_id: for messages.
        read: reads its bytes.

    Raises:
        ImageError: the file is missing, not an image, damaged or cut off, or rejected by the rules of `decoding`.
    """
    subject = subject_of(image, folder, caption_id)
    return decode(read(locate(image, folder), subject), subject)


def read_part(
    image: str,
    *,
    folder: Path,
    caption_id: str,
    draw: Callable[[tuple[int, int]], Box],
    least: int,
    read: ReadBytes = read_bytes,
) -> Image.Image:
    """Decode a part of one image, at the lowest resolution that suffices; see `decoding.decode_part`.

    Raises:
        ImageError: as `read_image`.
    """
    subject = subject_of(image, folder, caption_id)
    return decode_part(read(locate(image, folder), subject), subject, draw=draw, least=least)


def look_for(image: str, *, folder: Path, caption_id: str, copied: bool = True) -> None:
    """Check that the file, or the byte range of the shard, exists without reading it; dataset rows are assumed to.

    The images of a Parquet file are copied, which training needs anyway; see `containers`. If not `copied`, of a remote
    one only the file must exist.

    Raises:
        ImageError: as `read_image`, as far as this can be known without opening the file.
    """
    _look_for(locate(image, folder), subject_of(image, folder, caption_id), copied=copied)


def _look_for(place: str, subject: Subject, *, copied: bool) -> None:
    if (cell := parsed_cell(place)) is not None:
        with refused(subject):
            if copied or (address := address_of(cell[0])) is None:
                find_cell(*cell)
            else:
                state_of(address)
    elif not place.startswith(PREFIX):
        path, part = parsed_place(place)
        bytes_to_read(path, subject, **part)


def image_state(place: str) -> tuple[int, int] | None:
    """Return the size in bytes of an image file or its part of a shard, and the modification time in nanoseconds.

    None if the file does not exist, the image is a row of a dataset or Parquet file, or the server does not answer.
    """
    if place.startswith(PREFIX) or parsed_cell(place) is not None:
        return None
    path, part = parsed_place(place)
    try:
        return bytes_to_read(path, Subject(shown(place)), **part), file_state(path)[0]
    except DeglaError:
        return None


def is_there(place: str) -> bool:
    """Whether the image's file, or the file that contains it, exists; dataset rows are assumed to.

    Raises:
        RemoteError, AccessError: its server does not answer or refuses access, which says nothing about the image.
    """
    if place.startswith(PREFIX):
        return True
    path = (parsed_cell(place) or parsed_place(place))[0]
    if address_of(path) is None:
        return is_file(path)
    try:
        with refused(Subject(place)):
            file_state(path)
    except ImageError:
        return False
    return True


def subject_of(image: str, folder: Path, caption_id: str) -> Subject:
    """Return how training messages name an image."""
    missing = f"Check the image folder ({folder}), the base of relative paths."
    if address_of(image) is not None:
        missing = "Addresses in a captions file are not requested: download the images, for example with img2dataset."
    return Subject(
        f"{shown(display_path(locate(image, folder)))}: the image of caption {caption_id!r}",
        if_missing=missing,
        if_damaged="Fetch the file again, or skip its rows (in training with --data.bad-images skip).",
    )


log = logging.getLogger(__name__)

_SHOWN = 5  # damaged images named in a message
_AT_A_TIME = 4096  # images that wait for a thread
_SILENT = TaskProgress()


class BadImage(Record):
    """An image that cannot be used: its path in the captions, and the error message, which names its first caption."""

    image: str
    message: str


class ImageReport(Record):
    """The result of a check: the number of distinct images checked, and those that cannot be used."""

    checked: int
    bad: tuple[BadImage, ...]

    def summary(self) -> str:
        """Return the count and the first few messages, one per line."""
        lines = [f"{len(self.bad):,} of {counted(self.checked, 'image')} cannot be used."]
        lines += [bad.message for bad in self.bad[:_SHOWN]]
        if len(self.bad) > _SHOWN:
            lines.append(f"... and {len(self.bad) - _SHOWN} more.")
        return "\n".join(lines)


def check_images(
    rows: PairTable,
    folder: Path,
    workers: int = 4,
    *,
    depth: Literal["exists", "decode"] = "decode",
    column: str = "image",
    every: int = 1,
    read: ReadBytes = read_bytes,
    progress: TaskProgress = _SILENT,
) -> ImageReport:
    """Check each distinct image of the rows once, in threads (Pillow decodes outside Python's global lock).

    Args:
        rows: whose images are checked.
        folder: base of relative paths.
        workers: threads, 1 or more.
        depth: "exists" only checks that the files exist; "decode" reads every file to its end, as training will.
        column: of the images' paths; a row may have none.
        every: N checks every N-th of the rows that have an image.
        read: reads the bytes of the images.
        progress: shows the progress.
    """
    paths = arrow.chunked_array(list(rows.chunks(column)))
    wanted = np.flatnonzero(paths.is_valid().to_numpy())[::every]
    codes = encoded(paths.take(arrow.array(wanted)))
    images = codes.dictionary
    firsts = wanted[np.unique(codes.indices.to_numpy(), return_index=True)[1]]
    look = partial(_fault, folder=folder, decoded=depth == "decode", read=read)
    bad = []
    with (
        ThreadPoolExecutor(max_workers=max(workers, 1)) as threads,
        progress.task("images", len(images)) as advance,
    ):
        for start in range(0, len(images), _AT_A_TIME):
            some = images.slice(start, _AT_A_TIME).to_pylist()
            ids = [rows.at("id", row) for row in firsts[start : start + _AT_A_TIME].tolist()]
            for image, message in zip(some, threads.map(look, some, ids), strict=True):
                if message is not None:
                    bad.append(BadImage(image=image, message=message))
            advance(len(some))
    if bad and (hint := _elsewhere(bad[0].image, folder)):
        bad[0] = BadImage(image=bad[0].image, message=f"{bad[0].message} {hint}")
    return ImageReport(checked=len(images), bad=tuple(bad))


def usable_rows(
    rows: PairTable,
    report: ImageReport,
    *,
    bad_images: Literal["stop", "skip"] = "stop",
    column: str = "image",
    flag: str = "--data.bad-images",
) -> RowIndex | None:
    """Return the numbers of the rows to train on; None for all of them.

    Args:
        rows: the training rows.
        report: the check of their images. For "stop" it is enough that every file exists: training ends at the first
            damaged image. For "skip" every image was decoded, so that all epochs have the same rows.
        bad_images: end the training at bad images, or skip their rows.
        column: of the images that were checked.
        flag: the flag for `bad_images`, for messages.

    Raises:
        InputError: a file is missing and `bad_images` is "stop", or no row is left.
    """
    if not report.bad:
        return None
    which = "" if column == "image" else f"images in column {column}: "
    if bad_images == "stop":
        raise InputError(f"{which}{report.summary()}\nTo train without them, add {flag} skip.")
    bad = arrow.array([entry.image for entry in report.bad], arrow.large_string())
    flags = [compute.is_in(chunk, bad).to_numpy(zero_copy_only=False) for chunk in rows.chunks(column)]
    usable = np.flatnonzero(~np.concatenate(flags))
    if not len(usable):
        raise InputError(f"no image can be used.\n{which}{report.summary()}")
    left_out = counted(len(rows) - len(usable), "row is", "rows are")
    log.warning("%s skipped. %s%s", left_out, which, report.summary())
    for entry in report.bad[_SHOWN:]:
        log.info("%s", entry.message)
    return usable


def _elsewhere(image: str, folder: Path) -> str:
    """Name a subfolder that has a missing image, or the folder above; "" if none has it."""
    with suppress(OSError, ValueError):
        if not (folder / image).exists():
            with os.scandir(folder) as entries:  # Without a look at each of a million images.
                below = sorted(folder / entry.name for entry in entries if entry.is_dir())
            for other in (*below, folder.resolve().parent):
                if (other / image).is_file():
                    return f"It is in {other}."
    return ""


def _fault(image: str, caption_id: str, *, folder: Path, decoded: bool, read: ReadBytes) -> str | None:
    # The caller knows whether rows are skipped, and says so once.
    place, subject = locate(image, folder), subject_of(image, folder, caption_id)
    subject = replace(subject, if_damaged="Fetch the file again.")
    try:
        if decoded:
            # JPEGs at an eighth of their size: all compressed data is read, but the expensive transform is skipped.
            decode_part(read(place, subject), subject, draw=lambda size: (0, 0, *size), least=1)
        else:
            _look_for(place, subject, copied=read is read_bytes)
    except ImageError as error:
        return str(error)
    return None
