"""The processes of one job: split work, gather results, report errors once."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from degla.errors import LOST_PEER, DeglaError, InputError, error_of_system

Value = TypeVar("Value")
LONGEST_WAIT: Final = timedelta(hours=2)
"""How long processes wait for each other. The first one scores, and one on each machine embeds images with their
patches, while all others wait; PyTorch's own limits, 10 minutes for GPUs and 30 for gloo, would end them."""
_LAUNCH: Final = "Start several processes with torchrun --nproc-per-node N -m degla ..., one without WORLD_SIZE."
_SECONDS_TO_JOIN: Final = 30.0
"""How long a process waits for the others to join before it says so."""
_SECONDS_TO_WAIT: Final = 5.0
"""How long a process with an error waits for the first process to raise the same."""
_SECONDS_TO_REPORT: Final = 1.0
"""Time for the first process to report it: torchrun ends all processes soon after one has ended."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one job, and this process's rank.

    Attributes:
        count: number of processes, 1 without distribution.
        rank: rank of this process; rank 0 keeps caches, scores and writes.
    """

    count: int = 1
    rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that keeps caches, scores and writes."""
        return self.rank == 0

    def share(self, work: Sequence[Value]) -> Sequence[Value]:
        """Return this process's part: every `count`-th item, from `rank`."""
        return work[self.rank :: self.count]

    def together(self, work: Callable[[], Value]) -> list[Value]:
        """Do this process's work and return every process's result, by rank.

        Raises:
            DeglaError: the error of the lowest rank that has one; all processes raise it.
        """
        if self.count == 1:
            return [work()]
        import torch.distributed as dist

        outcome: Value | DeglaError
        try:
            outcome = work()
        except DeglaError as error:
            outcome = error
        except OSError as error:
            outcome = error_of_system(error)
        outcomes: list[Any] = [None] * self.count
        dist.all_gather_object(outcomes, outcome)
        failed = next((each for each in outcomes if isinstance(each, DeglaError)), None)
        if failed is not None:
            raise failed
        return outcomes

    def from_first(self, work: Callable[[], Value]) -> Value:
        """Run the work in the first process and return its result in all.

        Raises:
            DeglaError: the first process's error; all processes raise it.
        """
        return self.together(lambda: work() if self.first else None)[0]  # type: ignore[return-value]

    def require_same(self, values: Callable[[], Mapping[str, Any]], *, remedy: str) -> None:
        """Refuse processes with different values, as of two commands, or of files on machines with separate disks.

        Args:
            values: returns what must be the same in all processes, by its name in the message, which must be, too:
                paths may differ.
            remedy: last sentence of the message.

        Raises:
            InputError: in all processes; names the first value that differs, and the process.
        """
        first, *others = self.together(values)
        for rank, other in enumerate(others, start=1):
            for name in sorted(first.keys() | other.keys()):
                mine, theirs = first.get(name), other.get(name)
                if mine != theirs:
                    raise InputError(f"{name} is {mine!r} in process 0, but {theirs!r} in process {rank}. {remedy}")


@contextlib.contextmanager
def joined_processes() -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started for the duration of the block; a single process if it started none.

    They communicate over `gloo`: rows are small, whatever device computed them.

    Raises:
        InputError: torchrun's environment variables are incomplete or wrong.
        DeglaError: the processes cannot reach each other.
    """
    if started_processes() == 1:
        yield ProcessGroup()
        return
    import torch.distributed as dist

    with one_line_if_not_joined():
        dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    try:
        with reported_once():
            yield ProcessGroup(rank=dist.get_rank(), count=dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def one_line_if_not_joined() -> Iterator[None]:
    """Report in one line that a block, which joins the processes of a job, has failed, or that it waits for others.

    Raises:
        InputError: torchrun's environment variables are incomplete or wrong.
        DeglaError: instead of the network's own error.
    """
    if started_processes() == 1:
        yield
        return
    _require_launch()
    try:
        # stdout is for results: Gloo of PyTorch 2.8 and 2.9 prints its connections there.
        with _wait_announced(), _redirected(1, 2):
            yield
    except RuntimeError as caught:
        import torch.distributed as dist

        if (error := _user_error(caught)) is None and dist.is_available() and isinstance(caught, dist.DistError):
            cause = str(caught).splitlines()[0].strip(" .")
            error = DeglaError(
                f"the processes of this job cannot be joined at {_meeting_place()}: {cause}. If another job "
                "has this port, choose another one: torchrun --master-port; each process needs a RANK of its own."
            )
        if error is None:
            raise
        raise error from None


def _meeting_place() -> str:
    place = ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    return f"{place} (MASTER_ADDR:MASTER_PORT)"


@contextlib.contextmanager
def _wait_announced() -> Iterator[None]:
    """Write a line if the block takes long: one process too few, and all others wait for hours."""

    def announce() -> None:
        line = (
            f"degla: process {os.environ.get('RANK')} waits at {_meeting_place()} until all {started_processes()} "
            f"processes of this job (WORLD_SIZE) are there, for up to {LONGEST_WAIT.total_seconds() / 3600:g} hours. "
            "Check that all were started, each with a RANK of its own, and that they reach this address.\n"
        )
        with contextlib.suppress(OSError):
            os.write(2, line.encode())  # Not by sys.stderr, which the main thread may be using.

    timer = threading.Timer(_SECONDS_TO_JOIN, announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # No thread is left when processes are forked.


def started_processes() -> int:
    """Return the number of processes started together, including this one; 1 without torchrun.

    Raises:
        InputError: WORLD_SIZE is not a number of processes.
    """
    if "WORLD_SIZE" not in os.environ:
        return 1
    return _launch_number("WORLD_SIZE", least=1)


def _require_launch() -> None:
    """Refuse variables with which the processes of a job would never meet; a wrong RANK would wait for hours."""
    lacking = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if lacking:
        raise InputError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']} but {', '.join(lacking)} is not set. {_LAUNCH}")
    _launch_number("MASTER_PORT", least=1)
    rank, count = _launch_number("RANK", least=0), started_processes()
    if rank >= count:
        raise InputError(f"RANK is {rank}, but must be below {count}, the number of processes (WORLD_SIZE). {_LAUNCH}")


def _launch_number(name: str, *, least: int) -> int:
    text = os.environ[name]
    if not text.isdecimal() or int(text) < least:
        raise InputError(f"{name} is {text!r}, not a number from {least}. {_LAUNCH}")
    return int(text)


def first_process() -> bool:
    """Whether this is the first of the processes that torchrun started, the one that prints."""
    return "WORLD_SIZE" not in os.environ or os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def parsed_once() -> Iterator[None]:
    """Let only the first process print the parser's output, since all processes of a job have the same arguments."""
    if first_process():
        yield
        return
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    except SystemExit:
        time.sleep(_SECONDS_TO_REPORT)
        raise


@contextlib.contextmanager
def reported_once() -> Iterator[None]:
    """Mark errors that the first process of the job also reports; a process reports its own errors itself.

    Raises:
        DeglaError: instead of the network's own error, if another process has left the job.
    """
    try:
        yield
    except (DeglaError, OSError, RuntimeError) as caught:
        error = _user_error(caught)
        store, rank = _store_and_rank() if error is not None and error.reported is None else (None, 0)
        if error is None or store is None:
            raise
        error.reported = False
        if isinstance(caught, RuntimeError):
            time.sleep(_SECONDS_TO_REPORT)  # A process that ends still takes connections for a moment.
        if _is_gone():
            raise error from None
        # The store may be gone with the first process, also since the line above: PyTorch prints its C++ frames then.
        with contextlib.suppress(RuntimeError), Path(os.devnull).open("w") as nothing, _redirected(2, nothing.fileno()):
            if isinstance(caught, RuntimeError):
                error.reported = _is_set("degla/failed", store)
                time.sleep(_SECONDS_TO_REPORT)
            else:
                store.set("degla/failed", "")
                error.reported = _first_reports(str(error), store, rank=rank)
        raise error from None


def _user_error(caught: DeglaError | OSError | RuntimeError) -> DeglaError | None:
    """The error to show the user; None for a bug."""
    if isinstance(caught, DeglaError):
        return caught
    if isinstance(caught, OSError):
        return None if isinstance(caught, BrokenPipeError) else error_of_system(caught)
    if LOST_PEER.search(str(caught)) is None:
        return None
    return DeglaError(
        "another process of this job has ended, and so does this one. If it printed no reason, it was killed: by hand, "
        "by a time limit, or because the machine ran out of memory."
    )


def _store_and_rank() -> tuple[Any, int]:
    """The store through which the processes of a job exchange messages (None for a single process), and the rank."""
    if started_processes() > 1 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        # torchrun's own store exists before the processes are joined and after one of them is gone.
        address, wait = os.environ["MASTER_ADDR"], timedelta(seconds=_SECONDS_TO_WAIT)
        port, rank = int(os.environ["MASTER_PORT"]), int(os.environ["RANK"])
        with contextlib.suppress(RuntimeError):  # Gone, or not to be reached.
            return TCPStore(address, port, is_master=False, timeout=wait, wait_for_workers=False), rank
    joined = sys.modules.get("torch.distributed")
    if joined is None or not (joined.is_available() and joined.is_initialized()):
        return None, 0
    return joined.distributed_c10d._get_default_store(), joined.get_rank()


def _is_gone() -> bool:
    """Whether the process that has the store has ended: PyTorch prints its C++ frames if such a store is asked."""
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    try:
        if address and port:
            socket.create_connection((address, int(port)), timeout=_SECONDS_TO_WAIT).close()
    except OSError:
        return True
    return False


def _is_set(key: str, store: Any) -> bool:
    """Whether a process sets that key in time. The store's own wait prints lines of its own."""
    end = time.monotonic() + _SECONDS_TO_WAIT
    while not (there := bool(store.check([key]))) and time.monotonic() < end:
        time.sleep(0.1)
    return there


def _first_reports(message: str, store: Any, *, rank: int) -> bool:
    """Whether the first process reports this message; the first one stores its own for the others."""
    if rank == 0:
        store.set("degla/error", message)
        return False
    try:
        same = _is_set("degla/error", store) and store.get("degla/error").decode() == message
    except RuntimeError:  # The first has no error, or is gone.
        return False
    if same:
        time.sleep(_SECONDS_TO_REPORT)
    return bool(same)


@contextlib.contextmanager
def _redirected(descriptor: int, target: int) -> Iterator[None]:
    """Send what is written to one file descriptor to another one, also by C++, which knows no `sys.stdout`."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    original = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(original, descriptor)
        os.close(original)
