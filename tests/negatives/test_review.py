"""Selecting examples: the state compared with a simple model, the files after every decision, the terminal."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from rich.console import Console

from degla.app.review_page import ReviewPage, _handler
from degla.app.review_terminal import review_in_terminal
from degla.errors import DeglaError, InputError
from degla.negatives.differences import mark_words
from degla.negatives.examples import ExampleEntry, read_examples, write_examples
from degla.negatives.review import Decision, Draft, Review, ReviewState, draft_key, judge_text
from degla.records import write_jsonl

DRAFTS = [
    Draft(rule=rule_name, caption=f"A {one} sees a goat.", negative=f"A {new} sees a {old}.", accepted=True)
    for rule_name, old in (("swap_nouns", "horse"), ("replace_nouns", "goat"))
    for one, new in (("dog", "cat"), ("cow", "pig"), ("fox", "owl"))
]
OWN = ExampleEntry(caption="A man sees a dog.", negative="A dog sees a man.", note="mine")


def texts(review: Review, rule_name: str) -> list[tuple[str, str]]:
    file = review.file(rule_name)
    if not file.exists():
        return []
    return [(entry.caption, entry.negative) for entry in read_examples(file, rule=rule_name)]


class ReviewMachine(RuleBasedStateMachine):
    """Compare any sequence of keys, including kills, with a list of (draft, text or None)."""

    @initialize(own=st.booleans())
    def begin(self, own: bool) -> None:
        self.folder = TemporaryDirectory()
        self.out = Path(self.folder.name) / "out"
        if own:
            write_examples(self.out / "swap_nouns.yaml", [OWN], rule="swap_nouns")
        self.own = [(OWN.caption, OWN.negative)] if own else []
        self.history: list[tuple[int, str | None]] = []
        self.shown = 0
        self.open()

    def open(self) -> None:
        self.review = Review(DRAFTS, log=Path(self.folder.name) / "log.jsonl", out=self.out)
        self.review.__enter__()

    def next_open(self, place: int) -> int:
        decided = {draft for draft, _ in self.history}
        order = [*range(place + 1, len(DRAFTS)), *range(place + 1)]
        return next((other for other in order if other not in decided), place)

    def decide(self, text: str | None) -> None:
        counted = dict(self.history)
        if self.shown not in counted or counted[self.shown] != text:
            self.history.append((self.shown, text))
        self.shown = self.next_open(self.shown)

    @rule()
    def accept(self) -> None:
        text = dict(self.history).get(self.shown) or DRAFTS[self.shown].negative
        self.review.decide(self.review.state.accept(self.review.state.text()))
        self.decide(text)

    @rule(word=st.sampled_from(["boat", "train", "tree"]))
    def edit(self, word: str) -> None:
        self.review.decide(self.review.state.accept(f" A {word}  sees a goat."))
        self.decide(f"A {word} sees a goat.")

    @rule()
    def reject(self) -> None:
        self.review.decide(self.review.state.reject())
        self.decide(None)

    @rule()
    def undo(self) -> None:
        decision = self.review.state.undo()
        assert (decision is None) == (not self.history)
        if decision is not None:
            self.review.decide(decision)
            self.shown, _ = self.history.pop()

    @rule()
    def skip(self) -> None:
        self.review.state.skip()
        self.shown = self.next_open(self.shown)

    @rule(step=st.sampled_from([-1, 1]))
    def move(self, step: int) -> None:
        self.review.state.move(step)
        self.shown = min(max(self.shown + step, 0), len(DRAFTS) - 1)

    @rule(torn=st.sampled_from([b"", b'{"action":"acc']))
    def kill(self, torn: bytes) -> None:
        self.review.__exit__(None, None, None)
        with self.review.log.open("ab") as stream:
            stream.write(torn)
        self.open()
        self.shown = self.next_open(len(DRAFTS) - 1)

    @invariant()
    def agrees(self) -> None:
        state, counted = self.review.state, dict(self.history)
        assert state.position == self.shown
        assert (state.decided, state.is_done) == (len(counted), len(counted) == len(DRAFTS))
        accepted = {place: text for place, text in counted.items() if text is not None}
        assert [(draft, text) for draft, text in state.accepted] == [(DRAFTS[k], accepted[k]) for k in sorted(accepted)]
        for rule_name in ("swap_nouns", "replace_nouns"):
            wanted = [(DRAFTS[k].caption, v) for k, v in accepted.items() if DRAFTS[k].rule == rule_name]
            own = self.own if rule_name == "swap_nouns" else []
            assert sorted(texts(self.review, rule_name)) == sorted([*own, *wanted])

    def teardown(self) -> None:
        if hasattr(self, "review"):
            self.review.__exit__(None, None, None)
            self.folder.cleanup()


ReviewMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20)
test_any_sequence_of_keys = ReviewMachine.TestCase


@pytest.fixture
def review(tmp_path: Path) -> Iterator[Review]:
    with Review(DRAFTS, log=tmp_path / "log.jsonl", out=tmp_path / "out") as opened:
        yield opened


def test_a_decision_that_reached_only_the_log_reaches_the_file_later(review: Review) -> None:
    review.decide(review.state.accept())
    review.__exit__(None, None, None)
    decision = Decision(action="accept", key=draft_key(DRAFTS[1]), negative="A pig sees a boat.")
    with review.log.open("a") as stream:
        stream.write(decision.model_dump_json() + "\n")
    with Review(DRAFTS, log=review.log, out=review.out) as later:
        assert texts(later, "swap_nouns") == [
            (DRAFTS[0].caption, DRAFTS[0].negative),
            (DRAFTS[1].caption, "A pig sees a boat."),
        ]
        write_examples(later.file("swap_nouns"), [OWN], rule="swap_nouns")
        later.decide(later.state.reject())
    with Review(DRAFTS, log=review.log, out=review.out) as last:
        assert texts(last, "swap_nouns") == [(OWN.caption, OWN.negative)], "what was taken out by hand stays out"
    with Review(DRAFTS, log=review.log, out=review.out.with_name("other")) as elsewhere:
        assert len(texts(elsewhere, "swap_nouns")) == 2, "a new file gets all that is accepted"


def test_a_lost_file_is_written_once_however_many_texts_were_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = [draft for draft in DRAFTS if draft.rule == "swap_nouns"]
    files = {"log": tmp_path / "log.jsonl", "out": tmp_path / "out.yaml"}
    with Review(drafts, **files) as review:
        for _ in drafts:
            review.act("accept")
        accepted = texts(review, "swap_nouns")
    files["out"].unlink()
    written: list[int] = []

    def count(path: Path, entries: list[ExampleEntry], *, rule: str) -> None:
        written.append(len(entries))
        write_examples(path, entries, rule=rule)

    monkeypatch.setattr("degla.negatives.review.write_examples", count)
    with Review(drafts, **files) as review:
        assert texts(review, "swap_nouns") == accepted and written == [len(drafts)]


def test_a_full_disk_takes_no_decision(review: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line was written later, with the next decision, whose "undo" the next review then refused."""
    review.act("accept")
    write, writes = os.write, 0

    def full(file: int, line: bytes) -> int:
        nonlocal writes
        writes += 1
        if writes > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, line[:5])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(DeglaError, match="cannot be written: the disk is full"):
            review.act("accept")
    assert review.state.decided == 1
    review.act("undo")
    review.__exit__(None, None, None)
    with Review(DRAFTS, log=review.log, out=review.out) as later:
        assert later.state.decided == 0


def test_a_text_whose_file_could_not_be_written_follows(review: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, entries: list[ExampleEntry], *, rule: str) -> None:
        raise InputError(f"{path}: cannot be written")

    with monkeypatch.context() as patch:
        patch.setattr("degla.negatives.review.write_examples", fail)
        with pytest.raises(InputError, match="cannot be written"):
            review.act("accept")
    assert review.state.decided == 1 and not texts(review, "swap_nouns")
    review.act("accept")
    assert texts(review, "swap_nouns") == [(draft.caption, draft.negative) for draft in DRAFTS[:2]]


def test_a_text_whose_file_could_not_be_written_follows_at_the_end(
    review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("degla.negatives.review.write_examples", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            review.act("accept")
    review.__exit__(None, None, None)
    assert texts(review, "swap_nouns") == [(DRAFTS[0].caption, DRAFTS[0].negative)]


def test_a_text_that_two_drafts_of_a_caption_became_stays_while_one_counts(tmp_path: Path) -> None:
    alike = [DRAFTS[0].model_copy(update={"negative": f"A {word} sees a horse."}) for word in ("boat", "tree")]
    with Review(alike, log=tmp_path / "log", out=tmp_path / "out") as review:
        review.act("accept", "A train sees a horse.")
        review.act("accept", "A train sees a horse.")
        review.act("undo")
        assert texts(review, "swap_nouns") == [(DRAFTS[0].caption, "A train sees a horse.")]
        review.act("undo")
        assert not texts(review, "swap_nouns")


def test_decisions_on_drafts_that_are_gone_are_passed_over(review: Review) -> None:
    for _ in range(3):
        review.decide(review.state.accept())
    review.__exit__(None, None, None)
    with Review(DRAFTS[2:], log=review.log, out=review.out) as later:
        assert later.state.decided == 1


def test_a_resumed_review_looks_for_an_open_draft_once(review: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        review.act("reject")
    review.__exit__(None, None, None)
    search, searches = ReviewState._next_open, []
    monkeypatch.setattr(ReviewState, "_next_open", lambda *where: searches.append(where) or search(*where))
    with Review(DRAFTS, log=review.log, out=review.out) as later:
        assert later.state.position == 3 and len(searches) == 1, "a search for each decision of the log is quadratic"


def test_one_text_by_two_rules_is_decided_for_each(tmp_path: Path) -> None:
    alike = [DRAFTS[0], DRAFTS[0].model_copy(update={"rule": "swap_phrases"})]
    with Review(alike, log=tmp_path / "log", out=tmp_path / "out") as review:
        review.act("accept")
        assert review.state.decided == 1 and not review.state.is_done


def test_drafts_of_repeated_captions_are_shown_once(tmp_path: Path) -> None:
    twice = [draft.model_copy(update={"caption_id": "7"}) for draft in DRAFTS[:2]]
    with Review([*DRAFTS, *twice], log=tmp_path / "log", out=tmp_path / "out") as review:
        assert list(review.state.drafts) == DRAFTS


def test_wrong_files_are_named(review: Review, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another review"), Review(DRAFTS, log=review.log, out=review.out):
        pass
    with pytest.raises(InputError, match="Give a folder as --out"):
        Review(DRAFTS, log=tmp_path / "a", out=tmp_path / "one.yaml")
    with pytest.raises(InputError, match="no drafts"):
        Review([], log=tmp_path / "a", out=tmp_path / "out")
    (tmp_path / "b").write_text('{"action": "sing", "key": "0"}\n')
    with pytest.raises(InputError, match="line 1: field 'action'"), Review(DRAFTS, log=tmp_path / "b", out=review.out):
        pass
    (tmp_path / "c").write_text("nonsense\n{}\n")
    with pytest.raises(InputError, match="line 1: not JSON"), Review(DRAFTS, log=tmp_path / "c", out=review.out):
        pass
    undo = Decision(action="undo", key=draft_key(DRAFTS[0])).model_dump_json() + "\n"
    (tmp_path / "d").write_text(undo)
    with pytest.raises(InputError, match="d line 1: only the last"), Review(DRAFTS, log=tmp_path / "d", out=review.out):
        pass
    later = [Decision(action="reject", key=draft_key(draft)).model_dump_json() + "\n" for draft in DRAFTS[:2]]
    (tmp_path / "e").write_text("".join([*later, undo]))
    with pytest.raises(InputError, match="e line 3: only the last"), Review(DRAFTS, log=tmp_path / "e", out=review.out):
        pass
    with pytest.raises(InputError, match="is the same as the caption"):
        review.state.accept("a dog, sees a GOAT")
    with pytest.raises(InputError, match="no words"):
        review.state.accept(" .")


@pytest.mark.parametrize(
    ("caption", "negative", "old", "new"),
    [
        ("A dog sees a cat.", "A cat sees a dog.", ["dog", "cat."], ["cat", "dog."]),
        ("A dog runs", "A spotted dog runs", [], ["spotted"]),
        ("There is a boat.", "there is no boat", ["a"], ["no"]),
        ("a b", "c d", ["a b"], ["c d"]),
        ("dog runs on grass", "a dog runs on", ["grass"], ["a"]),
        ("same", "same", [], []),
    ],
)
def test_changed_words_are_marked(caption: str, negative: str, old: list[str], new: list[str]) -> None:
    pieces = mark_words(caption, negative)
    assert ["".join(piece for piece, _ in side) for side in pieces] == [caption, negative]
    assert [[piece for piece, changed in side if changed] for side in pieces] == [old, new]


def test_an_edited_text_is_judged_by_the_rule() -> None:
    draft = DRAFTS[0]
    assert judge_text(draft, "A goat sees a dog.").accepted
    assert judge_text(draft, "A goat sees a fox.").reason == "not_rule"


def run_terminal(review: Review, keys: str) -> str:
    console = Console(file=io.StringIO(), width=100)
    review_in_terminal(review, keys=io.StringIO(keys), console=console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_lines_of_keys_decide(review: Review) -> None:
    text = run_terminal(review, "a\n\nx\nu\nA\nr\ne A goat sees a fox.\ns\ne\nA goat sees a boat.\nu\nu\nb\nr\nq\na\n")
    assert "unknown key 'x'" in text and "not_rule" in text
    assert [review.state.choice(draft_key(draft)) for draft in DRAFTS] == [
        Decision(action="accept", key=draft_key(DRAFTS[0]), negative=DRAFTS[0].negative),
        Decision(action="reject", key=draft_key(DRAFTS[1])),
        None,
        None,
        None,
        None,
    ]
    text = run_terminal(review, "u\nu\nu\nu\nQ\na\n")
    assert "nothing to undo" in text and "unknown key" not in text and "0 of 6 decided, 0 accepted" in text
    assert texts(review, "swap_nouns") == []


def test_a_name_in_brackets_is_shown(
    review: Review, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(review, "file", lambda _: Path("drafts/[new]/[/old]/rule.yaml"))
    review_in_terminal(review, keys=io.StringIO("q"))
    assert "drafts/[new]/[/old]/rule.yaml" in capsys.readouterr().out


def test_the_end_of_the_input_is_no_loss(review: Review) -> None:
    assert "2 of 6 decided, 1 accepted" in run_terminal(review, "a\nr")
    assert "6 of 6 decided, 5 accepted" in run_terminal(review, "a\n" * 9)
    assert "6 of 6 decided" in run_terminal(review, "")


def test_a_full_disk_is_said_and_the_review_goes_on(review: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was an unexpected error of the page, and ended the review in a terminal."""

    def fail(path: Path, entries: list[ExampleEntry], *, rule: str) -> None:
        raise DeglaError("the disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr("degla.negatives.review.write_examples", fail)
        assert "the disk is full" in run_terminal(review, "a\ns\n")
        shown = _handler(ReviewPage(review), "accept")(review.state.key, review.state.text(), "")
        assert "the disk is full" in shown.verdict
        assert (shown.key, shown.text) == (review.state.key, review.state.text()), "not the text of the draft before"
    review.act("reject")
    assert len(texts(review, "swap_nouns")) == review.state.decided - 1 == 2


def test_a_terminal_without_single_keys_gives_lines(review: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "termios", None)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    review_in_terminal(review, keys=Terminal("a\ne\nA goat sees a fox.\n"), console=Console(file=io.StringIO()))
    assert review.state.decided == 2


def test_an_arrow_of_a_terminal_decides_nothing(review: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    import tty

    person, terminal = os.openpty()
    pressed = [b"\x1b[A", b"\x1b[1;5D", b"\x1bOA", b"\x1br", b"a", b"q"]  # three arrows; escape, then r
    set_to_keys = tty.setcbreak

    def press(keys: TextIO) -> None:
        set_to_keys(keys)  # drops what was pressed before
        os.write(person, pressed.pop(0))

    monkeypatch.setattr(tty, "setcbreak", press)
    console = Console(file=io.StringIO(), width=100)
    with os.fdopen(terminal, encoding="utf-8") as keys:
        review_in_terminal(review, keys=keys, console=console)
    os.close(person)
    assert [review.state.choice(draft_key(draft)) for draft in DRAFTS[:2]] == [
        Decision(action="reject", key=draft_key(DRAFTS[0])),
        Decision(action="accept", key=draft_key(DRAFTS[1]), negative=DRAFTS[1].negative),
    ]
    assert not pressed and review.state.decided == 2


def test_the_command_through_a_pipe(tmp_path: Path) -> None:
    drafts = tmp_path / "drafts.jsonl"
    write_jsonl(drafts, DRAFTS)
    command = [sys.executable, "-m", "degla", "examples", "review", str(drafts), "--out", str(tmp_path / "mine.yaml")]
    done = subprocess.run(
        [*command, "--rules", "replace_nouns"], input="a\nr\na\n", capture_output=True, text=True, check=True
    )
    assert "3 of 3 decided, 2 accepted" in done.stdout
    written = read_examples(tmp_path / "mine.yaml", rule="replace_nouns")
    assert [entry.negative for entry in written] == [DRAFTS[3].negative, DRAFTS[5].negative]
    wrong = subprocess.run([*command, "--rules", "swap_noun"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "Did you mean 'swap_nouns'" in wrong.stderr
