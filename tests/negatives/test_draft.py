"""Drafting: which captions are drawn, what is kept next to a draft, resuming, and negatives as drafts."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from degla.cli import main
from degla.errors import DeglaError, InputError
from degla.negatives.generate import NegativesSettings
from degla.negatives.grammar.phrases import parse_one
from degla.negatives.llm import Request
from degla.negatives.review import Draft, draft_examples, draw_captions
from degla.negatives.rule import load_rule
from degla.negatives.run.summary import Summary
from degla.records import CaptionRecord, read_jsonl, write_jsonl
from tests.negatives.scripted_runs import UnsteadyModel

ANIMALS = ("dog", "cat", "goat", "cow", "fox", "bear", "mouse", "duck")
CAPTIONS = [
    CaptionRecord(
        id=f"{one}-{other}", image=f"{one}.jpg", image_id=f"{one}-{other}", text=f"A {one} stands behind a {other}."
    )
    for one in ANIMALS
    for other in ANIMALS
    if one != other
]
CAPTIONS += [
    CaptionRecord(id="french", image="f.jpg", image_id="f", text="Un chat noir dort sur le canapé rouge"),
    CaptionRecord(id="plain", image="p.jpg", image_id="p", text="Raining."),
]


SETTINGS = NegativesSettings(("swap_nouns",), 0)


def answer(request: Request) -> str:
    """Swaps if the first animal is a dog, else breaks the rule."""
    words = request.caption.rstrip(".").split()
    if words[1] == "dog":
        words[1], words[-1] = words[-1], words[1]
        return " ".join(words) + "."
    return "A " + request.caption.split(" ", 1)[1].replace("behind", "near")


def draft(out: Path, model: UnsteadyModel | None, **settings: object) -> int:
    chosen = {"count": 20, "progress": False} | settings
    return draft_examples(CAPTIONS, SETTINGS, model=model, out=out, **chosen)[0]  # type: ignore[arg-type]


def test_drafts_carry_the_verdict_and_where_they_come_from(tmp_path: Path) -> None:
    model = UnsteadyModel(answer, forms=("write",))
    assert draft(tmp_path / "drafts.jsonl", model) == 20
    drafts = list(read_jsonl(Draft, tmp_path / "drafts.jsonl"))
    by_id = {record.id: record for record in CAPTIONS}
    for one in drafts:
        record = by_id[one.caption_id]
        assert (one.caption, one.source) == (record.text, "scripted")
        good = record.text.startswith("A dog")
        assert (one.accepted, one.reason) == (good, "" if good else "not_rule")
    assert {one.accepted for one in drafts} == {True, False}
    assert len({one.caption_id for one in drafts}) == 20
    examples = {message.content for request in model.requests for message in request.chat[1:-1]}
    assert len(examples) > 20, "examples are drawn anew for each caption"
    assert all(len(request.chat) == 2 + 2 * 5 for request in model.requests)


def test_captions_are_drawn_at_random_among_those_that_the_rule_can_change() -> None:
    draws = [draw_captions(CAPTIONS, rule="swap_nouns", count=20, seed=seed) for seed in range(2)]
    assert draws[0] != draws[1]
    assert draws[0] == draw_captions(CAPTIONS[::-1], rule="swap_nouns", count=20, seed=0)
    every = draw_captions(CAPTIONS, rule="swap_nouns", count=1000, seed=0)
    assert {record.id for record in every} == {record.id for record in CAPTIONS[:-2]}
    rule = load_rule("swap_adjectives")
    assert all(
        rule.ask(parse_one(one.text), ()) for one in draw_captions(CAPTIONS, rule="swap_adjectives", count=9, seed=0)
    )


def test_without_a_model_that_writes_the_grammar_can_change_every_caption_that_is_drawn(tmp_path: Path) -> None:
    """ "A dog and a cat." has two nouns, and no exchange of them makes it false."""
    animals = ("dog", "cat", "horse", "cow", "sheep", "goat", "bird", "duck", "pig")
    texts = [f"A {one} and a {other}." for one, other in combinations(animals, 2)][:30]
    texts += [f"A man sits behind a {one}." for one in (*animals, "woman")]
    captions = [
        CaptionRecord(id=str(number), image="a.jpg", text=text, image_id="a") for number, text in enumerate(texts)
    ]
    chosen = {"out": tmp_path / "drafts.jsonl", "count": 8, "progress": False}
    settings = replace(SETTINGS, form="write")  # As the command has it.
    assert draft_examples(captions, settings, model=None, **chosen)[0] == 8  # type: ignore[arg-type]
    written = draw_captions(captions, rule="swap_nouns", count=40, seed=0)
    assert len(written) == 40, "a model that writes may see more than the grammar"


def test_equal_captions_are_drawn_once(tmp_path: Path) -> None:
    texts = ["A dog sits behind a cat."] * 9 + ["A man rides a horse."]
    captions = [CaptionRecord(id=str(n), image="a.jpg", text=text, image_id="a") for n, text in enumerate(texts)]
    chosen = {"out": tmp_path / "drafts.jsonl", "count": 8, "progress": False}
    assert draft_examples(captions, SETTINGS, model=None, **chosen)[0] == 2  # type: ignore[arg-type]


def test_a_rule_that_changes_few_captions_finds_one() -> None:
    """A hundred captions drawn for one may have none that it can change."""
    captions = [
        CaptionRecord(
            id=str(number), image="a.jpg", text="Raining." if number else "A dog sits behind a cat.", image_id="a"
        )
        for number in range(600)
    ]
    assert [draw_captions(captions, rule="swap_nouns", count=1, seed=seed)[0].id for seed in range(5)] == ["0"] * 5


def test_no_captions_make_no_drafts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"count \(0\) must be 1 or more"):
        draft(tmp_path / "drafts.jsonl", None, count=0)


def test_the_same_call_continues_and_pays_nothing_twice(tmp_path: Path) -> None:
    draft(tmp_path / "whole.jsonl", UnsteadyModel(answer, forms=("write",)))
    out = tmp_path / "drafts.jsonl"
    stopped = UnsteadyModel(answer, forms=("write",), capacity=4, fail_after=9)
    with pytest.raises(DeglaError, match="cannot be reached"):
        draft(out, stopped)
    later = UnsteadyModel(answer, forms=("write",), capacity=4)
    assert draft(out, later) == 20
    assert len(later.requests) == 11
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_the_grammar_drafts_without_a_model(tmp_path: Path) -> None:
    assert draft(tmp_path / "drafts.jsonl", None, count=5) == 5
    assert all(one.accepted and one.source == "rules" for one in read_jsonl(Draft, tmp_path / "drafts.jsonl"))


def test_wrong_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can change none of the captions"):
        draft_examples(CAPTIONS[-2:], SETTINGS, model=None, out=tmp_path / "a.jsonl", progress=False)
    (tmp_path / "b.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="Choose another --out"):
        draft(tmp_path / "b.jsonl", None)
    with pytest.raises(InputError, match="line 1: field 'rule'"):
        list(read_jsonl(Draft, tmp_path / "b.jsonl"))


def test_the_command_drafts_by_a_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions, script, out = tmp_path / "captions.jsonl", tmp_path / "script.jsonl", tmp_path / "drafts.jsonl"
    write_jsonl(captions, CAPTIONS[:3])
    lines = [{"caption": one.text, "rule": "swap_nouns", "text": f"Bad {one.text}"} for one in CAPTIONS[:3]]
    script.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["examples", "draft", "--rule", "swap_nouns", "--captions", str(captions), "--out", str(out)]
    assert main([*command, "--llm", "scripted", "--script", str(script)]) == 0
    drafts = list(read_jsonl(Draft, out))
    assert {one.source for one in drafts} == {"scripted"} and len(drafts) == 3
    assert {one.negative for one in drafts if not one.accepted} == {line["text"] for line in lines}
    assert f"{len(drafts)} drafts in" in capsys.readouterr().out
    assert main([*command, "--script", str(script)]) == 2
    assert "--script requires --llm scripted" in capsys.readouterr().err
    assert main([*command[:3], "swap_noun", *command[4:]]) == 2


def test_a_model_that_never_answers_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions, script = tmp_path / "captions.jsonl", tmp_path / "script.jsonl"
    write_jsonl(captions, CAPTIONS[:3])
    script.write_text("")
    command = ["examples", "draft", "--rule", "swap_nouns", "--captions", str(captions), "--llm", "scripted"]
    assert main([*command, "--script", str(script), "--out", str(tmp_path / "drafts.jsonl")]) == 1
    output = capsys.readouterr()
    assert "model_empty" in output.out and "run the same command again to resume" in output.err.lower()


def test_a_request_without_an_answer_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions, script = tmp_path / "captions.jsonl", tmp_path / "script.jsonl"
    write_jsonl(captions, CAPTIONS[:2])
    first, second = ({"caption": one.text, "rule": "swap_nouns"} for one in CAPTIONS[:2])
    script.write_text(f"{json.dumps(first | {'text': 'A goat.'})}\n{json.dumps(second | {'outcome': 'unreachable'})}\n")
    command = ["examples", "draft", "--rule", "swap_nouns", "--captions", str(captions), "--llm", "scripted"]
    assert main([*command, "--script", str(script), "--out", str(tmp_path / "drafts.jsonl")]) == 1
    assert "1 draft in" in (printed := capsys.readouterr().out) and "the same command asks again" in printed


def test_a_signal_before_the_first_draft_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "degla.negatives.review.draft_examples", lambda *_, **__: (0, Summary(("swap_nouns",), 0, stopped="SIGTERM"))
    )
    write_jsonl(tmp_path / "captions.jsonl", CAPTIONS[:3])
    command = ["examples", "draft", "--rule", "swap_nouns", "--captions", str(tmp_path / "captions.jsonl")]
    assert main([*command, "--out", str(tmp_path / "drafts.jsonl")]) == 143
    assert "0 drafts" not in capsys.readouterr().out
