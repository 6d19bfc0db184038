"""Questions to a language model outside the dialogue about negatives: each is asked once, and its reply is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from degla.errors import DeglaError, InputError
from degla.negatives.llm import LanguageModel, Reply, Request, RequestKey
from degla.negatives.run.output import TRANSIENT, Journal, journal_path
from degla.negatives.run.stream import hash_text
from degla.negatives.run.summary import Summary
from degla.pages.words import counted


@contextmanager
def saved_replies(out: Path) -> Iterator[Journal]:
    """Open the replies beside a file that is written from them.

    Raises:
        InputError: another process holds it, or it cannot be read or written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with Journal(journal_path(out), Summary((), 0)) as journal:
        if not journal.file.claim():
            raise InputError(f"{out}: another run is writing this file. Wait or choose another --out.")
        journal.index()
        yield journal


def replies_to(
    requests: Iterable[Request], *, model: LanguageModel, journal: Journal | None
) -> dict[RequestKey, Reply]:
    """Return the reply to each request, from the journal if it is there.

    Args:
        requests: equal keys are asked once.
        model: the language model.
        journal: where replies are kept, so that none is paid for twice; None keeps none.

    Raises:
        DeglaError: the model cannot continue; the journal has what it answered.
    """
    asked = {each.key: each for each in requests}
    earlier = {} if journal is None else {key: journal.find(key) for key in asked}
    by_key = {key: entry[1] for key, entry in earlier.items() if entry is not None}
    for replies in asked_at_once([request for key, request in asked.items() if key not in by_key], model):
        if journal is not None:
            journal.keep([(asked[reply.key].form, reply) for reply in replies])
        by_key |= {reply.key: reply for reply in replies}
    return by_key


def asked_at_once(requests: Iterable[Request], model: LanguageModel) -> Iterator[Sequence[Reply]]:
    """Send a model as many requests at once as it takes; yield its replies as they come; raises as `replies_to`."""
    waiting, under_way = list(requests)[::-1], 0
    while waiting or under_way:
        while waiting and under_way < max(model.capacity, 1):
            model.start(waiting.pop())
            under_way += 1
        replies = model.finished()
        under_way -= len(replies)
        yield replies


def texts_of(requests: Iterable[Request], *, model: LanguageModel, journal: Journal | None) -> dict[RequestKey, str]:
    """Return the text of each reply that has one; the arguments are those of `replies_to`.

    Raises:
        DeglaError: the model cannot continue, or did not answer; the journal has what it answered.
    """
    replies = replies_to(requests, model=model, journal=journal)
    silent = sum(reply.outcome in TRANSIENT for reply in replies.values())
    if silent:
        raise DeglaError(
            f"{model.name} did not answer for {counted(silent, 'caption')}. Run the same command again: the replies so "
            "far are kept."
        )
    return {key: reply.text for key, reply in replies.items() if reply.outcome == "answered"}


def rule_name(task: str, model: LanguageModel, instruction: str) -> str:
    """Return the name under which a journal keeps replies: another model's or instruction's are not this one's."""
    return f"{task} by {hash_text(json.dumps([model.describe(), instruction], sort_keys=True)):016x}"
