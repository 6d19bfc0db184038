"""Accepted negatives by caption, in the order of the captions; on disk, so that any number in any order will do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from degla.negatives.files.caption_index import CaptionIndex, IndexedCaption, open_temporary_database
from degla.records import NegativeRecord


@dataclass(frozen=True, slots=True)
class Negatives:
    """A caption with its accepted negatives, (rule, text) in the order of the rows."""

    id: str
    caption: IndexedCaption
    texts: tuple[tuple[str, str], ...]


class Gathered:
    """Accepted negatives by caption, in the order of the captions, whatever the order of the rows; on disk."""

    def __init__(self, records: Iterable[NegativeRecord], captions: CaptionIndex, left_out: Counter[str]) -> None:
        """Read all rows once; those that cannot be used are counted in `left_out`, by what they are."""
        self._captions = captions
        self._database = open_temporary_database()
        self._database.execute("CREATE TABLE negatives (caption INTEGER, rule TEXT, text TEXT)")
        self._database.executemany("INSERT INTO negatives VALUES (?, ?, ?)", self._rows(records, left_out))
        self._database.execute("CREATE INDEX by_caption ON negatives (caption)")

    def _rows(self, records: Iterable[NegativeRecord], left_out: Counter[str]) -> Iterator[tuple[int, str, str]]:
        for record in records:
            caption = self._captions.find(record.caption_id)
            if caption is None:
                left_out["negatives of captions that are not in the captions file"] += 1
            elif not record.accepted:
                left_out["negatives not accepted by the checks"] += 1
            elif record.text is None or not record.text.strip():
                left_out["negatives without text"] += 1
            else:
                yield caption.number, record.rule, record.text

    def __iter__(self) -> Iterator[Negatives]:
        """Every caption, those without a negative too."""
        for caption_id, caption in self._captions:
            found = self._database.execute(
                "SELECT rule, text FROM negatives WHERE caption = ? ORDER BY rowid", (caption.number,)
            )
            yield Negatives(caption_id, caption, tuple(found.fetchall()))

    def close(self) -> None:
        """Free the disk."""
        self._database.close()
