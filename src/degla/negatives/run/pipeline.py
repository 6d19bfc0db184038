"""Keep a language model busy with many concurrent dialogues, yielding rows in the order of captions.

Within a batch of captions, requests of the same rule are sent consecutively: their chats share a prefix, which a
server's prefix cache can reuse. The next batch starts before the last one ends, so the model never idles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, NamedTuple, TypeVar

from degla.errors import DeglaError
from degla.negatives.checks import check_caption
from degla.negatives.grammar.phrases import Caption, parse
from degla.negatives.llm import Form, LanguageModel, Reply, Request, RequestKey
from degla.negatives.run.dialogue import Dialogue, Maker
from degla.negatives.run.output import JournalEntry
from degla.negatives.run.stream import BATCH, CaptionBatch, CaptionTask
from degla.records import NegativeRecord
from degla.shelf import own_errors
from degla.stopping import Interruption

_MOST_OPEN: Final = 8
"""Maximum batches between the first caption still waiting for a reply and the last one started; more if the model takes
more than a quarter as many requests at once as they have captions."""
_AHEAD: Final = 4
"""Maximum waiting batches per process: keeps memory small and processes busy."""


FinishedRows = Iterator[tuple[list[NegativeRecord], int]]
"""Rows of finished captions in order, and the number of captions."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class TaggedTask(NamedTuple):
    """A caption to make negatives of.

    Attributes:
        task: the caption.
        caption: the tagged caption; None if negatives cannot be made of it.
        reason: why not; "" if they can.
    """

    task: CaptionTask
    caption: Caption | None
    reason: str


def tag(batch: CaptionBatch) -> list[TaggedTask]:
    """Check and tag the captions of a batch."""
    reasons = [check_caption(task.text).reason for task in batch.tasks]
    usable = [text for text in batch.lead if check_caption(text).accepted]
    texts = [task.text for task, reason in zip(batch.tasks, reasons, strict=True) if not reason]
    tagged = iter(parse([*usable, *texts])[len(usable) :])
    return [
        TaggedTask(task, None if reason else next(tagged), reason)
        for task, reason in zip(batch.tasks, reasons, strict=True)
    ]


@own_errors()  # A pool's process sends no traceback that names a place.
def make_rows(batch: CaptionBatch, maker: Maker) -> tuple[list[NegativeRecord], int]:
    """Return a batch's rows, made without a language model, in the order of captions and rules, and its size."""
    rows: list[NegativeRecord] = []
    for task, caption, reason in tag(batch):
        try:
            next(maker.talk(task, caption, reason=reason))
        except StopIteration as end:
            rows += end.value
    return rows, len(batch.tasks)


def map_in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    pool: ProcessPoolExecutor | None,
    workers: int,
    stop: Interruption,
) -> Iterator[Result]:
    """Apply `work` to items, in parallel if there is a pool; results keep their order and only a few are queued.

    Ends early if a signal ended the pool's processes, too, as from `timeout` or systemd, which send it to all.

    Raises:
        DeglaError: a process of the pool was killed.
    """
    if pool is None:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        if stop.name is None:
            raise DeglaError("a worker process was killed. If memory ran out, use fewer --workers.") from None


@dataclass
class _Work:
    """One caption in progress: its dialogue, and its rows once the dialogue has ended."""

    batch: int
    place: int
    dialogue: Dialogue
    rows: list[NegativeRecord] | None = None


@dataclass
class Pipeline:
    """Many concurrent dialogues with one model.

    Attributes:
        model: the language model.
        maker: conducts the dialogues.
        find: returns an earlier run's reply to a request, with the request's form; None if there is none.
        keep: saves replies before they are used.
        stop: tells whether to end early.
    """

    model: LanguageModel
    maker: Maker
    find: Callable[[RequestKey], JournalEntry | None]
    keep: Callable[[Sequence[JournalEntry]], None]
    stop: Interruption
    _ready: list[tuple[int, int, int, Request, _Work]] = field(default_factory=list)
    _under_way: dict[RequestKey, tuple[Request, _Work]] = field(default_factory=dict)
    _order: deque[_Work] = field(default_factory=deque)

    def run(self, batches: Iterator[list[TaggedTask]]) -> FinishedRows:
        """Yield rows of finished captions in order, and the number of captions, which may be 0.

        Ends early after a signal, of which the model must be notified (`LanguageModel.wait_no_longer`): replies
        received by then are kept, pending requests are repeated by a later run.

        Raises:
            DeglaError: the model reports that continuing is pointless, or the disk is full.
        """
        capacity = max(self.model.capacity, 1)
        most_open = max(_MOST_OPEN, 4 * capacity // BATCH) * BATCH
        number = 0
        more = True
        while self.stop.name is None:
            while more and len(self._ready) < capacity and len(self._order) < most_open and self.stop.name is None:
                batch = next(batches, None)
                more = batch is not None
                if batch is not None:
                    self._begin(batch, number)
                    number += 1
            while self._ready and len(self._under_way) < capacity and self.stop.name is None:
                _, _, _, request, work = heappop(self._ready)
                self._under_way[request.key] = (request, work)
                self.model.start(request)
            yield self._finished_rows()  # often empty, but lets the caller check progress
            if self._under_way:
                self._hear(self.model.finished())
            elif not more and not self._order:
                return
        if self._under_way:
            self._hear(self.model.finished())
        yield self._finished_rows()

    def _begin(self, batch: list[TaggedTask], number: int) -> None:
        for place, (task, caption, reason) in enumerate(batch):
            work = _Work(number, place, self.maker.talk(task, caption, reason=reason))
            self._order.append(work)
            self._go_on(work, None)

    def _hear(self, replies: Sequence[Reply]) -> None:
        results = []
        for reply in replies:
            if reply.key not in self._under_way:
                raise RuntimeError(f"{self.model.name}: a reply to {reply.key}, which is not pending")
            request, work = self._under_way.pop(reply.key)
            results.append((request.form, reply, work))
        self.keep([(form, reply) for form, reply, _ in results])
        for _, reply, work in results:
            self._go_on(work, reply)

    def _go_on(self, work: _Work, reply: Reply | None) -> None:
        """Advance a dialogue to its next request without a reply from an earlier run."""
        try:
            while True:
                request = next(work.dialogue) if reply is None else work.dialogue.send(reply)
                earlier = self.find(request.key)
                if earlier is None or not _is_answered_by(request, *earlier):
                    break
                reply = earlier[1]
        except StopIteration as end:
            work.rows = end.value
            return
        rule = self.maker.rules.index(request.key.rule)
        heappush(self._ready, (work.batch, rule, work.place, request, work))

    def _finished_rows(self) -> tuple[list[NegativeRecord], int]:
        """Return the rows of the finished captions at the front of the queue."""
        rows: list[NegativeRecord] = []
        captions = 0
        while self._order and self._order[0].rows is not None:
            rows += self._order.popleft().rows or []
            captions += 1
        return rows, captions


def _is_answered_by(request: Request, form: Form, reply: Reply) -> bool:
    """Whether an earlier run's reply can be one to this request, whose choices may have changed.

    They change if the request of an earlier rule had no answer then and has one now.
    """
    is_offered = not request.choices or reply.outcome != "answered" or reply.text in request.choices
    return form == request.form and is_offered
