"""Things and relations of captions with foils by grammar, and which of them an epoch draws."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from degla.cli import main
from degla.data.extras import draw_units, text_number
from degla.errors import InputError
from degla.negatives.grammar.phrases import parse_one
from degla.negatives.llm import Request
from degla.negatives.llm.scripted import ScriptedModel
from degla.negatives.run.asking import saved_replies
from degla.negatives.units import described_by, relations_of, with_units
from degla.negatives.written import UnitWriter
from degla.records import CaptionRecord, CaptionUnit, read_jsonl, write_jsonl
from tests.negatives.flaky_server import Response, completion, serving


def records_of(*texts: str) -> list[CaptionRecord]:
    records = [CaptionRecord(id=text, image="a.jpg", text=text, image_id=text) for text in texts]
    return list(with_units(records, seed=0))


def test_units_are_what_a_caption_names() -> None:
    horses, bag, rain = records_of("Two men riding horses on a beach.", "a red bag", "Raining.")
    by_text = {unit.text: unit for unit in horses.units}
    assert [unit.text for unit in horses.units if unit.kind == "relation"] == [
        "two men riding horses",
        "horses on a beach",
    ]
    assert (
        horses.concepts
        == ("two men", "horses", "a beach")
        == tuple(unit.text for unit in horses.units if unit.kind == "thing")
    )
    assert "two horses riding men" in by_text["two men riding horses"].foils
    assert all(unit.foils and unit.text not in unit.foils for unit in horses.units)
    assert bag.concepts == ("a red bag",) and bag.units == (), "it is the caption"
    assert rain.units == () and rain.concepts == ("Raining.",)
    assert horses.masked_words == ("riding", "on") and bag.masked_words == ("red",) and rain.masked_words == ()
    (car,) = records_of("A parked car next to a very old, dirty truck is blue")
    assert car.masked_words == ("parked", "next", "to", "old", "dirty", "blue")
    assert records_of("Two men riding horses on a beach.")[0] == horses
    plain = horses.model_copy(update={"units": (), "concepts": (), "masked_words": ()})
    assert list(with_units([plain], seed=0)) == [horses] != list(with_units([plain], seed=1))


@pytest.mark.parametrize(
    ("text", "unit", "phrase"),
    [
        ("a man and a woman sit on a bench", "a man", "a woman"),
        ("the man sits behind two women", "the man", "the woman"),
        ("a black car next to a white car", "a black car", "a white car"),
        ("A dog chases a cat and a cat chases a dog", "a dog chases a cat", "a cat chases a dog"),
    ],
)
def test_no_foil_is_what_the_caption_says_elsewhere(text: str, unit: str, phrase: str) -> None:
    records = [CaptionRecord(id=str(number), image="a.jpg", text=text, image_id="a") for number in range(40)]
    foils = [
        foil for each in with_units(records, seed=0) for own in each.units if own.text == unit for foil in own.foils
    ]
    assert foils and phrase not in foils


@pytest.mark.parametrize(
    ("text", "relation"),
    [
        ("A dog with a ball in its mouth is running through snow.", "a dog is running through snow"),
        ("A girl in a grassy field hitting a volleyball.", "a girl in a grassy field"),
        ("A brown dog and a cat are sitting on a bed.", "a brown dog and a cat are sitting on a bed"),
        ("A man jumping a rail on his skateboard.", "a man jumping a rail"),
        ("A boy jumps into a pool while a girl watches.", "a boy jumps into a pool"),
    ],
)
def test_a_relation_belongs_to_who_does_it(text: str, relation: str) -> None:
    caption = parse_one(text)
    relations = relations_of(caption)
    assert relation in relations, relations
    assert not any("mouth is" in one or "field hitting" in one or one.startswith("a cat") for one in relations)
    assert "a rail on his skateboard" not in relations
    assert "while" not in {*" ".join(relations).split(), *described_by(caption)}


def test_relations_with_foils_come_first_and_missing_units_are_filled_up() -> None:
    things = [CaptionUnit(text=text, foils=(f"no {text}",)).model_dump() for text in ("a dog", "a sofa")]
    relation = CaptionUnit(text="a dog on a sofa", foils=("a sofa on a dog", "a dog under a sofa"), kind="relation")
    alone = CaptionUnit(text="a dog by a sofa", kind="relation").model_dump()
    draws = [draw_units([*things, relation.model_dump(), alone], 2, Random(seed)) for seed in range(20)]
    assert {text for units in draws for text, _ in units} == {"a dog on a sofa"}
    assert {foil for units in draws for _, foil in units} == set(relation.foils)
    # Without a relation: things, every other one joined to the further thing, on both sides in an order of its own.
    draws = [draw_units([*things, alone], 2, Random(seed)) for seed in range(60)]
    assert {units[0][0] for units in draws} == {"a dog", "a sofa", "a dog and a sofa", "a sofa and a dog"}
    joined = {units[0] for units in draws if " and " in units[0][0] and "no a dog" in str(units[0][1])}
    assert len(joined) == 4
    assert draw_units([alone], 3, Random(0)) == [("a dog by a sofa", None)] * 3 and draw_units([], 2, Random(0)) == []
    assert text_number("A dog.") == text_number("a dog") != text_number("a sofa") and text_number("a") < 2**63


def test_the_command_writes_both_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = tmp_path / "captions.jsonl"
    plain = CaptionRecord(id="1", image="a.jpg", text="a dog on a sofa", image_id="1")
    captions.write_text(plain.model_dump_json() + "\n")
    out = tmp_path / "units.jsonl"
    assert main(["prepare", "units", str(captions), "--out", str(out)]) == 0
    (record,) = read_jsonl(CaptionRecord, out)
    assert (record.text, record.concepts) == ("a dog on a sofa", ("a dog", "a sofa"))
    foils = sum(len(unit.foils) for unit in record.units)
    assert f"1 caption with 2 units and {foils} foils" in capsys.readouterr().err and foils > 2


_WRITTEN = """Here are the units:
- relation: a brown dog on a red sofa | a brown dog under a red sofa | a red sofa on a brown dog
relation: the dog is on a red sofa | the dog is not on a red sofa
thing: a brown dog | a black dog | two dog | a red sofa | a brown dog
2. **Thing:** a red sofa. | a red chair
thing: a horse | a dog
THING: A brown dog on a red sofa! | a brown dog on a bed
Relation: | a dog"""


def test_a_model_writes_units_and_what_the_caption_does_not_say_is_not_used(tmp_path: Path) -> None:
    texts = ("A brown dog on a red sofa.", "A cat near a blue car.")
    records = [CaptionRecord(id=text, image="a.jpg", text=text, image_id=text) for text in texts]
    requests: list[str] = []

    def answer(request: Request) -> str:
        requests.append(request.chat[-1].content)
        return _WRITTEN

    def make() -> list[CaptionRecord]:
        with saved_replies(tmp_path / "out.jsonl") as journal:
            writer = UnitWriter(ScriptedModel(answer), journal)
            made = list(with_units(records, seed=0, write=writer))
            assert writer.written == 1
            return made

    made = make()
    by_grammar = records_of(*texts)
    assert [(unit.kind, unit.text, unit.foils) for unit in made[0].units] == [
        ("relation", "the dog is on a red sofa", ("the dog is not on a red sofa",)),
        ("thing", "a brown dog", ("a black dog",)),
        ("thing", "a red sofa", ("a red chair",)),
    ], "neither the caption itself, nor a horse, nor foils that it says or that are no English"
    assert made[0].concepts == by_grammar[0].concepts and made[0].masked_words == by_grammar[0].masked_words
    assert made[1] == by_grammar[1], "no line is about this caption: the grammar's units"
    assert make() == made and requests == list(texts), "no reply is paid for twice"


def test_a_unit_longer_than_any_text_may_be_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "A brown dog on a red sofa."
    monkeypatch.setattr("degla.negatives.written.LONGEST_TEXT", len("a brown dog"))
    writer = UnitWriter(ScriptedModel(lambda request: _WRITTEN))
    (record,) = with_units([CaptionRecord(id="1", image="a.jpg", text=text, image_id="1")], seed=0, write=writer)
    assert {unit.text for unit in record.units} == {"a brown dog", "a red sofa"} and writer.written == 1


def test_the_command_has_a_model_write_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "in.jsonl", records_of("A brown dog on a red sofa."))
    (tmp_path / "script.jsonl").write_text("")
    out = ["--out", str(tmp_path / "out.jsonl"), "--llm", "scripted", "--script", str(tmp_path / "script.jsonl")]
    assert main(["prepare", "units", str(tmp_path / "in.jsonl"), *out]) == 0
    assert ", those of 0 captions by scripted" in capsys.readouterr().err
    assert list(read_jsonl(CaptionRecord, tmp_path / "out.jsonl")) == records_of("A brown dog on a red sofa.")
    with pytest.raises(InputError, match=r"cannot write text, so it makes no units\. Use --llm openai, or omit --llm"):
        UnitWriter(ScriptedModel(forms=("fill", "choose")))


def test_a_server_is_given_room_for_all_units_of_a_caption(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", records_of("A brown dog on a red sofa."))
    with serving(lambda received: Response(body=completion(_WRITTEN))) as server:
        words = ["--llm", "openai", "--base-url", server.url, "--model", "m", "--out", str(tmp_path / "out.jsonl")]
        assert main(["prepare", "units", str(tmp_path / "in.jsonl"), *words]) == 0
        assert [received.body["max_tokens"] for received in server.requests()] == [512]
    (record,) = read_jsonl(CaptionRecord, tmp_path / "out.jsonl")
    assert record.units[0].foils == ("the dog is not on a red sofa",)
