"""Dataset and plan as one torch DataLoader, starting at any step of any epoch, for that epoch or a whole run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count, islice, repeat
from multiprocessing import get_start_method
from multiprocessing.queues import Queue
from typing import Any, Final, Literal

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from degla.allowance import RUNS, usable_cores
from degla.data.batches import Batch, Collate, Pair
from degla.data.neighbours import Neighbours
from degla.data.plan import BatchPlan, RowKey
from degla.errors import DeglaError
from degla.stopping import WORKERS, leave_signals

_PLAIN = Collate()


_MOST_WORKERS: Final = 8
"""Most workers that "auto" chooses for a process with a GPU: together they decode 3,000 images per second."""


def choose_workers(workers: int | Literal["auto"], *, on_gpu: bool = True, streams: int = 1) -> int:
    """Return the number of decoding workers per training process.

    "auto" divides the cores of this machine among its training processes, a study's too. With a GPU, all cores of a
    share but one decode, at least one and at most eight. A step on the CPU uses all cores and spends only a hundredth
    of its time on images: one worker decodes if the share is four cores or more.

    Args:
        workers: the number, or "auto".
        on_gpu: whether steps run on a GPU.
        streams: number of pair streams, which divide the chosen number of workers.
    """
    if workers != "auto":
        return workers
    share = usable_cores() // (int(os.environ.get("LOCAL_WORLD_SIZE", "1")) * int(os.environ.get(RUNS, "1")))
    if not on_gpu:
        return int(share >= 4)
    return max(1, min(share - 1, _MOST_WORKERS) // streams)


@dataclass(frozen=True, eq=False)
class EpochSampler(Sampler[list[RowKey]]):
    """The batches of a plan from one step of an epoch on, each followed by the neighbours of its rows.

    Attributes:
        plan: the order.
        epoch: of the first batch.
        start: step of the first batch in the epoch.
        neighbours: of each row; None if batches have none.
        steps: number of batches, over as many epochs as needed; None for the rest of the epoch.
        every: 2 yields only every second of those batches, starting at index `first`.
        first: see `every`.
        reached: called with the number of each batch, from 0 over all epochs, before it is yielded.
    """

    plan: BatchPlan
    epoch: int
    start: int = 0
    neighbours: Neighbours | None = None
    steps: int | None = None
    every: int = 1
    first: int = 0
    reached: Callable[[int], None] = lambda number: None

    def __iter__(self) -> Iterator[list[RowKey]]:
        starts = chain([self.start], repeat(0))
        epochs = (self.plan.batches(epoch, start=start) for epoch, start in zip(count(self.epoch), starts))
        for number, keys in islice(enumerate(chain.from_iterable(epochs)), self.first, self._ahead, self.every):
            self.reached(number)
            near = [] if self.neighbours is None else [(key[0], self.neighbours.draw(*key)) for key in keys]
            yield keys + [(epoch, row) for epoch, rows in near for row in rows]

    def first_uses(self) -> Iterator[tuple[int, int]]:
        """Yield (number of the batch, shard) when a shard is needed for the first time in an epoch; see `reached`."""
        begins = 0
        for epoch, start in zip(count(self.epoch), chain([self.start], repeat(0))):
            for step, shard in self.plan.first_uses(epoch, start=start):
                if begins + step < self._ahead:
                    yield begins + step, shard
            begins += len(self.plan) - start
            if begins >= self._ahead:
                return

    def __len__(self) -> int:
        return len(range(self.first, self._ahead, self.every))

    @property
    def _ahead(self) -> int:
        return len(self.plan) - self.start if self.steps is None else self.steps


class PairLoader(DataLoader[Batch]):
    """A DataLoader whose workers end with the loop and whose errors read like those of the main process."""

    def __iter__(self) -> Any:
        if self.num_workers:
            try:  # As many as PyTorch's iterator takes, which prints a traceback if it cannot be made.
                locks = [self.multiprocessing_context.Lock() for _ in range(8 + 3 * self.num_workers)]
                del locks  # They would take the room of the iterator's own.
            except OSError as error:
                reason = f"{error.strerror} (shared memory, /dev/shm)"
                raise DeglaError(f"processes that load images cannot start: {reason}. Use --data.workers 0.") from None
        batches = super().__iter__()
        try:
            yield from batches
        except DeglaError as error:
            # torch puts the worker's traceback before the message; the message is all the user needs.
            raise type(error)(str(error).rpartition(f"{type(error).__name__}: ")[2].strip()) from None
        finally:
            # The garbage collector may close the queues first and then wait five seconds for each worker.
            getattr(batches, "_shutdown_workers", lambda: None)()


def make_loader(
    dataset: Dataset[Pair],
    sampler: EpochSampler,
    *,
    collate: Collate = _PLAIN,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Load the sampler's batches, in the plan's order for any number of workers; workers live as long as the iterator.

    Args:
        dataset: pairs by (epoch, index).
        sampler: of a plan made from `dataset.groups`.
        collate: how pairs become a batch.
        workers: processes that decode and transform, forked where that is the platform's default, else spawned; 0 uses
            the current process.
        pin_memory: put batches into pinned memory, for a GPU.
    """
    context: Any = None
    if workers:  # `get_start_method` settles the default, which the caller could not set any more.
        context = "fork" if get_start_method() == "fork" else WORKERS
    loader: DataLoader[Batch] = PairLoader(
        dataset,  # type: ignore[arg-type]  # it holds pairs, which the collate turns into batches
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        multiprocessing_context=context,
        # Its own generator: drawing a seed for workers must not advance the global one, which a resumed run restores.
        generator=torch.Generator(),
    )
    return loader


def _start_worker(number: int) -> None:
    leave_signals()  # A forked worker has the handlers of training, which would print and stop there, too.
    signal.signal(signal.SIGTERM, _ignore_once)
    # One thread each: workers with more threads would only compete for the cores.
    torch.set_num_threads(1)
    Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def _end_worker(error: Exception, batch: object) -> None:
    """End the worker whose batch could not be sent, as where /dev/shm is full: `multiprocessing` drops the batch, and
    the training would wait for it forever."""
    try:
        reason = " ".join(str(error).split())
        sys.stderr.write(f"degla: a batch could not be sent by a process that loads images: {reason}\n")
        sys.stderr.flush()
    finally:
        os._exit(1)


def _ignore_once(number: int, frame: object) -> None:
    """Leave to the training a SIGTERM that all processes receive, as from `timeout`, systemd or a shutdown: it needs
    the batches of its last step. The next one is from torch or multiprocessing, for a worker that does not end."""
    signal.signal(number, signal.SIG_DFL)
