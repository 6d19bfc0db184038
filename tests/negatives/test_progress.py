"""Progress and counts during a run."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path

import pytest
from rich.console import Console

from degla.negatives.generate import NegativesSettings, generate
from degla.negatives.llm import Reply, RequestKey
from degla.negatives.plan import plan_negatives
from degla.negatives.run.stream import BATCH
from degla.negatives.run.summary import Summary
from degla.progress import TaskProgress
from degla.records import CaptionRecord, NegativeRecord
from tests.negatives.scripted_runs import UnsteadyModel, run, varied


def row(caption: str, rule: str, *, reason: str = "") -> NegativeRecord:
    text = None if reason == "not_english" else "x"
    return NegativeRecord(
        caption_id=caption, rule=rule, kind="object", text=text, source="s", accepted=not reason, reason=reason
    )


def test_captions_are_counted_by_their_number_of_negatives() -> None:
    summary = Summary(rules=("one", "two"), captions=4)
    summary.add([row("a", "one")])
    summary.add([row("a", "two"), row("a", "two"), row("b", "one", reason="synonym")])
    summary.add([row("b", "two"), row("c", "one", reason="not_english"), row("c", "two", reason="not_english")])
    summary.add([row("d", "one", reason="over_context")] * 2)  # of a text that was made, so d is not skipped
    assert summary.coverage == {3: 1, 1: 1}
    assert (summary.share_covered, summary.mean) == (0.5, 1.0)
    assert summary.share_accepted == 4 / 9
    assert summary.covered == {"one": 1, "two": 2}
    assert (summary.skipped, summary.skipped_ids) == ({"not_english": 1}, {"not_english": ["c"]})
    console = Console(width=100, file=io.StringIO())
    console.print(summary.render())
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"\btwo\W+3\W+50.0%\W+not_english 1\b", shown) and "4 captions, 50.0% with at least one" in shown


def test_lines_tell_rate_time_left_accepted_and_failures(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr("degla.progress.time.monotonic", lambda: now)
    summary = Summary(rules=("one",), captions=20_000)
    bar = TaskProgress(True).task("negatives", 20_000, done=2_000, note=summary.describe)
    with caplog.at_level(logging.INFO, "degla"), bar as advance:
        summary.add([row("a", "one"), row("b", "one", reason="synonym")])
        summary.replies.add("write", Reply(RequestKey("a", "one", 0), "answered"))
        summary.replies.add("write", Reply(RequestKey("b", "one", 0), "malformed", attempts=2))
        now = 110.0
        advance(1_000)
        assert not caplog.records
        now = 131.0
        advance(0)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == "negatives: 3000 of 20000, 32.3/s, 0:08:47 left, 50% accepted, replies 2, malformed 1"


@pytest.mark.parametrize(("terminal", "bar"), [("xterm", True), ("dumb", False)])
def test_a_terminal_that_can_redraw_a_line_has_a_bar_and_another_has_lines(
    terminal: str, bar: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Names of arms and files with brackets are shown as they are."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    now = 100.0
    monkeypatch.setattr("degla.progress.time.monotonic", lambda: now)
    task = TaskProgress(True).task("captions [v2]", 12, note=lambda: "arm [old], [/x]")
    with caplog.at_level(logging.INFO, "degla"), task as advance:
        now = 200.0
        advance(3)
    shown = screen.getvalue() if bar else "".join(record.getMessage() for record in caplog.records)
    assert bool(screen.getvalue()) == bar and bool(caplog.records) != bar
    assert "captions [v2]" in shown and "arm [old], [/x]" in shown


def test_an_estimated_total_that_is_passed_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr("degla.progress.time.monotonic", lambda: now)
    with caplog.at_level(logging.INFO, "degla"), TaskProgress(True).task("rows", 164) as advance:
        now = 110.0
        advance(467)
    assert [record.getMessage() for record in caplog.records] == ["rows: 467, 46.7/s"]


def test_a_task_of_unknown_length_has_a_line_at_each_doubling(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr("degla.progress.time.monotonic", lambda: now)
    with caplog.at_level(logging.INFO, "degla"), TaskProgress(True).task("captions", None) as advance:
        for now, steps in ((103.0, 300), (106.0, 300), (112.0, 200), (115.0, 700), (149.0, 100)):  # noqa: B007 the clock reads it
            advance(steps)
    assert [record.getMessage() for record in caplog.records] == [
        "captions: 600, 100/s", "captions: 1500, 100/s", "captions: 1600, 32.7/s",
    ]  # fmt: skip


@pytest.mark.parametrize("dry", [False, True])
def test_the_first_pass_over_the_captions_is_shown(
    dry: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """It takes 18 s for 200,000 captions, before anything else is shown."""
    monkeypatch.setattr("degla.progress._SOONEST", 0.0)
    captions = [
        CaptionRecord(id=f"{number}", image="x.jpg", image_id=f"{number}", text="a dog chasing a cat")
        for number in range(BATCH + 1)
    ]
    settings = NegativesSettings(["swap_nouns"], seed=0)
    with caplog.at_level(logging.INFO, "degla"):
        if dry:
            plan_negatives(captions, settings)
        else:
            generate(captions, settings, out=tmp_path / "negatives.jsonl")
    assert caplog.messages[0].startswith("captions: 256, ")


def test_a_slow_task_has_a_rate_above_zero(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    monkeypatch.setattr("degla.progress.time.monotonic", lambda: now)
    with caplog.at_level(logging.INFO, "degla"), TaskProgress(True).task("training steps", 12) as advance:
        now = 200.0
        advance(3)
    assert [record.getMessage() for record in caplog.records] == ["training steps: 3 of 12, 0.03/s, 0:05:00 left"]


def test_no_time_left_is_reported_before_a_batch_has_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr("degla.progress.time.monotonic", lambda: now)
    summary = Summary(rules=("one",), captions=425)
    bar = TaskProgress(True).task("negatives", 425, warm_up=256, note=summary.describe)
    with caplog.at_level(logging.INFO, "degla"), bar as advance:
        summary.add([row("a", "one")])
        summary.replies.add("write", Reply(RequestKey("a", "one", 0), "answered"))
        now = 104.0
        advance(1)
        now = 108.0
        advance(49)
        now = 116.0
        advance(206)
    assert [record.getMessage() for record in caplog.records] == [
        "negatives: 50 of 425, 100% accepted, replies 1",
        "negatives: 256 of 425, 16.0/s, 0:00:11 left, 100% accepted, replies 1",
    ]


def test_a_stopped_run_says_what_it_keeps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Exception, match="cannot be reached"):
        run(tmp_path / "negatives.jsonl", UnsteadyModel(varied, fail_after=5, shuffle=1))
    assert "of 8 captions finished, 5 replies kept; run the same command again to resume." in caplog.text
