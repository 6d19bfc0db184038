"""Which rows meet in which batch: a pure function of (seed, epoch), whatever the number of devices; its DataLoader."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from degla.data.batches import Batch, Collate, Pair
from degla.data.decoding import ImageError
from degla.data.neighbours import Neighbours
from degla.data.randomness import stream
from degla.data.spread import RowNumbers, spread
from degla.errors import InputError
from degla.stopping import end_with_parent

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


_PLAIN = Collate()


@dataclass(frozen=True, eq=False)
class EpochSampler(Sampler[list[RowKey]]):
    """The batches of one epoch of a plan, from one step on; with the neighbours of their rows behind them."""

    plan: BatchPlan
    epoch: int
    start: int = 0
    neighbours: Neighbours | None = None

    def __iter__(self) -> Iterator[list[RowKey]]:
        for keys in self.plan.batches(self.epoch, start=self.start):
            near = [] if self.neighbours is None else [self.neighbours.draw(*key) for key in keys]
            yield keys + [(self.epoch, row) for rows in near for row in rows]

    def __len__(self) -> int:
        return len(self.plan) - self.start


class PairLoader(DataLoader[Batch]):
    """A DataLoader whose workers' errors about images read like those of the main process."""

    def __iter__(self) -> Any:
        try:
            yield from super().__iter__()
        except ImageError as error:
            # torch puts the worker's traceback before the message; the message alone says what to do.
            raise ImageError(str(error).rpartition("ImageError: ")[2].strip()) from None


def make_loader(
    dataset: Dataset[Pair],
    sampler: EpochSampler,
    *,
    collate: Collate = _PLAIN,
    workers: int = 0,
    prefetch: int = 2,
    pin_memory: bool = False,
    start_method: Literal["fork", "spawn", "forkserver"] | None = None,
) -> DataLoader[Batch]:
    """Batches of one epoch, in the plan's order whatever the number of workers.

    Args:
        dataset: pairs by (epoch, index).
        sampler: of a plan made from `dataset.groups`.
        collate: how pairs become a batch.
        workers: processes that decode and transform beside this one; 0 does it here.
        prefetch: batches that each worker prepares ahead.
        pin_memory: put batches into page-locked memory, for a GPU.
        start_method: how workers are started; None takes the platform's.

    Raises:
        InputError: the plan was made for other rows.
    """
    ordered, rows = len(sampler.plan.groups), len(dataset)  # type: ignore[arg-type]  # A data set may have no length.
    if ordered != rows:
        raise InputError(f"the plan orders {ordered} rows, but the dataset has {rows}.")
    loader: DataLoader[Batch] = PairLoader(
        dataset,  # type: ignore[arg-type]  # it holds pairs, of which the collate makes batches
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        multiprocessing_context=start_method if workers else None,
        # Its own generator: drawing a seed for workers must not move the global one, which a resumed run restores.
        generator=torch.Generator(),
    )
    return loader


def _start_worker(number: int) -> None:
    end_with_parent()
    # One thread each: workers that share the cores would only wait for each other.
    torch.set_num_threads(1)
