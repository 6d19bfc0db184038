"""The plan of an epoch: a permutation, the same for any number of devices, with images spread over batches."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from itertools import accumulate, chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from degla.data import plan as plan_module
from degla.data.loader import EpochSampler
from degla.data.plan import SHARDS_AT_A_TIME, BatchPlan, rows_left_out
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
def test_every_row_at_most_once_and_all_but_the_rest(case, epoch, duplicates) -> None:
    groups, size = case
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
def test_avoid_leaves_the_smallest_possible_number_of_meetings(case, epoch) -> None:
    groups, size = case
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
def test_resuming_at_any_step_gives_the_tail(case, data, duplicates) -> None:
    groups, size = case
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


def test_unavoidable_meetings_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        list(BatchPlan([0] * 8, batch_size=4).batches(0))
        list(BatchPlan([0] * 8, batch_size=2, world_size=2, rank=1, duplicates="avoid").batches(0))
        assert not caplog.text, "collisions are allowed, or another process reports them"
        list(BatchPlan([0] * 8, batch_size=4, duplicates="avoid").batches(0))
    assert "epoch 0: 6 rows share a batch with another caption of the same image" in caplog.text


def test_too_few_rows() -> None:
    with pytest.raises(InputError, match=r"7 pairs do not fill one batch of 8 \(4 on each of 2 devices\)"):
        BatchPlan(range(7), batch_size=4, world_size=2)
    with pytest.raises(InputError, match=r"Lower --replay\.batch-size to at most 6, or provide more pairs"):
        BatchPlan(range(7), batch_size=4, world_size=2, batch_flag="--replay.batch-size")
    with pytest.raises(InputError, match=r"^7 pairs do not fill one batch of 8\. Lower --train\.batch-size to at"):
        BatchPlan(range(7), batch_size=8)


shards_and_groups = st.lists(st.integers(16, 20), min_size=1, max_size=30).flatmap(
    lambda sizes: st.tuples(
        st.permutations(np.repeat(np.arange(len(sizes)), sizes).tolist()),
        st.lists(st.integers(0, 60), min_size=sum(sizes), max_size=sum(sizes)),
    )
)


def shards_open(plan: BatchPlan, epoch: int) -> list[int]:
    """For each step, the number of shards that it or both an earlier and a later step read."""
    assert plan.shards is not None
    shards = [set(plan.shards[rows].tolist()) for rows in plan.global_batches(epoch)]
    earlier, later = list(accumulate(shards, set.union)), list(accumulate(reversed(shards), set.union))[::-1]
    return [len(one & other) for one, other in zip(earlier, later, strict=True)]


@settings(max_examples=60)
@given(shards_and_groups, st.integers(1, 8), st.integers(0, 3), duplicates)
def test_an_order_from_shard_to_shard_is_an_order(case, size, epoch, duplicates) -> None:
    """Each row at most once, a function of seed and epoch, for any number of devices and from any step."""
    shards, groups = np.array(case[0]), case[1]

    def plan(**fields: int) -> BatchPlan:
        sizes = {"batch_size": 2 * size, "seed": 5, **fields}
        return BatchPlan(groups, duplicates=duplicates, shards=shards, **sizes)

    batches = list(plan().batches(epoch))
    rows = [row for batch in batches for _, row in batch]
    assert len(set(rows)) == len(rows) == len(groups) // (2 * size) * (2 * size)
    assert list(plan().batches(epoch, start=len(batches) // 2)) == batches[len(batches) // 2 :]
    halves = [plan(batch_size=size, world_size=2, rank=rank).batches(epoch) for rank in (0, 1)]
    assert [one + other for one, other in zip(*halves, strict=True)] == batches
    if duplicates == "avoid":
        placeable = sum(min(count, len(plan())) for count in Counter(groups).values())
        assert collisions(plan(), epoch) == max(0, len(rows) - placeable)
    for other in (plan(seed=6).batches(epoch), plan().batches(epoch + 1)):
        assert [[row for _, row in batch] for batch in other] != [[row for _, row in batch] for batch in batches]


@settings(max_examples=60)
@given(shards_and_groups, st.integers(1, 16), st.integers(0, 3))
def test_few_shards_are_open_at_a_time(case, size, epoch) -> None:
    shards, groups = np.array(case[0]), case[1]
    plan = BatchPlan(groups, batch_size=size, seed=5, shards=shards)
    count, open_at = len(set(shards)), shards_open(plan, epoch)
    assert max(open_at) <= 2 * SHARDS_AT_A_TIME
    assert sum(number > SHARDS_AT_A_TIME for number in open_at) <= (count - 1) // SHARDS_AT_A_TIME, "at borders only"


@pytest.mark.parametrize(("start", "steps"), [(0, None), (3, None), (0, 7), (3, 12), (5, 5), (7, 30)])
def test_shards_are_needed_when_their_rows_are(start: int, steps: int | None) -> None:
    """On any device, once an epoch, counted from the batch with which a resumed run goes on."""
    shards = np.repeat(np.arange(20), 4)
    plan = BatchPlan(range(80), batch_size=5, world_size=2, rank=1, seed=3, shards=shards)
    assert len(plan) == 8
    needed, number = list[tuple[int, int]](), 0
    for epoch in range(2, 8):
        seen = set[int]()
        for rows in plan.global_batches(epoch)[start if epoch == 2 else 0 :]:
            if number < (8 - start if steps is None else steps):
                needed += [(number, shard) for shard in dict.fromkeys(shards[rows].tolist()) if shard not in seen]
            seen |= set(shards[rows].tolist())
            number += 1
    assert list(EpochSampler(plan, 2, start, steps=steps).first_uses()) == needed


def test_rows_that_fill_no_batch_are_counted_unless_the_run_ends_within_its_first_epoch() -> None:
    for steps in (None, 2, 3):
        assert rows_left_out(340, 128, steps=steps).startswith("84 of 340 pairs do not fill a batch of 128 ")
    assert not rows_left_out(340, 128, steps=1) and not rows_left_out(340, 103)


def test_rows_and_shards_are_shuffled_and_other_rows_left_out() -> None:
    shards = np.repeat(np.arange(24), 50)
    plan = BatchPlan(range(1200), batch_size=64, shards=shards)
    orders = [np.concatenate(plan.global_batches(epoch)) for epoch in range(20)]
    firsts = [shards[order[:64]] for order in orders]
    assert all(len(set(each)) == SHARDS_AT_A_TIME for each in firsts), "a batch mixes the shards of its group"
    assert len({frozenset(each) for each in firsts}) == 20, "other shards are read together"
    assert len({tuple(order[:5]) for order in orders}) == 20
    rests = [frozenset(range(1200)) - set(order) for order in orders]
    assert len(set(rests)) == 20 and len(frozenset.union(*rests)) > 500
    assert all(np.bincount(shards[sorted(each)], minlength=24).max() < 20 for each in rests)


def test_captions_of_an_image_are_spread_within_the_same_shards() -> None:
    """Five captions per image, as in COCO: at its end, a group of shards takes rows of the next one, never others."""
    shards, groups = np.repeat(np.arange(40), 250), np.repeat(np.arange(2000), 5)
    for epoch in range(3):
        plan = BatchPlan(groups, batch_size=64, duplicates="avoid", shards=shards)
        assert collisions(replace(plan, duplicates="allow"), epoch) > 50
        assert collisions(plan, epoch) == 0
        open_at = shards_open(plan, epoch)
        assert max(open_at) <= 2 * SHARDS_AT_A_TIME
        assert sum(number > SHARDS_AT_A_TIME for number in open_at) <= 4 * 5, "at the four borders"


def test_the_order_from_shard_to_shard_does_not_change_between_releases() -> None:
    plan = BatchPlan(range(20), batch_size=10, seed=7, shards=np.arange(20) // 2)
    assert np.concatenate(plan.global_batches(3)).tolist() == [
        5,
        0,
        3,
        7,
        6,
        1,
        13,
        12,
        4,
        2,
        9,
        14,
        15,
        11,
        17,
        18,
        10,
        8,
        16,
        19,
    ]


def test_an_order_from_shard_to_shard_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the batches, and for the shards that are copied ahead of them in a thread."""
    shards, groups = np.repeat(np.arange(40), 25), np.repeat(np.arange(200), 5)
    one, other = (BatchPlan(groups, batch_size=64, duplicates="avoid", shards=shards, seed=seed) for seed in (0, 1))
    made = list[np.ndarray]()
    separate = plan_module.separate_groups
    monkeypatch.setattr(
        plan_module, "separate_groups", lambda *order, **how: made.append(order) or separate(*order, **how)
    )
    for epoch in range(3):
        for plan in (one, other):
            assert len(list(plan.batches(epoch))) == 15
        for plan in (one, other):
            assert {shard for _, shard in plan.first_uses(epoch)} == set(range(40))
        assert len(made) == 2 * (epoch + 1)
