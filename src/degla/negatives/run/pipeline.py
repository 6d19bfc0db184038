"""Keeps a language model busy: many dialogues under way at once, rows leave in the order of captions.

Requests of one rule follow each other within a batch of captions, since their chats begin alike and a server's prefix
cache serves them; the next batch begins before the last one has ended, so that the model never runs dry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, NamedTuple, TypeVar

from degla.negatives.checks import check_caption
from degla.negatives.grammar.phrases import Caption, parse
from degla.negatives.llm import LanguageModel, Reply, Request, RequestKey
from degla.negatives.run.dialogue import Dialogue, Maker
from degla.negatives.run.output import JournalEntry
from degla.negatives.run.stream import BATCH, CaptionBatch, CaptionTask
from degla.records import NegativeRecord
from degla.stopping import Interruption

_MOST_OPEN: Final = 8
"""Batches between the first caption that still waits for a reply and the last that was begun; more where the model
takes more than half as many requests at once."""
_AHEAD: Final = 4
"""Batches a process that may be waiting: keeps memory small and processes busy."""


FinishedRows = Iterator[tuple[list[NegativeRecord], int]]
"""Rows of finished captions in order, and how many captions they are."""

Given = TypeVar("Given")
Made = TypeVar("Made")


class TaggedTask(NamedTuple):
    """A caption to make negatives of.

    Attributes:
        task: the caption.
        caption: it with its tags; None where negatives cannot be made of it.
        reason: why not; "" where they can.
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


def make_rows(batch: CaptionBatch, maker: Maker) -> tuple[list[NegativeRecord], int]:
    """The rows of a batch without a language model, in the order of captions and rules; and its captions' number."""
    rows: list[NegativeRecord] = []
    for task, caption, reason in tag(batch):
        try:
            next(maker.talk(task, caption, reason=reason))
        except StopIteration as end:
            rows += end.value
    return rows, len(batch.tasks)


def spread(
    work: Callable[[Given], Made], items: Iterable[Given], *, pool: ProcessPoolExecutor | None, workers: int
) -> Iterator[Made]:
    """Do work on items, in processes where there are several; results keep the order and only a few wait."""
    if pool is None:
        yield from map(work, items)
        return
    waiting: deque[Future[Made]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= workers * _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@dataclass
class _Work:
    """One caption under way: its dialogue, and its rows once that has ended."""

    batch: int
    place: int
    dialogue: Dialogue
    rows: list[NegativeRecord] | None = None


@dataclass
class Pipeline:
    """Many dialogues with one model.

    Attributes:
        model: answers.
        maker: leads the dialogues.
        find: the reply of an earlier run to a request, with the form that was asked for; None where there is none.
        keep: writes replies down, before anything is made of them.
        stop: whether to end early.
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
        """Rows of captions that are finished, in order, and how many captions they are; none at times.

        Ends early where a signal came, which the model must be told (`LanguageModel.wait_no_longer`): what has come by
        then is kept, what is under way is made again by a later run.

        Raises:
            DeglaError: the model says that going on is senseless, or the disk is full.
        """
        capacity = max(self.model.capacity, 1)
        most_open = max(_MOST_OPEN, 4 * capacity // BATCH) * BATCH
        opened = 0
        more = True
        while self.stop.name is None:
            while more and len(self._ready) < capacity and len(self._order) < most_open and self.stop.name is None:
                batch = next(batches, None)
                more = batch is not None
                if batch is not None:
                    self._begin(batch, opened)
                    opened += 1
            while self._ready and len(self._under_way) < capacity and self.stop.name is None:
                _, _, _, request, work = heappop(self._ready)
                self._under_way[request.key] = (request, work)
                self.model.start(request)
            yield self._written()  # often none: a look at how far it is
            if self._under_way:
                self._hear(self.model.finished())
            elif not more and not self._order:
                return
        if self._under_way:
            self._hear(self.model.finished())
        yield self._written()

    def _begin(self, batch: list[TaggedTask], number: int) -> None:
        for place, (task, caption, reason) in enumerate(batch):
            work = _Work(number, place, self.maker.talk(task, caption, reason=reason))
            self._order.append(work)
            self._go_on(work, None)

    def _hear(self, replies: Sequence[Reply]) -> None:
        heard = []
        for reply in replies:
            if reply.key not in self._under_way:
                raise RuntimeError(f"{self.model.name}: a reply to {reply.key}, which is not under way")
            request, work = self._under_way.pop(reply.key)
            heard.append((request.form, reply, work))
        self.keep([(form, reply) for form, reply, _ in heard])
        for _, reply, work in heard:
            self._go_on(work, reply)

    def _go_on(self, work: _Work, reply: Reply | None) -> None:
        """Take a dialogue to its next request that no earlier run has the reply to."""
        try:
            while True:
                request = next(work.dialogue) if reply is None else work.dialogue.send(reply)
                earlier = self.find(request.key)
                if earlier is None or earlier[0] != request.form:
                    break
                reply = earlier[1]
        except StopIteration as end:
            work.rows = end.value
            return
        rule = self.maker.rules.index(request.key.rule)
        heappush(self._ready, (work.batch, rule, work.place, request, work))

    def _written(self) -> tuple[list[NegativeRecord], int]:
        """The rows of the captions at the front that are finished."""
        rows: list[NegativeRecord] = []
        captions = 0
        while self._order and self._order[0].rows is not None:
            rows += self._order.popleft().rows or []
            captions += 1
        return rows, captions
