"""Captions by their id, on disk: two million of them take a few megabytes of memory.

An unnamed SQLite database holds them; it lies in the folder for temporary files and goes when it is closed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Final

from degla.errors import InputError
from degla.records import CaptionRecord

_CACHE: Final = 32_768
"""Kilobytes of pages that are held in memory."""


@dataclass(frozen=True, slots=True)
class IndexedCaption:
    """A caption and its place.

    Attributes:
        number: place among the captions, from 0.
        text: what it says.
        image: path of its image.
        image_id: name of its image.
    """

    number: int
    text: str
    image: str
    image_id: str


class CaptionIndex:
    """Finds captions by their id. Used in a ``with`` block."""

    def __init__(self, captions: Iterable[CaptionRecord]) -> None:
        """Read all captions once.

        Raises:
            InputError: a caption id comes twice.
        """
        self._database = open_temporary_database()
        self._database.execute(
            "CREATE TABLE captions (number INTEGER PRIMARY KEY, id TEXT UNIQUE, text TEXT, image TEXT, image_id TEXT)"
        )
        numbers = count()
        try:
            self._database.executemany(
                "INSERT INTO captions VALUES (?, ?, ?, ?, ?)",
                ((next(numbers), record.id, record.text, record.image, record.image_id) for record in captions),
            )
        except sqlite3.IntegrityError:
            raise InputError("a caption id comes twice in the captions; negatives are joined by it.") from None
        self._size = next(numbers)
        self._last: tuple[str, IndexedCaption | None] = ("", None)

    def __enter__(self) -> CaptionIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def __len__(self) -> int:
        return self._size

    def find(self, caption_id: str) -> IndexedCaption | None:
        """The caption of that id; None where there is none."""
        if self._last[0] != caption_id:
            row = self._database.execute(
                "SELECT number, text, image, image_id FROM captions WHERE id = ?", (caption_id,)
            ).fetchone()
            self._last = (caption_id, IndexedCaption(*row) if row else None)
        return self._last[1]

    def __iter__(self) -> Iterator[tuple[str, IndexedCaption]]:
        """Every caption with its id, in order."""
        for row in self._database.execute("SELECT id, number, text, image, image_id FROM captions ORDER BY number"):
            yield row[0], IndexedCaption(*row[1:])


def open_temporary_database() -> sqlite3.Connection:
    """A database without a name: its pages go to a temporary file when they are too many for the cache."""
    database = sqlite3.connect("")
    database.execute(f"PRAGMA cache_size = -{_CACHE}")
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    return database
