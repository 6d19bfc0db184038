"""The scripted model implements the language-model protocol, from a table, a function or a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from degla.cli import main
from degla.errors import DeglaError, InputError
from degla.negatives.llm import ChatMessage, Form, LanguageModel, Request, RequestKey, Slot
from degla.negatives.llm.scripted import ScriptedModel, read_script
from degla.negatives.run.summary import Summary
from degla.records import NegativeRecord
from tests.negatives.scripted_runs import UnsteadyModel

CHAT = (ChatMessage("user", "A dog"),)


def request(number: int, form: Form = "write", *, rule: str = "swap_nouns") -> Request:
    return Request(
        RequestKey(f"c{number}", rule, 0),
        form,
        CHAT,
        "A dog",
        choices=("A cat", "A cow") if form == "choose" else (),
        slots=(Slot("A", "", "dog"),) if form == "fill" else (),
    )


def test_a_table_answers_what_is_written() -> None:
    model = ScriptedModel({("A dog", "swap_nouns"): "A cat"})
    assert isinstance(model, LanguageModel)
    assert model.finished() == []
    model.start(request(0))
    model.start(request(1, rule="replace_nouns"))
    first, second = model.finished()
    assert (first.outcome, first.text) == ("answered", "A cat")
    assert (second.outcome, second.text) == ("empty", "")
    assert model.finished() == []


def test_without_an_answer_it_takes_the_first_choice_and_fills_nothing() -> None:
    model = ScriptedModel()
    model.start(request(0, "choose"))
    model.start(request(1, "fill"))
    chosen, filled = model.finished()
    assert (chosen.outcome, chosen.text) == ("answered", "A cat")
    assert (filled.outcome, filled.words) == ("answered", ((),))


def test_faults_are_given_once() -> None:
    model = UnsteadyModel({("A dog", "swap_nouns"): "A cat"}, faults={RequestKey("c0", "swap_nouns", 0): "cut_off"})
    for outcome in ("cut_off", "answered"):
        model.start(request(0))
        assert model.finished()[0].outcome == outcome


def test_shuffled_replies_all_come_and_in_another_order() -> None:
    model = UnsteadyModel({("A dog", "swap_nouns"): "A cat"}, shuffle=1)
    for number in range(30):
        model.start(request(number))
    order: list[str] = []
    while replies := model.finished():
        order += [reply.key.caption_id for reply in replies]
    assert sorted(order) == sorted(f"c{number}" for number in range(30))
    assert order != [f"c{number}" for number in range(30)]


def test_a_model_that_goes_away_hands_over_what_it_answered() -> None:
    model = UnsteadyModel({("A dog", "swap_nouns"): "A cat"}, fail_after=2)
    for number in range(3):
        model.start(request(number))
    assert [reply.key.caption_id for reply in model.finished()] == ["c0", "c1"]
    with pytest.raises(DeglaError, match="cannot be reached"):
        model.finished()
    model.close()
    assert model.finished() == []


def write_script(path: Path, *lines: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_file_answers_by_form_and_says_what_is_wrong_in_it(tmp_path: Path) -> None:
    line = {"caption": "A dog", "rule": "swap_nouns"}
    path = write_script(
        tmp_path / "script.jsonl",
        {**line, "text": "A cow"},
        {**line, "form": "fill", "text": "cat cow"},
        {**line, "form": "choose", "outcome": "implausible"},
    )
    model = read_script(path)
    for form in ("write", "fill", "choose"):
        model.start(request(0, form))  # type: ignore[arg-type]
    written, filled, chosen = model.finished()
    assert (written.text, filled.words, chosen.outcome) == ("A cow", (("cat", "cow"),), "implausible")
    digest = model.describe()["script_sha256"]
    write_script(path, {**line, "text": "A cat"})
    assert read_script(path).describe()["script_sha256"] != digest
    write_script(path, line, line)
    with pytest.raises(InputError, match="occurs twice"):
        read_script(path)
    write_script(path, {**line, "text": "x", "outcome": "lost"})
    with pytest.raises(InputError, match="line 1: field 'outcome'"):
        read_script(path)


TEXT = "A woman with a black umbrella walks across a wet street"


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    rows = [
        {"id": "one", "image": "1.jpg", "text": TEXT},
        {"id": "two", "image": "2.jpg", "text": "Ein Hund liegt auf dem Sofa und schläft"},
    ]
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_command_line_runs_a_script(tmp_path: Path, captions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = TEXT.replace("black", "white")
    script = write_script(
        tmp_path / "script.jsonl", {"caption": TEXT, "rule": "replace_adjectives", "text": f'"{answer}"'}
    )
    out = tmp_path / "negatives.jsonl"
    words = ["negatives", str(captions), "--out", str(out), "--llm", "scripted", "--script", str(script)]
    words += ["--rules", "replace_adjectives", "--examples", "0", "--json"]
    assert main(words) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["accepted"] == {"replace_adjectives": 1}
    assert summary["replies"] == {"answered": 1}
    assert summary["skipped_ids"] == {"not_english": ["two"]}
    first, second = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert (first["text"], first["form"], first["source"], first["accepted"]) == (answer, "write", "scripted", True)
    assert (second["caption_id"], second["reason"]) == ("two", "not_english")
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["requests"] == 1  # the journal has the reply
    assert main([*words[:-1], "--seed", "5"]) == 2
    assert "seed: was 0, now 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--llm", "openai", "--model", "m"], "--llm openai needs --base-url URL and --model NAME"),
        (["--model", "m"], "--model requires --llm openai or embedded"),
        (["--form", "choose"], "--form requires --llm openai or embedded or scripted"),
        (["--example-sets", "3"], "--example-sets requires --llm openai or embedded or scripted"),
        (["--llm", "scripted"], "--script FILE"),
        (["--max-tokens", "9"], "--max-tokens requires --llm openai"),
        (["--llm", "openai", "--base-url", "http://x/v1", "--model", "m", "--extra-body", "[]"], "no JSON object"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    tmp_path: Path, captions: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["negatives", str(captions), "--out", str(tmp_path / "out.jsonl"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_caption_is_skipped_only_if_it_is_too_long_itself() -> None:
    """A negative that is too long has the same reason, and a text."""
    summary = Summary(("add_object",), 2)
    row = {"rule": "add_object", "kind": "object", "source": "rules", "accepted": False, "reason": "over_context"}
    summary.add([NegativeRecord(caption_id="1", text="A dog beside a cat.", **row)])  # type: ignore[arg-type]
    summary.add([NegativeRecord(caption_id="2", text=None, **row)])  # type: ignore[arg-type]
    assert summary.skipped == {"over_context": 1} and summary.skipped_ids == {"over_context": ["2"]}
