"""The review page in a real browser: keys, files, a killed server, no requests elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from degla.app.review_page import PageAction, ReviewPage, build
from degla.errors import InputError
from degla.negatives.review import Draft, Review, draft_key
from degla.records import read_jsonl, write_jsonl
from tests.app.visitor import Visitor, served_here
from tests.launch import Program, start

ANIMALS = ("dog", "cat", "horse", "goat", "cow", "duck", "fox", "bear", "lion", "mouse", "rabbit", "swan")
DRAFTS = [
    Draft(
        rule="swap_nouns",
        caption=f"A {one} stands behind a {other}.",
        negative=f"A {other} stands behind a {one}." if place % 5 else f"A {one} stands near a {other}.",
        accepted=place % 5 != 0,
        reason="" if place % 5 else "not_rule",
        source="scripted_by_a_model_with_a_long_name_in_a_file_without_spaces",
    )
    for place, (one, other) in enumerate(
        [(one, other) for one in ANIMALS[:5] for other in ANIMALS[5:9]],
    )
]


@pytest.fixture
def drafts(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "drafts.jsonl", DRAFTS)
    return tmp_path / "drafts.jsonl"


@contextmanager
def served(drafts: Path) -> Iterator[tuple[str, Program]]:
    """The address of a running page, and its process."""
    words = ["-m", "degla", "examples", "review", str(drafts), "--page", "--port", "0"]
    words += ["--out", str(drafts.parent / "out")]
    program = start(words, environment={"NO_PROXY": "*"})
    try:
        while (address := re.search(r"http://127\.0\.0\.1:\d+(?=\s)", program.stdout)) is None:
            assert program.process.is_alive(), f"the page did not start: {program.stderr}"
            time.sleep(0.05)
        yield address.group(), program
    finally:
        program.process.kill()
        program.wait()


def review_of(drafts: Path) -> Review:
    """Reload the page, with the decisions made so far."""
    log = drafts.with_name(f"{drafts.name}.review.jsonl")
    return Review(list(read_jsonl(Draft, drafts)), log=log, out=drafts.parent / "out")


def test_twenty_drafts_by_keyboard_over_a_kill(browser: Any, drafts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = drafts.parent / "out" / "swap_nouns.yaml"
    with served(drafts) as (address, program):
        person = Visitor(browser, address, until="#review-texts h1")
        person.expect("#review-verdict", "not_rule")
        person.press("u")
        person.expect("#review-verdict", "there is nothing to undo")
        person.press("r")  # 0
        person.expect("#review-verdict", "checks passed")
        for _ in range(4):
            person.press("a")  # 1 to 4
        person.tab.keyboard.press("e")  # 5: rejected, then edited
        person.tab.keyboard.press("ControlOrMeta+a")
        person.tab.keyboard.type("A bear stands behind a cat.")
        person.expect("#review-verdict", "not_rule")
        person.tab.keyboard.press("ControlOrMeta+a")
        person.tab.keyboard.type("A fox stands behind a cat.")
        person.expect("#review-texts", "A fox stands behind a cat.")
        person.expect("#review-verdict", "checks passed")
        person.press("ControlOrMeta+Enter")
        person.press("r")  # 6 ...
        person.press("u")
        person.expect("#review-progress", "6 of 20 decided: 5 accepted, 1 rejected")
        person.press("ArrowRight")
        person.press("a")  # 7
        person.press("ArrowLeft")
        person.press("ArrowLeft")
        person.expect("#review-texts", DRAFTS[6].caption)
        person.press("a")  # 6 after all
        program.process.kill()
        program.wait()
        assert [trouble for trouble in person.troubles if "failed" not in trouble] == []
        person.tab.close()
    # A reloaded page, in this process; the start by command is tested above.
    monkeypatch.setenv("NO_PROXY", "*")
    with review_of(drafts) as review, served_here(build(ReviewPage(review))) as address:
        person = Visitor(browser, address, until="#review-texts h1", viewport={"width": 390, "height": 844})
        person.expect("#review-progress", "8 of 20 decided: 7 accepted, 1 rejected")
        person.expect("#review-texts", DRAFTS[8].caption)
        assert person.tab.evaluate("document.documentElement.scrollWidth") == 390
        assert person.tab.evaluate("document.querySelector('#review-text textarea').dir") == "auto"
        for place in range(8, 20):
            person.press("r" if place % 5 == 0 else "a")
        person.expect("#review-progress", "All drafts are decided")
        assert person.tab.locator("button:visible").evaluate_all("all => all.every(one => one.innerText.trim())")
        assert person.tab.get_by_label("Negative, as it will be accepted").count() == 1
        assert person.troubles == []
    texts = [draft.negative for draft in DRAFTS]
    order = [1, 2, 3, 4, 5, 7, 6, 8, 9, 11, 12, 13, 14, 16, 17, 18, 19]
    texts[5] = "A fox stands behind a cat."
    written = yaml.safe_load(file.read_text())
    assert written == {
        "rule": "swap_nouns",
        "examples": [{"caption": DRAFTS[place].caption, "negative": texts[place]} for place in order],
    }


@pytest.fixture
def page(drafts: Path) -> Iterator[ReviewPage]:
    with review_of(drafts) as review:
        yield ReviewPage(review)


def test_a_key_pressed_on_an_old_draft_decides_that_draft(page: ReviewPage) -> None:
    first, second = (draft_key(draft) for draft in DRAFTS[1:3])
    page.act("accept", first, DRAFTS[1].negative)
    page.act("accept", first, DRAFTS[1].negative)
    assert page.review.state.choice(second) is None
    assert len(page.review.log.read_text().splitlines()) == 1
    page.act("reject", f"{first} accept {DRAFTS[1].negative}", "")  # a tab that shows the decision
    assert page.review.state.accepted == []


@contextmanager
def _two_tabs(browser: Any, drafts: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Review, Visitor, Visitor]]:
    monkeypatch.setenv("NO_PROXY", "*")
    with review_of(drafts) as review, served_here(build(ReviewPage(review))) as address:
        one, other = (Visitor(browser, address, until="#review-texts h1") for _ in range(2))
        yield review, one, other


def test_a_tab_replaces_the_decision_of_another_one_only_once_it_shows_it(
    browser: Any, drafts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _two_tabs(browser, drafts, monkeypatch) as (review, one, other):
        one.press("a")
        other.press("r")
        other.expect("#review-verdict", f"another tab has accepted this draft as “{DRAFTS[0].negative}” meanwhile")
        assert [text for _, text in review.state.accepted] == [DRAFTS[0].negative]
        other.press("r")
        other.expect("#review-progress", "1 of 20 decided: 0 accepted, 1 rejected")
        other.press("ArrowLeft")
        other.press("a")
        other.expect("#review-progress", "1 of 20 decided: 1 accepted, 0 rejected")


def test_a_tab_undoes_its_own_decisions_and_those_before_it_was_opened(
    browser: Any, drafts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _two_tabs(browser, drafts, monkeypatch) as (review, one, other):
        one.press("a")
        other.press("u")
        other.expect("#review-verdict", "another tab made the last decision")
        other.press("ArrowRight")
        other.press("a")
        other.expect("#review-progress", "2 of 20 decided")
        other.press("u")
        other.expect("#review-progress", "1 of 20 decided")
        other.press("u")  # back at the other tab's
        other.expect("#review-verdict", "another tab made the last decision")
        assert [text for _, text in review.state.accepted] == [DRAFTS[0].negative]
        other.tab.reload()
        other.tab.wait_for_selector("#review-texts h1")
        other.expect("#review-progress", "1 of 20 decided")
        other.press("u")
        other.expect("#review-progress", "0 of 20 decided")
    with review_of(drafts) as review:
        assert review.state.history == []


@pytest.mark.parametrize("action", ["accept", "reject", "undo", "next"])
def test_a_tab_of_an_earlier_review_decides_nothing(page: ReviewPage, action: PageAction) -> None:
    page.act("accept", page.show().key, page.show().text)
    before = page.show()
    *shown, verdict, text, open_key = page.act(action, "0" * 16, "a text of another draft")
    assert "not in this review" in verdict
    assert (*shown, text, open_key) == (*before[:2], *before[3:])


def test_texts_are_shown_as_text(page: ReviewPage) -> None:
    key = draft_key(DRAFTS[0])
    texts, verdict = page.judge(key, "<script>alert(1)</script> & so on")
    assert "<script>" not in texts and "&lt;script&gt;" in texts and "&amp;" in texts
    assert texts.count('<dd dir="auto">') == 2, "a caption in any script"
    assert "not_rule" in verdict


def test_a_request_under_another_name_is_refused(page: ReviewPage) -> None:
    from fastapi.testclient import TestClient

    client = TestClient(build(page), base_url="http://127.0.0.1")
    assert client.get("/", headers={"host": "elsewhere.example"}).status_code == 403


def test_an_empty_text_is_not_accepted(page: ReviewPage) -> None:
    with pytest.raises(InputError, match="no words"):
        page.act("accept", draft_key(DRAFTS[1]), "  ")
    with pytest.raises(InputError, match="nothing to undo"):
        page.act("undo", draft_key(DRAFTS[1]), "")
