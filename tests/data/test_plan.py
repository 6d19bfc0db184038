"""The plan of an epoch: a permutation, the same for any number of devices, with images spread over batches."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from degla.data.plan import BatchPlan
from degla.errors import InputError

duplicates = st.sampled_from(["allow", "avoid"])
groups_and_size = st.integers(1, 12).flatmap(
    lambda size: st.tuples(st.lists(st.integers(0, 9), min_size=size, max_size=90), st.just(size))
)


def collisions(plan: BatchPlan, epoch: int) -> int:
    """Count the rows of an epoch that share a global batch with an earlier row of their image."""
    batches = plan.global_batches(epoch)
    return sum(len(rows) - len({plan.groups[row] for row in rows.tolist()}) for rows in batches)


@settings(max_examples=200)
@given(groups_and_size, st.integers(0, 3), duplicates)
def test_every_row_at_most_once_and_all_but_the_rest(drawn, epoch, duplicates) -> None:
    groups, size = drawn
    plan = BatchPlan(groups, batch_size=size, seed=1, duplicates=duplicates)
    batches = list(plan.batches(epoch))
    assert len(batches) == len(plan)
    rows = [row for batch in batches for _, row in batch]
    assert {drawn_epoch for batch in batches for drawn_epoch, _ in batch} == {epoch}
    assert len(set(rows)) == len(rows) == len(groups) // size * size
    assert all(0 <= row < len(groups) for row in rows)
    assert [len(batch) for batch in batches] == [size] * len(batches)


@settings(max_examples=300)
@given(groups_and_size, st.integers(0, 3))
def test_avoid_leaves_the_smallest_possible_number_of_meetings(drawn, epoch) -> None:
    groups, size = drawn
    plan = BatchPlan(groups, batch_size=size, seed=2, duplicates="avoid")
    # A group can fill at most one place in each batch without colliding with itself.
    placeable = sum(min(count, len(plan)) for count in Counter(groups).values())
    assert collisions(plan, epoch) == max(0, len(plan) * size - placeable)


@settings(max_examples=100)
@given(st.lists(st.integers(0, 9), min_size=8, max_size=70), duplicates)
def test_the_global_order_is_the_same_for_every_number_of_devices(groups, duplicates) -> None:
    def order(devices: int) -> list[list[tuple[int, int]]]:
        plans = [
            BatchPlan(groups, batch_size=8 // devices, world_size=devices, rank=rank, seed=3, duplicates=duplicates)
            for rank in range(devices)
        ]
        parts = [list(plan.batches(5)) for plan in plans]
        return [list(chain.from_iterable(step)) for step in zip(*parts, strict=True)]

    alone = order(1)
    for devices in (2, 4, 8):
        assert order(devices) == alone


@settings(max_examples=50)
@given(groups_and_size, st.data(), duplicates)
def test_resuming_at_any_step_gives_the_tail(drawn, data, duplicates) -> None:
    groups, size = drawn
    plan = BatchPlan(groups, batch_size=size, seed=4, duplicates=duplicates)
    start = data.draw(st.integers(0, len(plan)))
    again = BatchPlan(groups, batch_size=size, seed=4, duplicates=duplicates)
    assert list(again.batches(2, start=start)) == list(plan.batches(2))[start:]
    with pytest.raises(InputError, match=r"is not in the epoch, which has \d+ steps?\."):
        list(plan.batches(2, start=len(plan) + 1))


def test_seed_and_epoch_change_the_order() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [row for batch in BatchPlan(range(64), batch_size=8, seed=seed).batches(epoch) for _, row in batch]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(*key)) for key in ((0, 0), (0, 1), (1, 0), (1, 1))}) == 4
    left_out = {frozenset(range(11)) - {row for _, row in b} for e in range(9) for b in _one(e)}
    assert len(left_out) > 1


def _one(epoch: int) -> list[list[tuple[int, int]]]:
    return list(BatchPlan(range(11), batch_size=8).batches(epoch))


def test_the_order_does_not_change_between_releases() -> None:
    # A run resumed after an upgrade must continue with the same rows.
    rows = [row for batch in BatchPlan(range(8), batch_size=4, seed=7).batches(3) for _, row in batch]
    assert rows == [1, 7, 3, 0, 4, 6, 2, 5]


def test_spreading_stays_close_to_the_shuffle() -> None:
    groups = np.repeat(np.arange(400), 5)
    allowed = BatchPlan(groups, batch_size=64, duplicates="allow")
    avoided = BatchPlan(groups, batch_size=64, duplicates="avoid")
    assert collisions(allowed, 0) > 50
    assert collisions(avoided, 0) == 0
    before = [row for batch in allowed.batches(0) for _, row in batch]
    after = [row for batch in avoided.batches(0) for _, row in batch]
    moved = sum(one != other for one, other in zip(before, after, strict=True))
    assert moved <= 2 * collisions(allowed, 0)


def test_unavoidable_meetings_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        list(BatchPlan([0] * 8, batch_size=4).batches(0))
        list(BatchPlan([0] * 8, batch_size=2, world_size=2, rank=1, duplicates="avoid").batches(0))
        assert not caplog.text, "collisions are allowed, or another process reports them"
        list(BatchPlan([0] * 8, batch_size=4, duplicates="avoid").batches(0))
    assert "epoch 0: 6 rows share a batch with another caption of the same image" in caplog.text


def test_too_few_rows() -> None:
    with pytest.raises(InputError, match=r"7 pairs do not fill one global batch of 8 \(4 on each of 2 devices\)"):
        BatchPlan(range(7), batch_size=4, world_size=2)
