"""The same pipeline on a Ray cluster: batches of captions go to workers, rows come back in order.

Every worker is an actor with its own language model; Ray restarts it if its process or machine is lost. Replies go
immediately to an actor on the command's machine, which writes them to one file per batch in a folder next to the
output. Workers thus need no shared folder, and if a worker dies, another one finishes its batch and sends only the
requests without a reply. The replies of a finished batch are moved into the journal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from degla.errors import DeglaError
from degla.files import LineFile
from degla.negatives.llm import LanguageModel, RequestKey
from degla.negatives.run.dialogue import Maker
from degla.negatives.run.output import TRANSIENT, Journal, JournalEntry, format_line, parts_folder, read_replies
from degla.negatives.run.pipeline import FinishedRows, Pipeline, make_rows, tag
from degla.negatives.run.stream import CaptionBatch
from degla.ray import RETRIES, open_ray
from degla.records import NegativeRecord
from degla.stopping import Interruption

_AHEAD: Final = 8
"""Maximum batches per worker that are in progress or waiting for an earlier one; bounds the memory."""


class PartFolder:
    """Saves the replies that workers receive, by batch, and returns them to the next worker.

    The folder is on this machine and is created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def earlier(self, start: int) -> list[JournalEntry]:
        """Return the replies of a batch that was started before."""
        path = part_file(self._folder, start)
        if not path.exists():
            return []
        with LineFile(path) as file:
            return read_replies(file)

    def keep(self, start: int, replies: Sequence[JournalEntry]) -> None:
        """Save replies of a batch, identified by the position of its first caption."""
        with LineFile(part_file(self._folder, start)) as file:
            file.append(format_line(form, reply) for form, reply in replies)


class RemotePartFolder:
    """A `PartFolder` that runs as an actor of the cluster on the command's machine."""

    def __init__(self, folder: Path) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Ray's types do not know an actor's methods.
        self._actor: Any = (
            ray.remote(PartFolder).options(num_cpus=0, scheduling_strategy=here).remote(folder.absolute())
        )

    def earlier(self, start: int) -> list[JournalEntry]:
        """See `PartFolder`."""
        entries: list[JournalEntry] = self._answer(self._actor.earlier.remote(start))
        return entries

    def keep(self, start: int, replies: Sequence[JournalEntry]) -> None:
        """See `PartFolder`; waits until the replies are written, so a worker that dies loses nothing."""
        self._answer(self._actor.keep.remote(start, list(replies)))

    @staticmethod
    def _answer(reference: Any) -> Any:
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # our own error, such as a full disk
            raise error.cause from None


def part_file(folder: Path, start: int) -> Path:
    """Return the file of a batch in the folder."""
    return folder / f"{start:012}.jsonl"


def run_on_ray(
    batches: Iterator[CaptionBatch],
    maker: Maker,
    *,
    open_model: Callable[[], LanguageModel] | None,
    workers: int,
    journal: Journal | None,
) -> FinishedRows:
    """Make the rows of all batches on a cluster, in order; a local one is started if none is running.

    Args:
        batches: the captions.
        maker: makes the rows.
        open_model: opens a model, called once in every worker; None to use only the grammar.
        workers: number of cluster processes for this run, one CPU each.
        journal: where replies are kept; None without a model.

    Raises:
        degla.errors.InputError: Ray is not installed.
        DeglaError: a model reports that continuing is pointless, or Ray gives up.
    """
    with open_ray(workers) as ray:
        folder = None if journal is None else RemotePartFolder(parts_folder(journal.file.path))
        actor = ray.remote(Worker).options(num_cpus=1, max_restarts=-1, max_task_retries=RETRIES)
        actors = [actor.remote() for _ in range(workers)]
        # Held by this process and passed with each batch: constructor arguments are lost when Ray restarts an actor.
        setup = ray.put(WorkerSetup(maker, open_model, folder))
        find_all = journal.find_all if journal else lambda caption_id: []
        work = ((setup, batch, [entry for task in batch.tasks for entry in find_all(task.id)]) for batch in batches)
        try:
            for result in _in_order(ray, actors, work):
                if result.error is not None:
                    raise result.error
                if journal is not None:
                    part = part_file(parts_folder(journal.file.path), result.start)
                    journal.keep(result.replies, part=part)
                yield result.rows, result.captions
        except ray.exceptions.RayError as error:
            raise DeglaError(f"Ray gave up: {error}. Run the same command again to resume.") from error
        finally:
            for each in actors:
                ray.kill(each)


def _in_order(ray: Any, actors: Sequence[Any], work: Iterator[tuple[Any, ...]]) -> Iterator[BatchResult]:
    """Yield the actors' results of `Worker.work` in the order of the work; actors get none before they have started."""
    busy = {actor.ready.remote(): actor for actor in actors}
    free: deque[Any] = deque()
    waiting: deque[Any] = deque()
    for batch in work:
        while not free or len(waiting) >= _AHEAD * len(actors):
            if waiting and waiting[0] not in busy:
                yield ray.get(waiting.popleft())
                continue
            for ref in ray.wait(list(busy))[0]:
                if ref not in waiting:
                    ray.get(ref)  # Raises the reason if an actor cannot start.
                free.append(busy.pop(ref))
        waiting.append(free[0].work.remote(*batch))
        busy[waiting[-1]] = free.popleft()
    while waiting:
        yield ray.get(waiting.popleft())


@dataclass(frozen=True)
class BatchResult:
    """A worker's result for one batch.

    Attributes:
        start: position of the batch's first caption.
        rows: the batch's rows in order.
        captions: number of captions.
        replies: replies that were not known before.
        error: why the run cannot continue; None if it can.
    """

    start: int
    rows: list[NegativeRecord]
    captions: int
    replies: list[JournalEntry]
    error: DeglaError | None = None


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs for its work.

    Attributes:
        maker: makes the rows.
        open_model: opens a language model; None to use only the grammar.
        parts: saves the model's replies; None without a model.
    """

    maker: Maker
    open_model: Callable[[], LanguageModel] | None
    parts: PartFolder | RemotePartFolder | None


class Worker:
    """One worker of the cluster: opens its model once, then works on batches."""

    _model: LanguageModel | None = None

    def ready(self) -> None:
        """Return once the process has started."""

    def work(self, setup: WorkerSetup, batch: CaptionBatch, earlier: list[JournalEntry]) -> BatchResult:
        """Make the rows of one batch; `earlier` are its replies in the journal."""
        parts = setup.parts
        if setup.open_model is None or parts is None:
            rows, captions = make_rows(batch, setup.maker)
            return BatchResult(batch.start, rows, captions, [])
        replies = parts.earlier(batch.start)  # from a worker that died
        journal: dict[RequestKey, JournalEntry] = {}
        for form, reply in [*earlier, *replies]:
            if reply.outcome not in TRANSIENT:
                journal.setdefault(reply.key, (form, reply))

        def keep(entries: Sequence[JournalEntry]) -> None:
            parts.keep(batch.start, entries)
            replies.extend(entries)

        try:
            self._model = self._model or setup.open_model()
            pipeline = Pipeline(self._model, setup.maker, journal.get, keep, Interruption())
            results = list(pipeline.run(iter([tag(batch)])))
        except DeglaError as error:
            return BatchResult(batch.start, [], 0, [], error)
        return BatchResult(batch.start, [row for rows, _ in results for row in rows], len(batch.tasks), replies)
