"""Runs rules over captions and appends what they make, accepted or refused, to a file that can be continued.

Every (caption, rule) has at least one row. Rows depend on the seed, the caption and the rules alone: not on the number
of processes, nor on how often the run was stopped and continued.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Final

from degla.errors import InputError
from degla.negatives import words
from degla.negatives.checks import Content, check_caption, judge
from degla.negatives.output import Progress, continue_output, manifest
from degla.negatives.phrases import Caption, parse
from degla.negatives.rules import NegativeRule, load_rule
from degla.negatives.summary import Summary
from degla.records import CaptionRecord, NegativeRecord

LOG = logging.getLogger(__name__)

_CHUNK: Final = 256
"""Captions a batch; batches begin at multiples of it, so that a continued run tags the same batches."""
_AHEAD: Final = 4
"""Batches a process that may be waiting: keeps memory small and processes busy."""

SOURCE: Final = "rules"
"""`NegativeRecord.source` of what the grammar makes."""


@dataclass(frozen=True)
class Task:
    """One caption to make negatives of.

    Attributes:
        id: the caption's name.
        text: what it says.
        siblings: contents of the other captions of its image.
        done: texts of rows that exist, by rule: those rules are not asked again.
    """

    id: str
    text: str
    siblings: frozenset[Content] = frozenset()
    done: tuple[tuple[str, tuple[str, ...]], ...] = ()


def generate(
    captions: Iterable[CaptionRecord],
    *,
    rules: Sequence[str],
    out: Path,
    seed: int,
    per_rule: int = 1,
    workers: int = 1,
    progress: bool = True,
) -> Summary:
    """Make negatives of captions and append them to a JSONL file of `NegativeRecord`.

    Args:
        captions: the captions; ids must be unique. Held in memory (about 0.5 kB a caption), because a negative must
            not equal another caption of the same image.
        rules: names of members of the shelf `negatives/rules`, in the order of the rows.
        out: the file; ``<out>.manifest.json`` beside it says what it was made with. If both exist the run goes on
            where it stopped, a torn last line is removed.
        seed: any whole number; with the caption's id and the rule's name it decides every draw.
        per_rule: accepted negatives of one rule for one caption, at most.
        workers: processes; the rows are the same for any number.
        progress: whether to show a progress bar (on a terminal) or log lines.

    Raises:
        InputError: an unknown rule, a caption id that comes twice, a file made with other settings or captions, or
            the tagger is not installed.
    """
    if per_rule < 1 or workers < 1:
        raise InputError(f"per_rule ({per_rule}) and workers ({workers}) must be 1 or more.")
    if not rules or len(set(rules)) != len(rules):
        raise InputError(f"rules must be named, each once; got {', '.join(rules) or 'none'}.")
    for name in rules:
        load_rule(name)
    started = time.monotonic()
    listed = list(captions)
    siblings = _siblings(listed)
    settings = manifest(listed, rules=rules, seed=seed, per_rule=per_rule)
    summary = Summary(rules=tuple(rules), captions=len(listed))
    with continue_output(out, settings, listed, rules, summary) as output:
        first = output.captions_done
        batches = [
            [
                Task(
                    record.id,
                    record.text,
                    siblings.get(record.image_id, frozenset()) - {words.content(record.text)},
                    output.partly.get(record.id, ()),
                )
                for record in listed[max(start, first) : start + _CHUNK]
            ]
            for start in range(first - first % _CHUNK, len(listed), _CHUNK)
        ]
        lead = [record.text for record in listed[first - first % _CHUNK : first]]
        bar: Any = Progress(len(listed), first) if progress else nullcontext()
        with bar:
            for rows, captions_made in _rows(batches, lead, rules, seed, per_rule, workers):
                output.write(rows)
                summary.add(rows)
                if progress:
                    bar.advance(captions_made)
    summary.seconds = time.monotonic() - started
    return summary


def _siblings(listed: Sequence[CaptionRecord]) -> dict[str, frozenset[Content]]:
    """Contents of the captions of every image that has more than one; refuses ids that come twice."""
    seen: dict[str, int] = {}
    by_image: dict[str, list[str]] = {}
    for index, record in enumerate(listed):
        if record.id in seen:
            raise InputError(
                f"caption {index}: id {record.id!r} was the id of caption {seen[record.id]} already; "
                "ids must be unique, negatives are joined by them."
            )
        seen[record.id] = index
        by_image.setdefault(record.image_id, []).append(record.text)
    return {
        image: frozenset(words.content(text) for text in texts) for image, texts in by_image.items() if len(texts) > 1
    }


def _rows(
    batches: Sequence[Sequence[Task]],
    lead: Sequence[str],
    rules: Sequence[str],
    seed: int,
    per_rule: int,
    workers: int,
) -> Iterator[tuple[list[NegativeRecord], int]]:
    """The rows of every batch in order. `lead` are finished captions of the first batch: tagged with it, not used."""
    leads = [lead if not place else [] for place in range(len(batches))]
    if workers == 1 or len(batches) < 2:
        for batch, before in zip(batches, leads, strict=True):
            yield make_rows(batch, rules, seed, per_rule, before), len(batch)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: list[Future[list[NegativeRecord]]] = []
        sent = 0
        for place, batch in enumerate(batches):
            while sent < len(batches) and sent < place + workers * _AHEAD:
                waiting.append(pool.submit(make_rows, batches[sent], rules, seed, per_rule, leads[sent]))
                sent += 1
            yield waiting.pop(0).result(), len(batch)


def make_rows(
    tasks: Sequence[Task], rules: Sequence[str], seed: int, per_rule: int, lead: Sequence[str] = ()
) -> list[NegativeRecord]:
    """The rows of some captions, in the order of captions and rules."""
    loaded = [(name, load_rule(name)) for name in rules]
    verdicts = [check_caption(task.text) for task in tasks]
    texts = [task.text for task, verdict in zip(tasks, verdicts, strict=True) if verdict.accepted]
    usable = [text for text in lead if check_caption(text).accepted]
    tagged = iter(parse([*usable, *texts])[len(usable) :])
    rows: list[NegativeRecord] = []
    for task, verdict in zip(tasks, verdicts, strict=True):
        caption = next(tagged) if verdict.accepted else None
        done = dict(task.done)
        taken: set[Content] = {words.content(text) for texts_made in done.values() for text in texts_made}
        for name, rule in loaded:
            if name in done:
                continue
            if caption is None:
                rows.append(_none(task, name, rule, verdict.reason))
            else:
                rows += _draw(task, caption, name, rule, seed, per_rule, taken)
    return rows


def _draw(
    task: Task, caption: Caption, name: str, rule: NegativeRule, seed: int, per_rule: int, taken: set[Content]
) -> list[NegativeRecord]:
    """The rows of one caption and rule; contents of accepted negatives are added to `taken`."""
    rows = []
    accepted = 0
    for draw, text in enumerate(rule.read(caption, None, draw_rng(seed, task.id, name))):
        verdict = judge(rule, caption, text, taken=taken, siblings=task.siblings)
        rows.append(
            NegativeRecord(
                caption_id=task.id,
                rule=name,
                kind=rule.kind,
                text=text,
                source=SOURCE,
                accepted=verdict.accepted,
                reason=verdict.reason,
                draw=draw,
            )
        )
        if verdict.accepted:
            taken.add(words.content(text))
            accepted += 1
            if accepted == per_rule:
                break
    return rows or [_none(task, name, rule, "no_candidate")]


def _none(task: Task, name: str, rule: NegativeRule, reason: str) -> NegativeRecord:
    return NegativeRecord(
        caption_id=task.id, rule=name, kind=rule.kind, text=None, source=SOURCE, accepted=False, reason=reason
    )


def draw_rng(seed: int, caption_id: str, rule: str) -> Random:
    """The random numbers of one caption and rule, from SHA-256: the same on every machine."""
    text = f"{seed}\n{caption_id}\n{rule}"
    return Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
