"""Longer true captions from a caption's own things and relations, as a column of positives."""

from __future__ import annotations

from pathlib import Path

import pytest

from degla.cli import main
from degla.errors import DeglaError
from degla.negatives.grammar import words
from degla.negatives.grammar.phrases import parse_one
from degla.negatives.llm import ReplyStatus, Request, RequestKey
from degla.negatives.run.asking import saved_replies
from degla.negatives.units import context_of, with_contexts
from degla.negatives.written import ContextWriter
from degla.records import CaptionRecord, read_jsonl, write_jsonl
from tests.negatives.scripted_runs import UnsteadyModel


def test_a_context_says_things_and_relations_once_more() -> None:
    caption = parse_one("A brown dog on a red sofa near two cats.")
    relations = "a brown dog on a red sofa and a red sofa near two cats"
    things = "We can see a brown dog, a red sofa and two cats"
    sentence = "A brown dog on a red sofa near two cats"
    assert [context_of(caption, number=number) for number in range(5)] == [
        f"{sentence}. {things}.",
        f"{things}. {sentence}.",
        f"{sentence}: {relations}. {things}.",
        f"{things}: {relations}. {sentence}.",
        f"{sentence}. {things}.",
    ]


def test_a_relation_that_is_the_caption_is_not_repeated() -> None:
    caption = parse_one("a dog on a sofa")
    expected = {"a dog on a sofa. We can see a dog and a sofa.", "We can see a dog and a sofa. A dog on a sofa."}
    assert {context_of(caption, number=number) for number in range(8)} == expected


@pytest.mark.parametrize("text", ["Raining.", "A brown dog", "Running fast!"])
def test_captions_that_name_nothing_besides_have_none(text: str) -> None:
    assert context_of(parse_one(text), number=0) is None


def test_a_context_has_no_word_that_the_caption_has_not() -> None:
    for text in ("A man rides a horse through the water.", "Two green apples and a knife lie on a wooden table."):
        for number in range(4):
            context = context_of(parse_one(text), number=number)
            assert context is not None
            assert set(words.content(context)) <= {*words.content(text), "we", "can", "see", "and"}, context


def _records() -> list[CaptionRecord]:
    texts = ["A dog on a sofa.", "Raining.", "A cat near a blue car."]
    return [
        CaptionRecord(id=str(n), image=f"{n}.png", image_id=str(n), text=text, positives=("Known.",) if n else ())
        for n, text in enumerate(texts)
    ]


def test_contexts_stand_before_other_positives_and_follow_the_seed() -> None:
    records = list(with_contexts(_records(), seed=0))
    assert records[1] == _records()[1]
    assert len(records[0].positives) == 1 and records[2].positives[1:] == ("Known.",)
    assert records == list(with_contexts(_records(), seed=0))
    seeds = {tuple(each.positives[0] for each in with_contexts(_records(), seed=seed)) for seed in range(9)}
    assert len(seeds) > 1
    assert [each.text for each in records] == [each.text for each in _records()]


def test_a_context_that_no_record_can_hold_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("degla.negatives.units.LONGEST_TEXT", 50)
    records = list(with_contexts(_records(), seed=0))
    assert [len(each.positives) for each in records] == [1, 1, 1] and records[2] == _records()[2]
    written = ["a" * 50, "b" * 51, "c" * 51]
    records = list(with_contexts(_records(), seed=0, write=lambda batch: written))
    assert [each.positives for each in records] == [("a" * 50,), *(each.positives for each in _records()[1:])]


def test_the_command_writes_the_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "captions.jsonl", _records())
    words = ["prepare", "contexts", str(tmp_path / "captions.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    assert main(words) == 0
    assert "2 of 3 captions have a longer version" in capsys.readouterr().err
    assert list(read_jsonl(CaptionRecord, tmp_path / "out.jsonl")) == list(with_contexts(_records(), seed=0))
    write_jsonl(tmp_path / "captions.jsonl", _records()[1:2])
    assert main(words) == 2
    assert "no caption names an object and something more. Use other captions" in capsys.readouterr().err


def test_a_model_writes_contexts_and_a_text_that_names_anything_else_is_not_used(tmp_path: Path) -> None:
    written = {
        "A dog on a sofa.": "There is a dog, and the dog is on a sofa.",
        "A cat near a blue car.": "A cat is near a blue car and a tree.",
    }
    requests: list[Request] = []

    def answer(request: Request) -> str:
        requests.append(request)
        return written[request.caption]

    def make() -> list[CaptionRecord]:
        with saved_replies(tmp_path / "out.jsonl") as journal:
            writer = ContextWriter(UnsteadyModel(answer), journal)
            records = list(with_contexts(_records(), seed=0, write=writer))
            assert writer.written == 1
            return records

    records = make()
    by_template = list(with_contexts(_records(), seed=0))
    assert records[0].positives == ("There is a dog, and the dog is on a sofa.",)
    assert records[1:] == by_template[1:]
    assert requests[1].chat[-1].content.endswith("Things: a cat, a blue car\nRelations: a cat near a blue car")
    assert make() == records and len(requests) == 2, "no reply is paid for twice"


@pytest.mark.parametrize(
    "text", ["A dog.", "A dog is there, and it is happy indeed.", "A cat is on a sofa, and a dog is on the sofa."]
)
def test_a_text_that_says_less_or_more_is_not_used(text: str) -> None:
    writer = ContextWriter(UnsteadyModel(lambda request: text))
    records = list(with_contexts(_records()[:1], seed=0, write=writer))
    assert records == list(with_contexts(_records()[:1], seed=0)) and not writer.written


def test_a_text_longer_than_any_caption_may_be_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "There is a dog, and the dog is on a sofa."
    for most, written in ((len(text), 1), (len(text) - 1, 0)):
        monkeypatch.setattr("degla.negatives.written.LONGEST_TEXT", most)
        writer = ContextWriter(UnsteadyModel(lambda request: text))
        list(with_contexts(_records()[:1], seed=0, write=writer))
        assert writer.written == written


def test_a_model_that_cannot_write_chooses_among_the_templates() -> None:
    writer = ContextWriter(UnsteadyModel(lambda request: request.choices[-1], forms=("fill", "choose")))
    (record,) = with_contexts(_records()[:1], seed=0, write=writer)
    assert record.positives == ("We can see a dog and a sofa. A dog on a sofa.",) and writer.written == 1


def test_a_silent_model_ends_the_command_and_is_asked_again(tmp_path: Path) -> None:
    def write(*faults: ReplyStatus) -> list[CaptionRecord]:
        statuses: dict[RequestKey, ReplyStatus] = {}
        model = UnsteadyModel(lambda request: statuses.update({request.key: "answered"}))
        model.faults.update(zip(keys, faults, strict=False))
        with saved_replies(tmp_path / "out.jsonl") as journal:
            records = list(with_contexts(_records(), seed=0, write=ContextWriter(model, journal)))
        keys.extend(statuses)
        return records

    keys: list[RequestKey] = []
    by_template = write()
    (tmp_path / "out.jsonl.replies.jsonl").unlink()
    with pytest.raises(DeglaError, match=r"did not answer for 1 caption\. Run the same command again"):
        write("unreachable")
    assert write() == by_template == list(with_contexts(_records(), seed=0))


def test_the_command_takes_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "captions.jsonl", _records())
    files = [str(tmp_path / "captions.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    (tmp_path / "script.jsonl").write_text("")
    script = ["--llm", "scripted", "--script", str(tmp_path / "script.jsonl")]
    assert main(["prepare", "presence", str(tmp_path / "captions.jsonl"), "--out", str(tmp_path / "out"), *script]) == 2
    assert "--llm applies only to degla prepare units and contexts, not to presence" in capsys.readouterr().err
    assert main(["prepare", "units", *files, "--model", "x"]) == 2
    assert "--model requires --llm openai or embedded" in capsys.readouterr().err
    assert main(["prepare", "contexts", *files, *script]) == 0
    assert "2 of 3 captions have a longer version, 0 of them by scripted" in capsys.readouterr().err
    assert list(read_jsonl(CaptionRecord, tmp_path / "out.jsonl")) == list(with_contexts(_records(), seed=0))
