"""One evaluation in several processes: work that is shared enters, every process's results leave, errors together."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from degla.errors import DeglaError, InputError

Value = TypeVar("Value")
_SECONDS_TO_WAIT: Final = 5.0
"""How long an error waits for the first process to have the same."""
_SECONDS_TO_REPORT: Final = 1.0
"""What the first process needs to report it: torchrun ends all processes soon after one has ended."""


@dataclass(frozen=True)
class EvaluationProcesses:
    """The processes of one evaluation, and which one this is.

    Attributes:
        rank: number of this process; the first, 0, keeps the cache, scores and writes.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that keeps the cache, scores and writes."""
        return self.rank == 0

    def share(self, work: Sequence[Value]) -> Sequence[Value]:
        """This process's part: every `count`-th, from `rank`."""
        return work[self.rank :: self.count]

    def together(self, work: Callable[[], Value]) -> list[Value]:
        """Do this process's work and exchange it: every process's result, by rank.

        Raises:
            DeglaError: of the first process that has one; all processes raise it.
        """
        if self.count == 1:
            return [work()]
        import torch.distributed as dist

        outcome: Value | DeglaError
        try:
            outcome = work()
        except DeglaError as error:
            outcome = error
        outcomes: list[Any] = [None] * self.count
        dist.all_gather_object(outcomes, outcome)
        failed = next((found for found in outcomes if isinstance(found, DeglaError)), None)
        if failed is not None:
            raise failed
        return outcomes

    def from_first(self, work: Callable[[], Value]) -> Value:
        """What the first process's work gives; the others wait for it.

        Raises:
            DeglaError: the first process's own; all processes raise it.
        """
        return self.together(lambda: work() if self.first else None)[0]  # type: ignore[return-value]


@contextlib.contextmanager
def joined_processes(environment: Mapping[str, str] = os.environ) -> Iterator[EvaluationProcesses]:
    """Join the processes that `torchrun` started, for the length of the block; alone where it started none.

    They talk over `gloo`, in the machine's memory or over its network: rows are small, whatever made them.

    Raises:
        InputError: the environment is torchrun's, but not whole.
    """
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        yield EvaluationProcesses()
        return
    import torch.distributed as dist

    lacking = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if lacking:
        raise InputError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']} but {', '.join(lacking)} is not set. Start several processes "
            "with torchrun --nproc-per-node N -m degla evaluate ..."
        )
    with _stdout_to_stderr():
        dist.init_process_group("gloo")
    try:
        with reported_once():
            yield EvaluationProcesses(rank=dist.get_rank(), count=dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def reported_once() -> Iterator[None]:
    """Mark errors that the first process of the job reports too; one that a process has alone it reports itself."""
    try:
        yield
    except DeglaError as error:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            store = dist.distributed_c10d._get_default_store()
            error.reported = _first_reports(str(error), store, rank=dist.get_rank())
        raise


def _first_reports(message: str, store: Any, *, rank: int) -> bool:
    """Whether the first process reports this message; the first leaves its own where the others look for it."""
    if rank == 0:
        store.set("degla/error", message)
        return False
    try:
        store.wait(["degla/error"], timedelta(seconds=_SECONDS_TO_WAIT))
        same = store.get("degla/error").decode() == message
    except RuntimeError:  # The first has no error, or is gone.
        return False
    if same:
        time.sleep(_SECONDS_TO_REPORT)
    return bool(same)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Gloo of some releases of PyTorch (2.8, 2.9) says on stdout, which is for results, whom it is connected to."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
