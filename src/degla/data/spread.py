"""Spreads rows of one group (captions of one image) over different batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

RowNumbers = npt.NDArray[np.int64]


def spread(order: RowNumbers, *, groups: RowNumbers, ends: Sequence[int]) -> RowNumbers:
    """Exchange rows until no batch holds two rows of one group, as far as that is possible.

    With batches of equal size, the number of rows that still meet their own group is the smallest possible. Take a
    group that is twice in batch b and not in batch c. If c holds another group twice, one of these rows can be
    exchanged; otherwise c holds as many groups as rows, b fewer, so c has a row of a group that b lacks. Either
    way there is one meeting fewer, so in the end a group that still meets itself is in every batch. Rows of such
    groups are exchanged beforehand for left-over rows of rarer groups. (`tests/data/test_plan.py` holds this to the
    smallest possible number.)

    Args:
        order: a permutation of all rows.
        groups: the group of each row.
        ends: where each batch ends in `order`; rows behind the last end are in no batch.
    """
    order = order.copy()
    starts = [0, *ends[:-1]]
    codes = np.unique(groups, return_inverse=True)[1]
    meeting = _batches_with_meetings(order, codes=codes, ends=ends)
    held = _Held(order, codes, starts, ends)
    everywhere: set[int] = set()
    _use_left_over_rows(order, codes=codes, starts=starts, ends=ends, held=held)
    for batch, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if (batch not in held and batch not in meeting) or len(held[batch]) == end - start:
            continue
        for place in range(start, end):
            # The row that comes in may meet another in its turn; every exchange leaves fewer meetings.
            while held[batch][group := int(codes[order[place]])] > 1 and group not in everywhere:
                partner = _partner(
                    group, batch, place - start, order=order, codes=codes, starts=starts, ends=ends, held=held
                )
                if partner is None:
                    everywhere.add(group)
                    break
                other, other_place = partner
                given = int(codes[order[other_place]])
                order[[place, other_place]] = order[[other_place, place]]
                _move(held[batch], out=group, into=given)
                _move(held[other], out=given, into=group)
    return order


class _Held(dict[int, Counter[int]]):
    """How many rows of each group a batch holds; most batches are never asked, and not counted."""

    def __init__(self, order: RowNumbers, codes: RowNumbers, starts: Sequence[int], ends: Sequence[int]) -> None:
        super().__init__()
        self._order, self._codes, self._starts, self._ends = order, codes, starts, ends

    def __missing__(self, batch: int) -> Counter[int]:
        rows = self._order[self._starts[batch] : self._ends[batch]]
        self[batch] = Counter(self._codes[rows].tolist())
        return self[batch]


def _batches_with_meetings(order: RowNumbers, *, codes: RowNumbers, ends: Sequence[int]) -> set[int]:
    batch = np.repeat(np.arange(len(ends)), np.diff([0, *ends]))
    place = np.sort(batch * (int(codes.max()) + 1) + codes[order[: len(batch)]])
    return set((place[1:][place[1:] == place[:-1]] // (int(codes.max()) + 1)).tolist())


def _partner(
    group: int,
    batch: int,
    offset: int,
    *,
    order: RowNumbers,
    codes: RowNumbers,
    starts: Sequence[int],
    ends: Sequence[int],
    held: _Held,
) -> tuple[int, int] | None:
    """A batch without `group`, and a place in it whose row `batch` can take without making a new meeting."""
    count = len(ends)
    for step in range(1, count):
        other = (batch + step) % count
        if group in held[other]:
            continue
        # The search goes round from `offset`: from the first place, all rows there would soon be exchanged ones.
        first = min(starts[other] + offset, ends[other])
        for place in chain(range(first, ends[other]), range(starts[other], first)):
            given = int(codes[order[place]])
            if given not in held[batch] or held[other][given] > 1:
                return other, place
    return None


def _use_left_over_rows(
    order: RowNumbers, *, codes: RowNumbers, starts: Sequence[int], ends: Sequence[int], held: _Held
) -> None:
    """Exchange rows of groups with more rows than there are batches for left-over rows of rarer groups."""
    batches, last = len(ends), ends[-1]
    used = np.bincount(codes[order[:last]], minlength=int(codes.max()) + 1)
    if last == len(order) or used.max() <= batches:
        return
    spare = [place for place in range(last, len(order)) if used[codes[order[place]]] < batches]
    for batch, (start, end) in enumerate(zip(starts, ends, strict=True)):
        for place in range(start, end):
            group = int(codes[order[place]])
            if used[group] <= batches or held[batch][group] < 2:
                continue
            while spare and used[codes[order[spare[-1]]]] >= batches:
                spare.pop()
            if not spare:
                return
            given_place = spare.pop()
            given = int(codes[order[given_place]])
            order[[place, given_place]] = order[[given_place, place]]
            _move(held[batch], out=group, into=given)
            used[group] -= 1
            used[given] += 1


def _move(held: Counter[int], *, out: int, into: int) -> None:
    held[into] += 1
    held[out] -= 1
    if not held[out]:
        del held[out]
