"""Replies on disk: looked up by key, repaired, never reused if a retry may help; and the effects of a full disk."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from degla.errors import DeglaError, InputError
from degla.negatives.llm import Reply, RequestKey
from degla.negatives.run.output import Journal, JournalEntry, parts_folder
from degla.negatives.run.ray_engine import part_file
from degla.negatives.run.summary import Summary
from tests.negatives.scripted_runs import UnsteadyModel, run, varied


def key(number: int, draw: int = 0) -> RequestKey:
    return RequestKey(f"c{number}", "swap_nouns", draw)


def new_summary() -> Summary:
    return Summary(rules=("swap_nouns",), captions=1)


def test_a_reply_comes_back_as_it_was(tmp_path: Path) -> None:
    reply = Reply(
        key(0),
        "answered",
        text="Zwei 'Hunde' \u2028 und\neine Zeile",
        words=(("cat", "cow"), ()),
        score=-1.25,
        detail="said so",
        repaired=True,
        attempts=3,
        counts={"retry: 429": 2},
    )
    bare = Reply(key(1), "implausible", score=0.0)
    summary = new_summary()
    with Journal(tmp_path / "replies.jsonl", summary) as journal:
        journal.index()
        journal.keep([("fill", reply), ("choose", bare)])
    assert (summary.replies.attempts, summary.replies.repaired, summary.replies.counts) == (4, 1, {"retry: 429": 2})
    again = new_summary()
    with Journal(tmp_path / "replies.jsonl", again) as journal:
        journal.index()
        assert journal.find(reply.key) == ("fill", reply)
        assert journal.find(bare.key) == ("choose", bare)
        assert journal.find(key(2)) is None
        assert journal.find(key(0, draw=1)) is None
    assert again.replies.by_outcome() == summary.replies.by_outcome() == {"answered": 1, "implausible": 1}


def test_what_could_not_be_reached_is_asked_again_and_the_first_answer_counts(tmp_path: Path) -> None:
    with Journal(tmp_path / "replies.jsonl", new_summary()) as journal:
        journal.keep([("write", Reply(key(0), "unreachable")), ("write", Reply(key(0), "answered", text="first"))])
        journal.keep([("write", Reply(key(0), "answered", text="second")), ("write", Reply(key(1), "unreachable"))])
        journal.index()
        entry = journal.find(key(0))
        assert entry is not None
        assert entry[1].text == "first"
        assert journal.find(key(1)) is None
        assert [reply.text for _, reply in journal.find_all("c0")] == ["first"]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with Journal(path, new_summary()) as journal:
        journal.keep([("write", Reply(key(number), "answered", text="x")) for number in range(3)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with Journal(path, new_summary()) as journal:
        journal.index()
        assert journal.find(key(1)) is not None
        assert journal.find(key(2)) is None
        journal.keep([("write", Reply(key(2), "answered", text="x"))])
    assert path.read_bytes() == whole


def test_what_a_worker_left_is_taken_in_once_wherever_the_run_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, undisturbed = tmp_path / "replies.jsonl", tmp_path / "undisturbed.jsonl"
    items: list[JournalEntry] = [("write", Reply(key(number), "unreachable", attempts=2)) for number in range(5)]
    parts = [part_file(parts_folder(path), start) for start in (0, 256)]
    parts[0].parent.mkdir()
    for file, replies in ((undisturbed, items), (path, items[:1]), (parts[0], items[1:3]), (parts[1], items[3:])):
        with Journal(file, new_summary()) as journal:
            journal.keep(replies)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for _ in range(4):
        for name in ("unlink", "rename"):
            with (
                monkeypatch.context() as patch,
                pytest.raises(KeyboardInterrupt),
                Journal(path, new_summary()) as journal,
            ):
                patch.setattr(Path, name, killed)
                journal.index()
    summary = new_summary()
    with Journal(path, summary) as journal:
        journal.index()
        journal.keep([], part=parts[0])  # of a batch that asked nothing
    assert (summary.replies.requests, summary.replies.attempts) == (5, 10)
    assert path.read_bytes() == undisturbed.read_bytes() and not any(parts[0].parent.iterdir())


def test_a_full_disk_is_named_and_the_run_continues_later(tmp_path: Path) -> None:
    undisturbed, out = tmp_path / "undisturbed.jsonl", tmp_path / "negatives.jsonl"
    run(undisturbed, UnsteadyModel(varied))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size, file in ((3000, r"replies\.jsonl"), (5000, "negatives")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            with pytest.raises(DeglaError, match=f"{file}.*cannot be written: File too large"):
                run(out, UnsteadyModel(varied, shuffle=1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    run(out, UnsteadyModel(varied))
    assert out.read_bytes() == undisturbed.read_bytes()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Choose another --out"):
        run(tmp_path / "file" / "negatives.jsonl", UnsteadyModel(varied))
    with pytest.raises(InputError, match="Choose another --out"):
        run(Path("/proc/negatives.jsonl"), UnsteadyModel(varied))
