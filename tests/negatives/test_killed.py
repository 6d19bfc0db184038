"""A process that dies without closing its files leaves all paid replies on disk."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from degla.negatives.llm import Reply, Request
from tests.negatives.scripted_runs import UnsteadyModel, rows_of, run, varied


def killed_at(number: int, out: Path) -> None:
    """A run in a separate process that is killed when its model is asked for the reply with that number (from 1)."""

    def deadly(request: Request) -> str | Reply | None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return varied(request)

    count = 0
    child = os.fork()
    if not child:
        try:
            run(out, UnsteadyModel(deadly, capacity=1))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_every_reply_and_every_finished_row_is_on_disk(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "negatives.jsonl"
    model = UnsteadyModel(varied, capacity=1)
    run(whole, model)
    keys = [request.key for request in model.requests]
    last = {key.caption_id: place for place, key in enumerate(keys)}
    # Die where several captions have had their last reply and others wait for theirs.
    number = sorted(last.values())[len(last) - 2] + 1
    killed_at(number, out)
    journal = [json.loads(line) for line in (tmp_path / "negatives.jsonl.replies.jsonl").read_text().splitlines()]
    journal_keys = [(row["caption_id"], row["rule"], row["draw"]) for row in journal]
    assert journal_keys == [(key.caption_id, key.rule, key.draw) for key in keys[: number - 1]]
    first_unfinished = min(int(key.caption_id[1:]) for key in keys[number - 1 :])
    expected = [row for row in rows_of(whole) if int(row.caption_id[1:]) < first_unfinished]
    assert len(expected) > 8 and rows_of(out) == expected
    again = UnsteadyModel(varied, capacity=1)
    run(out, again)
    assert out.read_bytes() == whole.read_bytes()
    assert [request.key for request in again.requests] == keys[number - 1 :], "a reply was paid twice"
