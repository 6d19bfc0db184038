"""What a join of millions of rows needs beside memory: ids as numbers, and negatives on the disk in parts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow

from degla.data.table import ROWS, RowIndex
from degla.records import NegativeRecord

_PARTS = 256
"""Parts that the negatives are laid into at most: files that are open at a time."""


def id_hashes(names: Sequence[str]) -> tuple[RowIndex, RowIndex]:
    """Two numbers of 64 bits for each name; names that share both do not happen."""
    both = (map(hash, names), (hash(f"/{name}") for name in names))
    first, second = (np.fromiter(each, dtype=np.int64, count=len(names)) for each in both)
    return first, second


class IdIndex:
    """The row of each caption, by its id."""

    def __init__(self, hashes: Sequence[tuple[RowIndex, RowIndex]]) -> None:
        first, second = (np.concatenate(each) for each in zip(*hashes, strict=True))
        self._rows = np.argsort(first, kind="stable")
        self._first, self._second = first[self._rows], second[self._rows]
        self._most = int(np.unique(self._first, return_counts=True)[1].max())

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, names: Sequence[str]) -> RowIndex:
        """The row of each id, -1 where it is of no caption."""
        first, second = id_hashes(names)
        place, found = self._first.searchsorted(first), np.full(len(names), -1)
        for step in range(self._most):  # One step, unless two captions share their first number.
            at = np.minimum(place + step, len(self._first) - 1)
            same = (self._first[at] == first) & (self._second[at] == second)
            found[same] = self._rows[at[same]]
        return found


_PART = arrow.schema([
    ("row", arrow.int64()), ("text", arrow.large_string()), ("rule", arrow.int64()), ("score", arrow.float64()),
])  # fmt: skip


class PartFiles:
    """Negatives on the disk, each part those of a range of rows; used in a ``with`` block."""

    def __init__(self, folder: Path, *, rows: int) -> None:
        self.folder = folder
        self.rules: dict[str, int] = {}
        """Number of each rule, in the order of their first appearance."""
        self.known = False
        """Whether a negative belongs to a caption."""
        self._span = ROWS * -(-rows // (ROWS * _PARTS))
        self._writers: dict[int, Any] = {}
        self._open = ExitStack()
        self._held: tuple[int, Any] = (-1, None)

    def __enter__(self) -> PartFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def add(self, rows: Sequence[int], records: Sequence[NegativeRecord]) -> None:
        """Lay negatives into the parts of their rows."""
        rules = [self.rules.setdefault(record.rule, len(self.rules)) for record in records]
        texts, scores = [record.text for record in records], [record.score for record in records]
        batch = arrow.record_batch(
            [arrow.array(values, kind) for values, kind in zip((rows, texts, rules, scores), _PART.types, strict=True)],
            _PART,
        )
        of = np.asarray(rows, dtype=np.int64) // self._span
        for part in np.unique(of).tolist():
            if part not in self._writers:
                writer = arrow.ipc.new_stream(str(self.folder / f"{part}.arrows"), _PART)
                self._writers[part] = self._open.enter_context(writer)
            self._writers[part].write_batch(batch.take(arrow.array(np.flatnonzero(of == part))))

    def of(self, start: int, count: int) -> Any:
        """The negatives of `count` rows from `start` on, by row and then in the order in which they came.

        Every range lies in one part, and ranges are asked for in order.
        """
        part = start // self._span
        if part != self._held[0]:
            table = _PART.empty_table()
            if part in self._writers:
                self._writers[part].close()
                with arrow.ipc.open_stream(str(self.folder / f"{part}.arrows")) as stream:
                    table = stream.read_all().combine_chunks()
                (self.folder / f"{part}.arrows").unlink()
            order = np.argsort(table.column("row").to_numpy(), kind="stable")
            self._held = (part, table.take(arrow.array(order)))
        table = self._held[1]
        first, last = table.column("row").to_numpy().searchsorted([start, start + count])
        return table.slice(first, last - first)
