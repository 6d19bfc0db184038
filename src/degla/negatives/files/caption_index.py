"""An on-disk index of captions by id: two million captions take a few megabytes of memory.

The captions are in an unnamed SQLite database in the folder for temporary files, deleted on close.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from degla.data.pairs import normalized_words
from degla.errors import InputError
from degla.files import open_temporary_database
from degla.records import CaptionRecord, NegativeRecord, only_negatives


@dataclass(frozen=True, slots=True)
class IndexedCaption:
    """A caption and its position.

    Attributes:
        number: position among the captions, from 0.
        text: the caption's text.
        image: path of its image.
        image_id: id of its image.
    """

    number: int
    text: str
    image: str
    image_id: str


class CaptionNegatives(NamedTuple):
    """A caption with its accepted negatives as (rule, text), in the order of the rows."""

    id: str
    caption: IndexedCaption
    texts: tuple[tuple[str, str], ...]


class CaptionIndex:
    """An index of captions by id that can also hold their negatives. Use it in a ``with`` block."""

    def __init__(
        self, captions: Iterable[CaptionRecord], *, file: str = "the captions file", negatives_file: str = "a negative"
    ) -> None:
        """Read all captions once; ids must be unique, which `data/sources.py` ensures.

        Args:
            captions: the captions.
            file: their file, for messages.
            negatives_file: the file of negatives that refer to them, for messages.
        """
        self.file, self.negatives_file = file, negatives_file
        self._database = open_temporary_database()
        self._database.execute(
            "CREATE TABLE captions (number INTEGER PRIMARY KEY, id TEXT UNIQUE, text TEXT, image TEXT, image_id TEXT)"
        )
        numbers = count()
        self._database.executemany(
            "INSERT INTO captions VALUES (?, ?, ?, ?, ?)",
            ((next(numbers), record.id, record.text, record.image, record.image_id) for record in captions),
        )
        self._size = next(numbers)
        self._last: tuple[str, IndexedCaption | None] = ("", None)

    def __enter__(self) -> CaptionIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def __len__(self) -> int:
        return self._size

    def find(self, caption_id: str) -> IndexedCaption | None:
        """Return the caption with that id; None if there is none."""
        if self._last[0] != caption_id:
            row = self._database.execute(
                "SELECT number, text, image, image_id FROM captions WHERE id = ?", (caption_id,)
            ).fetchone()
            self._last = (caption_id, IndexedCaption(*row) if row else None)
        return self._last[1]

    def require(self, caption_id: str) -> IndexedCaption:
        """Return the caption with that id, to which a negative refers.

        Raises:
            InputError: there is none.
        """
        if (caption := self.find(caption_id)) is None:
            raise InputError(
                f"{self.negatives_file}: caption_id {caption_id!r} is not among the captions of {self.file}. Give the "
                "captions that the negatives were made from."
            )
        return caption

    def __iter__(self) -> Iterator[tuple[str, IndexedCaption]]:
        """Iterate over (id, caption) in order."""
        for row in self._database.execute("SELECT id, number, text, image, image_id FROM captions ORDER BY number"):
            yield row[0], IndexedCaption(*row[1:])

    def add_negatives(self, records: Iterable[NegativeRecord], left_out: Counter[str]) -> None:
        """Read all rows, in any order; unusable ones are counted in `left_out` by kind.

        Raises:
            InputError: a row is a true text, which no reader of the texts alone could tell from a negative.
        """
        self._database.execute("DROP TABLE IF EXISTS negatives")
        self._database.execute("CREATE TABLE negatives (caption INTEGER, rule TEXT, text TEXT)")
        self._database.executemany("INSERT INTO negatives VALUES (?, ?, ?)", self._usable(records, left_out))
        self._database.execute("CREATE INDEX by_caption ON negatives (caption)")

    def _usable(self, records: Iterable[NegativeRecord], left_out: Counter[str]) -> Iterator[tuple[int, str, str]]:
        for record in only_negatives(records, remedy="Give a file of negatives."):
            caption = self.find(record.caption_id)
            if caption is None:
                left_out["negatives of captions that are not in the captions file"] += 1
            elif record.text is None or not record.text.strip():
                left_out["negatives without text"] += 1
            elif not record.accepted:
                left_out["negatives not accepted by the checks"] += 1
            elif normalized_words(record.text) == normalized_words(caption.text):
                left_out["negatives equal to their caption"] += 1
            else:
                yield caption.number, record.rule, record.text

    def negatives(self) -> Iterator[CaptionNegatives]:
        """Yield every caption in order with its added negatives, including captions without any."""
        query = "SELECT rule, text FROM negatives WHERE caption = ? ORDER BY rowid"
        for caption_id, caption in self:
            texts = self._database.execute(query, (caption.number,)).fetchall()
            yield CaptionNegatives(caption_id, caption, tuple(texts))
