"""Looks at every image of the rows before training, so that a damaged one does not end a run after hours."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from degla.data.decoding import ImageError
from degla.data.images import look_for, read_part
from degla.data.pairs import PairRow
from degla.errors import InputError

_log = logging.getLogger(__name__)

_SHOWN = 5  # damaged images named in a message


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used: its path in the captions, the captions about it, and what is wrong."""

    image: str
    caption_ids: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class ImageReport:
    """The result of a check: how many different images were looked at, and those that cannot be used."""

    checked: int
    bad: tuple[BadImage, ...]

    def summary(self) -> str:
        """Count, and the first few messages, one a line."""
        lines = [f"{len(self.bad)} of {self.checked} images cannot be used."]
        lines += [bad.message for bad in self.bad[:_SHOWN]]
        if len(self.bad) > _SHOWN:
            lines.append(f"... and {len(self.bad) - _SHOWN} more.")
        return "\n".join(lines)


def check_images(
    rows: Sequence[PairRow],
    folder: Path,
    workers: int = 4,
    *,
    depth: Literal["exists", "decode"] = "decode",
) -> ImageReport:
    """Look at each different image of the rows once, in threads (Pillow decodes outside Python's lock).

    Args:
        rows: whose images.
        folder: what relative paths are relative to.
        workers: threads, 1 or more.
        depth: "exists" only asks for the files; "decode" reads every one to its end, as training will.
    """
    captions: dict[str, list[str]] = {}
    for row in rows:
        captions.setdefault(row.caption.image, []).append(row.caption.id)
    look = partial(_exists if depth == "exists" else _decodes, folder=folder)
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as threads:
        firsts = (ids[0] for ids in captions.values())
        messages = list(threads.map(look, captions, firsts))
    bad = tuple(
        BadImage(image, tuple(ids), message)
        for (image, ids), message in zip(captions.items(), messages, strict=True)
        if message is not None
    )
    return ImageReport(checked=len(captions), bad=bad)


def usable_rows(
    rows: Sequence[PairRow], folder: Path, *, bad_images: Literal["stop", "skip"] = "stop", workers: int = 4
) -> list[PairRow]:
    """The rows to train on, in order.

    "stop" asks whether every file is there and leaves decoding to the training, which ends at the first damaged
    image. "skip" decodes every image beforehand, leaves the rows of bad ones out and names them in the log, so
    that every epoch has the same rows.

    Raises:
        InputError: "stop" and a file is missing; or no row is left.
    """
    report = check_images(rows, folder, workers, depth="exists" if bad_images == "stop" else "decode")
    if not report.bad:
        return list(rows)
    if bad_images == "stop":
        raise InputError(report.summary() + "\nTo train without them, give --data.bad-images skip.")
    bad = {entry.image for entry in report.bad}
    kept = [row for row in rows if row.caption.image not in bad]
    if not kept:
        raise InputError("no image can be used.\n" + report.summary())
    _log.warning("%d rows are left out. %s", len(rows) - len(kept), report.summary())
    for entry in report.bad[_SHOWN:]:
        _log.info("%s", entry.message)
    return kept


def check_further_images(rows: Sequence[PairRow], column: str, folder: Path, *, workers: int = 4) -> None:
    """Ask for the file of every image of an optional column.

    Raises:
        InputError: one is missing.
    """
    named = [row.caption for row in rows if getattr(row.caption, column)]
    second = [PairRow(each.model_copy(update={"image": getattr(each, column)}), (), ()) for each in named]
    report = check_images(second, folder, workers, depth="exists")
    if report.bad:
        raise InputError(f"images of the column {column}: {report.summary()}")


def _exists(image: str, caption_id: str, *, folder: Path) -> str | None:
    try:
        look_for(image, folder=folder, caption_id=caption_id)
    except ImageError as error:
        return str(error)
    return None


def _decodes(image: str, caption_id: str, *, folder: Path) -> str | None:
    try:
        # A JPEG at an eighth of its size: all compressed data is still read, but the costly transform is skipped.
        read_part(image, folder=folder, caption_id=caption_id, draw=lambda size: (0, 0, *size), least=1)
    except ImageError as error:
        return str(error)
    return None
