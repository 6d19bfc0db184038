"""Which rows form which batch: a pure function of (seed, epoch), independent of the number of devices.

Rows of one group (captions of one image) are spread over different batches.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt

from degla.data.randomness import random_for
from degla.errors import InputError
from degla.pages.words import counted

log = logging.getLogger(__name__)

SHARDS_AT_A_TIME = 8
"""Shards whose rows are shuffled together if the order goes from shard to shard."""

RowNumbers = npt.NDArray[np.int64]
RowKey = tuple[int, int]
"""(epoch, index of the row)."""


def rows_left_out(rows: int, size: int, *, steps: int | None = None, flag: str = "--train.batch-size") -> str:
    """Return a sentence about the rows that fill no batch of an epoch; "" if they are at most a tenth of all.

    Also "" for a run that ends within its first epoch, which has no use for the other rows anyway.

    Args:
        rows: number of all rows.
        size: of a global batch.
        steps: length of the run, if it does not end with an epoch.
        flag: flag of the global batch size.
    """
    left = rows % size
    if left <= rows / 10 or (steps is not None and steps < rows // size):
        return ""
    return (
        f"{left:,} of {counted(rows, 'pair')} do not fill a batch of {size} and are left out, different ones in every "
        f"epoch. Choose a {flag} that leaves out fewer."
    )


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """The order of an epoch, cut into global batches; each device takes a contiguous part of every global batch.

    One device with batches of 8 and two devices with batches of 4 see the same global batches in the same
    order. Rows that do not fill a global batch are dropped, different ones in every epoch. Resuming needs no stored
    state: `batches(epoch, start=step)` continues where a run stopped.

    Attributes:
        groups: one number per row, equal if and only if two rows show the same image.
        batch_size: rows per device and step.
        world_size: number of devices.
        rank: number of this device, from 0.
        seed: of the order.
        duplicates: "avoid" spreads rows of one image over different global batches as far as possible.
        shards: number of each row's shard, from 0. An epoch then shuffles the shards, divides them into groups of at
            most `SHARDS_AT_A_TIME`, and reads one group after another, each with its rows shuffled. None shuffles all
            rows.
        batch_flag: flag of the global batch size, for messages.

    Raises:
        InputError: there are fewer rows than one global batch needs.
    """

    groups: Sequence[int] | RowNumbers
    batch_size: int
    world_size: int = 1
    rank: int = 0
    seed: int = 0
    duplicates: Literal["allow", "avoid"] = "allow"
    shards: RowNumbers | None = None
    batch_flag: str = "--train.batch-size"

    def __post_init__(self) -> None:
        if len(self.groups) < self.global_size:
            each = f" ({self.batch_size} on each of {self.world_size} devices)" if self.world_size > 1 else ""
            raise InputError(
                f"{counted(len(self.groups), 'pair does', 'pairs do')} not fill one batch of "
                f"{self.global_size}{each}. Lower {self.batch_flag} to at most "
                f"{len(self.groups) // self.world_size * self.world_size}, or provide more pairs."
            )

    @property
    def global_size(self) -> int:
        """Rows per step over all devices."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Steps of one epoch, the same in every epoch and on every device."""
        return len(self.groups) // self.global_size

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[list[RowKey]]:
        """Yield this device's (epoch, row) keys of each step, from step `start` of the epoch.

        Raises:
            InputError: `start` is not a step of an epoch (`len(plan)` is allowed and yields nothing).
        """
        if not 0 <= start <= len(self):
            raise InputError(f"step {start} is not in the epoch, which has {counted(len(self), 'step')}.")
        batches, groups = self.global_batches(epoch), np.asarray(self.groups)
        avoided = self.duplicates == "avoid" and self.rank == 0
        if avoided and (left := sum(len(rows) - len(np.unique(groups[rows])) for rows in batches)):
            log.warning(
                "epoch %d: %s a batch with another caption of the same image; %s of %s cannot avoid it.",
                epoch,
                counted(left, "row shares", "rows share"),
                counted(len(self), "step"),
                counted(self.global_size, "pair"),
            )
        first = self.rank * self.batch_size
        for rows in batches[start:]:
            yield [(epoch, row) for row in rows[first : first + self.batch_size].tolist()]

    def first_uses(self, epoch: int, *, start: int = 0) -> Iterator[tuple[int, int]]:
        """Yield (step, shard) of the first use of each shard on any device from step `start` on, which counts as 0."""
        assert self.shards is not None
        used = self.shards[np.concatenate([np.empty(0, np.int64), *self.global_batches(epoch)[start:]])]
        for place in np.sort(np.unique(used, return_index=True)[1]).tolist():
            yield place // self.global_size, int(used[place])

    def global_batches(self, epoch: int) -> list[RowNumbers]:
        """Return the rows of each step over all devices, in order; device r takes the r-th equal part."""
        # From shard to shard it is asked for twice: for the batches, and for the shards to copy ahead of them.
        return self._cut_order(epoch) if self.shards is None else _cached_batches(self, epoch)

    def _cut_order(self, epoch: int) -> list[RowNumbers]:
        rng = np.random.Generator(np.random.PCG64(random_for("order", seed=self.seed, epoch=epoch).getrandbits(128)))
        order = rng.permutation(len(self.groups))
        if self.shards is not None:
            order = _from_shard_to_shard(order, self.shards, rng)
        ends = list(range(self.global_size, len(order) + 1, self.global_size))
        if self.duplicates == "avoid":
            order = separate_groups(order, groups=np.asarray(self.groups), ends=ends, wrap=self.shards is None)
        return np.split(order, ends)[:-1]


@lru_cache(maxsize=2)
def _cached_batches(plan: BatchPlan, epoch: int) -> list[RowNumbers]:
    return plan._cut_order(epoch)


def _from_shard_to_shard(order: RowNumbers, shards: RowNumbers, rng: np.random.Generator) -> RowNumbers:
    """Sort a permutation of the rows by groups of shards, which are drawn; each group keeps its rows' order."""
    count = int(shards.max()) + 1
    groups = -(-count // SHARDS_AT_A_TIME)
    group = rng.permutation(count) * groups // count  # Of equal size, up to one shard.
    return order[np.argsort(group[shards[order]], kind="stable")]


def separate_groups(order: RowNumbers, *, groups: RowNumbers, ends: Sequence[int], wrap: bool = True) -> RowNumbers:
    """Exchange rows until no batch has two rows of one group, as far as possible.

    For batches of equal size, the remaining number of collisions (rows sharing a batch with their own group) is
    minimal. Take a group that is twice in batch b and not in batch c. If c has another group twice, one of these rows
    can be exchanged. Otherwise c has as many groups as rows and b fewer, so c has a row of a group that b lacks.
    Either way there is one collision fewer, so in the end a group that still collides is in every batch. Rows of such
    groups are first exchanged for left-over rows of rarer groups. (`tests/data/test_plan.py` checks minimality.)

    Args:
        order: a permutation of all rows.
        groups: the group of each row.
        ends: where each batch ends in `order`; rows after the last end are in no batch.
        wrap: exchange with the next batch that allows it, and after the last with the first. Otherwise, if none of the
            following allows it, with the nearest before, which is from the same shards.
    """
    exchanges = _Exchanges(order, groups, ends, wrap=wrap)
    colliding = exchanges.batches_with_collisions()
    everywhere: set[int] = set()
    exchanges.use_left_over_rows()
    for batch, (start, end) in enumerate(zip(exchanges.starts, ends, strict=True)):
        if (batch not in exchanges and batch not in colliding) or len(exchanges[batch]) == end - start:
            continue
        for place in range(start, end):
            # The incoming row may itself collide; every exchange leaves fewer collisions.
            while exchanges[batch][group := exchanges.group(place)] > 1 and group not in everywhere:
                partner = exchanges.partner(group, batch, place - start)
                if partner is None:
                    everywhere.add(group)
                    break
                other, other_place = partner
                exchanges.exchange(place, other_place, batch, other)
    return exchanges.order


class _Exchanges(dict[int, Counter[int]]):
    """Rows of each group per batch while rows are exchanged; batches are counted on demand, most never are."""

    def __init__(self, order: RowNumbers, groups: RowNumbers, ends: Sequence[int], *, wrap: bool) -> None:
        super().__init__()
        self.wrap = wrap
        self.order, self.starts, self.ends = order.copy(), [0, *ends[:-1]], ends
        self.codes = np.unique(groups, return_inverse=True)[1]

    def __missing__(self, batch: int) -> Counter[int]:
        rows = self.order[self.starts[batch] : self.ends[batch]]
        self[batch] = Counter(self.codes[rows].tolist())
        return self[batch]

    def group(self, place: int) -> int:
        """Return the group of the row at a position of the order."""
        return int(self.codes[self.order[place]])

    def exchange(self, place: int, other: int, *batches: int) -> None:
        """Exchange the rows at two positions; `batches`: of the first, and of the second if it is in one."""
        group, incoming = self.group(place), self.group(other)
        self.order[[place, other]] = self.order[[other, place]]
        for batch, out, into in zip(batches, (group, incoming), (incoming, group), strict=False):
            counts = self[batch]
            counts[into] += 1
            counts[out] -= 1
            if not counts[out]:
                del counts[out]

    def batches_with_collisions(self) -> set[int]:
        """Return the batches with two rows of one group; counting all of them takes one sort."""
        batch = np.repeat(np.arange(len(self.ends)), np.diff([0, *self.ends]))
        count = int(self.codes.max()) + 1
        place = np.sort(batch * count + self.codes[self.order[: len(batch)]])
        return set((place[1:][place[1:] == place[:-1]] // count).tolist())

    def partner(self, group: int, batch: int, offset: int) -> tuple[int, int] | None:
        """Find a batch without `group` and a position in it whose row `batch` can take without a new collision."""
        before = range(batch) if self.wrap else range(batch - 1, -1, -1)
        for other in chain(range(batch + 1, len(self.ends)), before):
            if group in self[other]:
                continue
            # The search starts at `offset`: started at the first position, it would soon find only exchanged rows.
            start, end = self.starts[other], self.ends[other]
            for place in chain(range(start + offset, end), range(start, start + offset)):
                incoming = self.group(place)
                if incoming not in self[batch] or self[other][incoming] > 1:
                    return other, place
        return None

    def use_left_over_rows(self) -> None:
        """Exchange rows of groups that have more rows than there are batches for left-over rows of rarer groups."""
        batches, last = len(self.ends), self.ends[-1]
        used = np.bincount(self.codes[self.order[:last]], minlength=int(self.codes.max()) + 1)
        if last == len(self.order) or used.max() <= batches:
            return
        spare = [place for place in range(last, len(self.order)) if used[self.group(place)] < batches]
        for batch, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            for place in range(start, end):
                group = self.group(place)
                if used[group] <= batches or self[batch][group] < 2:
                    continue
                while spare and used[self.group(spare[-1])] >= batches:
                    spare.pop()
                if not spare:
                    return
                used[self.group(spare[-1])] += 1
                used[group] -= 1
                self.exchange(place, spare.pop(), batch)
