"""The folder of a run while it is trained: held by one process, put right after a kill, not used twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from degla.errors import InputError
from degla.evaluation.processes import EvaluationProcesses
from degla.locks import lock
from degla.model.runs import checkpoints, latest_checkpoint, put_right


@contextmanager
def open_run(run: Path, *, resume: bool, processes: EvaluationProcesses) -> Iterator[None]:
    """Hold a run's folder for the block; of several processes that train one run, the first holds it.

    Args:
        run: made where it is not there.
        resume: the folder must have a complete checkpoint; otherwise it must have none.
        processes: that train the run together.

    Raises:
        InputError: another process trains the run, the folder cannot be written, or it does not fit `resume`.
        DeglaError: the disk is full.
    """
    with ExitStack() as held:

        def take() -> None:
            if resume and not run.is_dir():
                raise InputError(f"{run}: no such run folder.")
            held.enter_context(lock(run, remedy="Wait for it, stop it, or choose another --out."))
            for folder, other in put_right(run):
                raise InputError(f"{folder}: is no complete checkpoint, but holds {other}. Move it away.")
            if resume and latest_checkpoint(run) is None:
                raise InputError(f"{run}: no complete checkpoint to go on from; start the run without --resume.")
            if not resume:
                check_new(run)

        processes.from_first(take)
        yield


def check_new(run: Path) -> None:
    """Refuse a folder that holds a run already."""
    if checkpoints(run):
        raise InputError(f"{run}: already holds a run. Go on with --resume {run}, or give another --out.")
