"""Longer true captions from a caption's own things and relations, as a column of positives."""

from __future__ import annotations

from pathlib import Path

import pytest

from degla.cli import main
from degla.negatives.grammar import words
from degla.negatives.grammar.phrases import parse_one
from degla.negatives.units import context_of, with_contexts
from degla.records import CaptionRecord, read_jsonl, write_jsonl


def test_a_context_says_things_and_relations_once_more() -> None:
    caption = parse_one("A brown dog on a red sofa near two cats.")
    relations = "a brown dog on a red sofa and a red sofa near two cats"
    things = "We can see a brown dog, a red sofa and two cats"
    said = "A brown dog on a red sofa near two cats"
    assert [context_of(caption, number=number) for number in range(5)] == [
        f"{said}. {things}.",
        f"{things}. {said}.",
        f"{said}: {relations}. {things}.",
        f"{things}: {relations}. {said}.",
        f"{said}. {things}.",
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
            made = context_of(parse_one(text), number=number)
            assert made is not None
            assert set(words.content(made)) <= {*words.content(text), "we", "can", "see", "and"}, made


def _records() -> list[CaptionRecord]:
    texts = ["A dog on a sofa.", "Raining.", "A cat near a blue car."]
    return [
        CaptionRecord(id=str(n), image=f"{n}.png", image_id=str(n), text=text, positives=("Known.",) if n else ())
        for n, text in enumerate(texts)
    ]


def test_contexts_stand_before_other_positives_and_follow_the_seed() -> None:
    made = list(with_contexts(_records(), seed=0))
    assert made[1] == _records()[1]
    assert len(made[0].positives) == 1 and made[2].positives[1:] == ("Known.",)
    assert made == list(with_contexts(_records(), seed=0))
    seeds = {tuple(each.positives[0] for each in with_contexts(_records(), seed=seed)) for seed in range(9)}
    assert len(seeds) > 1
    assert [each.text for each in made] == [each.text for each in _records()]


def test_the_command_writes_the_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "captions.jsonl", _records())
    words = ["prepare", "contexts", str(tmp_path / "captions.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    assert main(words) == 0
    assert "2 of 3 captions have a longer version" in capsys.readouterr().err
    assert list(read_jsonl(CaptionRecord, tmp_path / "out.jsonl")) == list(with_contexts(_records(), seed=0))
    write_jsonl(tmp_path / "captions.jsonl", _records()[1:2])
    assert main(words) == 2
    assert "no caption names an object and something more. Use other captions" in capsys.readouterr().err
