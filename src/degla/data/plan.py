"""Which rows meet in which batch: a pure function of (seed, epoch), whatever the number of devices."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from degla.data.randomness import stream
from degla.data.spread import RowNumbers, spread
from degla.errors import InputError

_log = logging.getLogger(__name__)

RowKey = tuple[int, int]
"""(epoch, index of the row)."""


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """The order of an epoch, cut into global batches, of which each device takes its own contiguous part.

    One device with batches of 8 and two devices with batches of 4 see the same global batches in the same
    order. Nothing is stored to resume: `batches(epoch, start=step)` goes on where a run stopped.

    Attributes:
        groups: one number a row, equal exactly where two rows show the same image.
        batch_size: rows of one device and step.
        world_size: number of devices.
        rank: number of this device, from 0.
        seed: of the order.
        duplicates: "avoid" spreads rows of one image over different global batches, as far as possible.
        drop_last: leave out the rows that do not fill a global batch (other rows in every epoch). Otherwise
            they make a short last batch, in equal parts; up to `world_size` - 1 rows are left out even then.

    Raises:
        InputError: a number is out of range, or there are fewer rows than one global batch holds.
    """

    groups: Sequence[int] | RowNumbers
    batch_size: int
    world_size: int = 1
    rank: int = 0
    seed: int = 0
    duplicates: Literal["allow", "avoid"] = "allow"
    drop_last: bool = True

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise InputError(
                f"batch_size {self.batch_size} and world_size {self.world_size} must be 1 or more, "
                f"and rank {self.rank} from 0 to world_size - 1."
            )
        if self.duplicates not in ("allow", "avoid"):
            raise InputError(f"duplicates is {self.duplicates!r}; it must be 'allow' or 'avoid'.")
        if len(self.groups) < (self.global_size if self.drop_last else self.world_size):
            raise InputError(
                f"{len(self.groups)} pairs do not fill one global batch of {self.global_size} "
                f"({self.batch_size} on each of {self.world_size} devices). "
                f"At most {len(self.groups) // self.world_size} a device can be filled: "
                "make the batches smaller, or give more pairs."
            )

    @property
    def global_size(self) -> int:
        """Rows of one step over all devices."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Steps of one epoch, the same in every epoch and on every device."""
        whole, rest = divmod(len(self.groups), self.global_size)
        return whole + (not self.drop_last and rest >= self.world_size)

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[list[RowKey]]:
        """This device's (epoch, row) keys of each step, from step `start` of the epoch.

        Raises:
            InputError: `start` is not a step of an epoch (`len(plan)` itself gives nothing).
        """
        if not 0 <= start <= len(self):
            raise InputError(f"step {start} is not in the epoch, which has {len(self)} steps.")
        batches = self.global_batches(epoch)
        if self.duplicates == "avoid" and self.rank == 0 and (left := self._meetings(batches)):
            _log.warning(
                "epoch %d: %d rows share a batch with another caption of their image; with %d steps of %d pairs "
                "it cannot be avoided.",
                epoch,
                left,
                len(self),
                self.global_size,
            )
        for rows in batches[start:]:
            own = len(rows) // self.world_size
            mine = rows[self.rank * own : (self.rank + 1) * own]
            yield [(epoch, row) for row in mine.tolist()]

    def collisions(self, epoch: int) -> int:
        """Rows of the epoch that meet an earlier row of their own image in their global batch."""
        return self._meetings(self.global_batches(epoch))

    def _meetings(self, batches: Sequence[RowNumbers]) -> int:
        groups = np.asarray(self.groups)
        return sum(len(rows) - len(np.unique(groups[rows])) for rows in batches)

    def global_batches(self, epoch: int) -> list[RowNumbers]:
        """The rows of each step over all devices, in order; device r takes the r-th equal part."""
        rng = np.random.Generator(np.random.PCG64(stream("order", seed=self.seed, epoch=epoch).getrandbits(128)))
        order = rng.permutation(len(self.groups))
        whole = len(order) // self.global_size * self.global_size
        ends = list(range(self.global_size, whole + 1, self.global_size))
        if not self.drop_last and whole < len(order):
            ends.append(len(order))
        if self.duplicates == "avoid":
            order = spread(order, groups=np.asarray(self.groups), ends=ends)
        # The short batch is cut to equal parts last, so that the order before it is the same for all world sizes.
        batches = [rows[: len(rows) // self.world_size * self.world_size] for rows in np.split(order, ends)[:-1]]
        return batches[: len(self)]
