"""Rows by key while they are embedded: what a cache has of earlier runs enters, what is still to do leaves."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

import numpy as np

from degla.evaluation.processes import EvaluationProcesses
from degla.evaluation.scoring import EmbeddingRows

Cache = MutableMapping[str, EmbeddingRows]
"""Rows `[D]` by key, IDENTITY:KIND:CONTENT. A dict keeps them in memory, `disk_cache.DiskCache` on the disk."""


class CachedRows:
    """One row a key: those that the cache has, and those that are still to do. The first process alone has rows."""

    def __init__(self, keys: Sequence[str], cache: Cache, processes: EvaluationProcesses) -> None:
        self._keys, self._cache, self._first = keys, cache, processes.first
        # The rows are held here too: a cache may forget, a table may not.
        self._rows: list[EmbeddingRows | None] = [cache.get(key) if self._first else None for key in keys]
        # What the first process has of earlier runs is what all of them need not do.
        self.todo: list[int] = processes.from_first(
            lambda: [index for index, row in enumerate(self._rows) if row is None]
        )

    def keep(self, batch: Sequence[int], rows: EmbeddingRows) -> None:
        """Take the rows of a batch of numbers."""
        if self._first:
            for index, row in zip(batch, rows, strict=True):
                self._rows[index] = self._cache[self._keys[index]] = row

    def stacked(self) -> EmbeddingRows:
        """All rows, by number."""
        rows = [row for row in self._rows if row is not None]
        return np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32)


def batches_of(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    """The numbers in their order, `size` at a time."""
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]
