"""Read captions twice: the first pass keeps 24 bytes per caption, the second yields them in batches.

The first pass finds repeated ids and records which texts belong to one image, since another caption of the same image
is true of it and cannot be a negative. Texts are kept as 64-bit hashes: among two million captions, a collision has a
probability of 1 in 10 million.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degla.errors import InputError
from degla.negatives.checks import Content
from degla.negatives.grammar import words
from degla.negatives.grammar.words import UsageCounter
from degla.pages.words import counted
from degla.progress import TaskProgress
from degla.records import CaptionRecord

Captions = Iterable[CaptionRecord] | Callable[[], Iterable[CaptionRecord]]
"""Captions, or a function that returns a new iterator over them at every call. An iterator is read into memory."""

FinishedRules = dict[str, tuple[str, ...]]
"""The finished rules of one caption, each with the negatives that it made."""

BATCH: Final = 256
"""Captions per batch; batches start at multiples of it, so a resumed run tags the same batches."""
_REMEDY: Final = "Run the same command again when nothing else writes them."


def hash_text(text: str) -> int:
    """Return a 64-bit BLAKE2b hash, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def hash_content(content: Content) -> int:
    """Return the hash of a text's words; equal for texts with equal content."""
    return hash_text("\n".join(content))


@dataclass(frozen=True)
class CaptionTask:
    """One caption to make negatives of.

    Attributes:
        id: the caption's id.
        text: the caption's text.
        siblings: `hash_content` of its image's captions, with its own; empty if that is the only one. The tasks of an
            image share one object, since a table of texts alone may name one image for all of them.
        done: finished rules, which are not run again.
        sibling_texts: other captions of its image that are in the same batch.
    """

    id: str
    text: str
    siblings: frozenset[int] = frozenset()
    done: FinishedRules = field(default_factory=dict)
    sibling_texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaptionBatch:
    """Captions that are tagged together.

    Attributes:
        start: position of the batch's first caption in the list, including finished ones.
        lead: texts of the batch's finished captions, tagged together with it but not used.
        tasks: the other captions.
    """

    start: int
    lead: tuple[str, ...]
    tasks: tuple[CaptionTask, ...]


class CaptionStream:
    """All captions of a run, with at most one batch of them in memory.

    Attributes:
        sha256: digest of all ids, image ids and texts in order.
        ids: hash of each caption's id, in order, shape [captions].
        usage: word frequencies of the captions; None if not counted.
    """

    def __init__(self, captions: Captions, *, count_usage: bool = False, progress: bool = False) -> None:
        """Read all captions once.

        Args:
            captions: as in `generate`.
            count_usage: whether to count word frequencies.
            progress: whether to show how many were read.

        Raises:
            InputError: a caption id occurs twice.
        """
        if not callable(captions) and not isinstance(captions, Sequence):
            captions = list(captions)
        self._captions = captions
        ids, images, contents = array("Q"), array("Q"), array("Q")
        digest = hashlib.sha256()
        counter = UsageCounter() if count_usage else None
        with TaskProgress(progress).task("captions", None) as advance:
            for number, record in enumerate(self._read(), 1):
                digest.update(f"{record.id}\t{record.image_id}\t{record.text}\n".encode())
                ids.append(hash_text(record.id))
                images.append(hash_text(record.image_id))
                content = words.content(record.text)
                contents.append(hash_content(content))
                if counter is not None:
                    counter.add(content)
                if number % BATCH == 0:
                    advance(BATCH)
        self.usage = counter.usage() if counter is not None else None
        self.sha256 = digest.hexdigest()
        self.ids: NDArray[np.uint64] = np.frombuffer(ids, dtype=np.uint64)
        self._refuse_repeated()
        by_image = np.frombuffer(images, dtype=np.uint64)
        order = np.argsort(by_image, kind="stable")
        self._images = by_image[order]
        self._contents = np.frombuffer(contents, dtype=np.uint64)[order]

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, first: int = 0, done: FinishedRules | None = None) -> Iterator[CaptionBatch]:
        """Yield the captions from number `first` on.

        Args:
            first: number of finished captions.
            done: finished rules of caption number `first`.

        Raises:
            InputError: the captions differ from those of the first pass.
        """
        start = first - first % BATCH
        records = islice(self._read(), start, None)
        siblings: dict[str, frozenset[int]] = {}
        while batch := list(islice(records, BATCH)):
            for place, record in enumerate(batch, start):
                if place >= len(self) or hash_text(record.id) != self.ids[place]:
                    raise InputError(
                        f"caption {place}, id {record.id!r}: the captions changed while being read. {_REMEDY}"
                    )
            unfinished = max(first - start, 0)
            of_image: dict[str, list[str]] = {}
            for record in batch:
                of_image.setdefault(record.image_id, []).append(record.text)
            siblings = {image: siblings.get(image) or self._siblings(image) for image in of_image}
            yield CaptionBatch(
                start,
                tuple(record.text for record in batch[:unfinished]),
                tuple(
                    CaptionTask(
                        record.id,
                        record.text,
                        siblings[record.image_id],
                        (done or {}) if place == first else {},
                        tuple(text for text in of_image[record.image_id] if text != record.text),
                    )
                    for place, record in enumerate(batch[unfinished:], start + unfinished)
                ),
            )
            start += len(batch)
        if start < len(self):
            raise InputError(
                f"the captions changed while being read: {counted(len(self), 'caption')} in the first pass, "
                f"{start} in the second. {_REMEDY}"
            )

    def _read(self) -> Iterator[CaptionRecord]:
        return iter(self._captions() if callable(self._captions) else self._captions)

    def _siblings(self, image_id: str) -> frozenset[int]:
        image = np.uint64(hash_text(image_id))
        start, end = np.searchsorted(self._images, image, side="left"), np.searchsorted(self._images, image, "right")
        return frozenset(self._contents[start:end].tolist()) if end - start > 1 else frozenset()

    def _refuse_repeated(self) -> None:
        if len(np.unique(self.ids)) == len(self.ids):
            return
        numbers: dict[str, int] = {}
        for index, record in enumerate(self._read()):
            if record.id in numbers:
                raise InputError(
                    f"caption {index}: id {record.id!r} is already the id of caption {numbers[record.id]}. "
                    "Ids must be unique, because negatives are joined by them."
                )
            numbers[record.id] = index
