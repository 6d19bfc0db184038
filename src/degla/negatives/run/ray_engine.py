"""The same pipeline on a Ray cluster through Ray Data: batches of captions go to workers, rows come back in order.

Every worker opens its own language model. What it answers goes at once to an actor beside the command, which writes it
to a file named after the batch, in a folder beside the output. So workers need no folder in common, and a batch whose
worker dies is finished by another one, which asks only what has no answer yet. When a batch is done its replies go into
the one journal.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from degla.errors import DeglaError
from degla.files import LineFile
from degla.negatives.llm import LanguageModel, RequestKey
from degla.negatives.run.dialogue import Maker
from degla.negatives.run.journal import PASSING, Journal, JournalEntry, read_replies, write_line
from degla.negatives.run.pipeline import FinishedRows, Pipeline, make_rows, tag
from degla.negatives.run.stream import CaptionBatch
from degla.ray import open_ray
from degla.records import NegativeRecord
from degla.stopping import Interruption

_WAVE: Final = 512
"""Batches (131,072 captions) that the cluster is given at once: memory does not grow with the captions."""


class Keeps(Protocol):
    """Writes down what workers are answered, batch by batch, and tells it to the next worker."""

    def earlier(self, start: int) -> list[JournalEntry]:
        """The replies of a batch that began before."""
        ...

    def keep(self, start: int, replies: Sequence[JournalEntry]) -> None:
        """Write down replies of a batch, named after the place of its first caption."""
        ...


class PartFolder:
    """A `Keeps` in a folder of this machine, made where it is not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def earlier(self, start: int) -> list[JournalEntry]:
        """See `Keeps`."""
        path = part_file(self._folder, start)
        if not path.exists():
            return []
        with LineFile(path) as file:
            return read_replies(file)

    def keep(self, start: int, replies: Sequence[JournalEntry]) -> None:
        """See `Keeps`."""
        with LineFile(part_file(self._folder, start)) as file:
            file.append(write_line(form, reply) for form, reply in replies)


class FarFolder:
    """A `PartFolder` that is an actor of the cluster, on the command's machine."""

    def __init__(self, folder: Path) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Ray's types know no methods of an actor.
        self._actor: Any = (
            ray.remote(PartFolder).options(num_cpus=0, scheduling_strategy=here).remote(folder.absolute())
        )

    def earlier(self, start: int) -> list[JournalEntry]:
        """See `Keeps`."""
        found: list[JournalEntry] = self._answer(self._actor.earlier.remote(start))
        return found

    def keep(self, start: int, replies: Sequence[JournalEntry]) -> None:
        """See `Keeps`; waits until it is written, so that a worker that dies has lost nothing."""
        self._answer(self._actor.keep.remote(start, list(replies)))

    @staticmethod
    def _answer(reference: Any) -> Any:
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # a full disk, in our own words
            raise error.cause from None


def parts_folder(out: Path) -> Path:
    """Where replies of batches that are not finished are written down."""
    return out.with_name(out.name + ".replies")


def part_file(folder: Path, start: int) -> Path:
    """The file of a batch in the folder."""
    return folder / f"{start:012}.jsonl"


def run_on_ray(
    batches: Iterator[CaptionBatch],
    maker: Maker,
    *,
    out: Path,
    open_model: Callable[[], LanguageModel] | None,
    workers: int,
    journal: Journal | None,
) -> FinishedRows:
    """Rows of all batches in order, made by a cluster; a local one is started where none runs.

    Args:
        batches: the captions.
        maker: makes the rows.
        out: the file of negatives.
        open_model: opens a model, called once in every worker; None for the grammar alone.
        workers: processes of the cluster that work for this run, one processor each.
        journal: where replies are kept; None without a model.

    Raises:
        degla.errors.InputError: Ray is not installed.
        DeglaError: a model says that going on is senseless, or Ray gives up.
    """
    parts = parts_folder(out)
    with open_ray(workers) as ray:
        from ray.data import ActorPoolStrategy, DataContext, from_items

        if journal is not None:
            take_in(parts, journal)
            journal.index()
        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        try:
            keeps = None if journal is None else FarFolder(parts)
            while wave := list(islice(batches, _WAVE)):
                find_all = journal.find_all if journal else lambda caption_id: []
                earlier = ([entry for task in batch.tasks for entry in find_all(task.id)] for batch in wave)
                items = [{"batch": pickle.dumps(pair)} for pair in zip(wave, earlier, strict=True)]
                results = from_items(items, override_num_blocks=len(items)).map_batches(
                    Worker,
                    fn_constructor_kwargs={"maker": maker, "open_model": open_model, "parts": keeps},
                    batch_size=1,
                    compute=ActorPoolStrategy(size=min(workers, len(items))),
                    num_cpus=1,
                )
                for item in results.iter_rows():
                    result: BatchResult = pickle.loads(item["result"])
                    if result.error is not None:
                        raise result.error
                    if journal is not None:
                        journal.keep(result.replies)
                        part_file(parts, result.start).unlink(missing_ok=True)
                    yield result.rows, result.captions
        except ray.exceptions.RayError as error:
            raise DeglaError(f"Ray gave up: {error}. Run the same command again: it resumes.") from error


@dataclass(frozen=True)
class BatchResult:
    """What a worker made of one batch.

    Attributes:
        start: place of the batch's first caption.
        rows: its rows in order.
        captions: their number.
        replies: those that were not known before.
        error: why the run cannot go on; None where it can.
    """

    start: int
    rows: list[NegativeRecord]
    captions: int
    replies: list[JournalEntry]
    error: DeglaError | None = None


class Worker:
    """One worker of the cluster: opens its model once, then works on batches."""

    def __init__(self, *, maker: Maker, open_model: Callable[[], LanguageModel] | None, parts: Keeps | None) -> None:
        self._maker = maker
        self._parts = parts
        self._model = None if open_model is None else open_model()

    def __call__(self, item: dict[str, NDArray[np.object_]]) -> dict[str, list[bytes]]:
        """Work on one batch, pickled as Ray Data passes it."""
        batch, earlier = pickle.loads(item["batch"][0])
        return {"result": [pickle.dumps(self._work(batch, earlier))]}

    def _work(self, batch: CaptionBatch, earlier: list[JournalEntry]) -> BatchResult:
        parts = self._parts
        if self._model is None or parts is None:
            rows, captions = make_rows(batch, self._maker)
            return BatchResult(batch.start, rows, captions, [])
        replies = parts.earlier(batch.start)  # of a worker that died
        known: dict[RequestKey, JournalEntry] = {}
        for form, reply in [*earlier, *replies]:
            if reply.outcome not in PASSING:
                known.setdefault(reply.key, (form, reply))

        def keep(made: Sequence[JournalEntry]) -> None:
            parts.keep(batch.start, made)
            replies.extend(made)

        pipeline = Pipeline(self._model, self._maker, known.get, keep, Interruption())
        try:
            finished = list(pipeline.run(iter([tag(batch)])))
        except DeglaError as error:
            return BatchResult(batch.start, [], 0, [], error)
        return BatchResult(batch.start, [row for rows, _ in finished for row in rows], len(batch.tasks), replies)


def take_in(folder: Path, journal: Journal) -> None:
    """Move what unfinished batches of an earlier run were answered into the journal."""
    for path in sorted(folder.glob("*.jsonl")):
        with LineFile(path) as file:
            journal.append(read_replies(file))
        path.unlink()
