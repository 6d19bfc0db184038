"""The pictures of captions, by a path, a row of a dataset or bytes of a packed shard: read, or looked for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from degla.remote import address_of, file_state, told


def locate(image: str, folder: Path) -> str:
    """The image's full path, or its reference into a dataset (see `formats/datasets.py`)."""
    if image.startswith(PREFIX):
        return image
    if address_of(image) is not None and address_of(folder) is None:
        # Who gives a file of captions decides what is asked for over a network, not the file.
        return str(folder.absolute() / image)
    return str(folder / image)


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

    Of a Parquet file the pictures are copied, which training needs; see `containers`.

    Raises:
        ImageError: as `read_image`, as far as can be known without opening the file.
    """
    place, subject = locate(image, folder), subject_of(image, folder, caption_id)
    if (cell := parsed_cell(place)) is not None:
        with refused(subject):
            find_cell(*cell)
    elif not place.startswith(PREFIX):
        path, part = parsed_place(place)
        bytes_to_read(path, subject, **part)


def picture_state(place: str) -> tuple[int, int] | None:
    """Bytes of an image file, or of its part of a shard, and when the file was changed, in nanoseconds.

    None where there is no such file, or it is a row of a dataset or Parquet file, or its server does not answer.
    """
    if place.startswith(PREFIX) or parsed_cell(place) is not None:
        return None
    path, part = parsed_place(place)
    try:
        return bytes_to_read(path, Subject(shown(place)), **part), file_state(path)[0]
    except DeglaError:
        return None


def is_there(place: str) -> bool:
    """Whether there is such a file, or the file that holds it; rows of datasets are taken to be there."""
    return place.startswith(PREFIX) or is_file((parsed_cell(place) or parsed_place(place))[0])


def read_bytes(place: str, subject: Subject) -> bytes:
    """The bytes of an image file, of a row of a dataset or Parquet file, or of a member of a shard.

    Raises:
        ImageError: there is no such file, or the dataset or shard does not hold it.
    """
    cell = parsed_cell(place)
    if not place.startswith(PREFIX) and cell is None:
        path, part = parsed_place(place)
        return read_file(path, subject, **part)
    with refused(subject):
        return read_image_bytes(place) if cell is None else bytes(find_cell(*cell).as_py())


def subject_of(image: str, folder: Path, caption_id: str) -> Subject:
    """How messages of training name an image."""
    return Subject(
        f"{shown(told(locate(image, folder)))}: the image of caption {caption_id!r}",
        if_missing=f"Check the image folder ({folder}) that paths are relative to.",
        if_damaged="Fetch the file again, or leave its rows out (in training with --data.bad-images skip).",
    )


_log = logging.getLogger(__name__)

_SHOWN = 5  # damaged images named in a message
_AT_A_TIME = 4096  # images that wait for a thread
_SILENT = TaskProgress()


class BadImage(Record):
    """An image that cannot be used: its path in the captions, the captions about it, and what is wrong."""

    image: str
    caption_ids: tuple[str, ...]
    message: str


class ImageReport(Record):
    """The result of a check: how many different images were looked at, and those that cannot be used."""

    checked: int
    bad: tuple[BadImage, ...]

    def summary(self) -> str:
        """Count, and the first few messages, one a line."""
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
    progress: TaskProgress = _SILENT,
) -> ImageReport:
    """Look at each different image of the rows once, in threads (Pillow decodes outside Python's lock).

    Args:
        rows: whose images.
        folder: what relative paths are relative to.
        workers: threads, 1 or more.
        depth: "exists" only asks for the files; "decode" reads every one to its end, as training will.
        column: of the images' paths; a row may have none.
        every: look at every so many of the rows.
        progress: shows how far it is.
    """
    paths = arrow.chunked_array(list(rows.chunks(column)))
    wanted = np.flatnonzero(paths.is_valid().to_numpy())[::every]
    codes = encoded(paths.take(arrow.array(wanted)))
    images, number_of = codes.dictionary, codes.indices.to_numpy()
    firsts = wanted[np.unique(number_of, return_index=True)[1]]
    look = partial(_fault, folder=folder, decoded=depth == "decode")
    bad = []
    with (
        ThreadPoolExecutor(max_workers=max(workers, 1)) as threads,
        progress.task("images", len(images)) as advance,
    ):
        for start in range(0, len(images), _AT_A_TIME):
            some = images.slice(start, _AT_A_TIME).to_pylist()
            ids = [rows.at("id", row) for row in firsts[start : start + _AT_A_TIME].tolist()]
            for number, message in enumerate(threads.map(look, some, ids)):
                if message is not None:
                    about = wanted[number_of == start + number].tolist()
                    names = tuple(rows.at("id", row) for row in about)
                    bad.append(BadImage(image=some[number], caption_ids=names, message=message))
            advance(len(some))
    return ImageReport(checked=len(images), bad=tuple(bad))


def usable_rows(
    rows: PairTable,
    report: ImageReport,
    *,
    bad_images: Literal["stop", "skip"] = "stop",
    flag: str = "--data.bad-images",
) -> RowIndex | None:
    """Numbers of the rows to train on; None for all of them.

    Args:
        rows: of the training.
        report: of their images. "stop" needs to know that every file is there, and leaves decoding to the training,
            which ends at the first damaged image; for "skip" every image was decoded, so that all epochs have the
            same rows.
        bad_images: what bad images do: end the training, or have their rows left out.
        flag: of `bad_images`, for messages.

    Raises:
        InputError: "stop" and a file is missing; or no row is left.
    """
    if not report.bad:
        return None
    if bad_images == "stop":
        raise InputError(report.summary() + f"\nTo train without them, give {flag} skip.")
    bad = arrow.array([entry.image for entry in report.bad], arrow.large_string())
    flags = [compute.is_in(chunk, bad).to_numpy(zero_copy_only=False) for chunk in rows.chunks("image")]
    kept = np.flatnonzero(~np.concatenate(flags))
    if not len(kept):
        raise InputError("no image can be used.\n" + report.summary())
    left_out = counted(len(rows) - len(kept), "row is", "rows are")
    _log.warning("%s left out. %s", left_out, report.summary())
    for entry in report.bad[_SHOWN:]:
        _log.info("%s", entry.message)
    return kept


def _fault(image: str, caption_id: str, *, folder: Path, decoded: bool) -> str | None:
    try:
        if decoded:
            # A JPEG at an eighth of its size: all compressed data is still read, but the costly transform is skipped.
            read_part(image, folder=folder, caption_id=caption_id, draw=lambda size: (0, 0, *size), least=1)
        else:
            look_for(image, folder=folder, caption_id=caption_id)
    except ImageError as error:
        return str(error)
    return None
