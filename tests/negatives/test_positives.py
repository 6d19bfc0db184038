"""Hard positives: true texts that look changed, never used as negatives but as additional true texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from degla.cli import main
from degla.data.joining import join, join_and_report
from degla.data.pairs import with_positives
from degla.errors import InputError
from degla.negatives.generate import NegativesSettings, generate
from degla.negatives.grammar.phrases import parse, parse_one
from degla.negatives.llm.scripted import ScriptedModel
from degla.negatives.positives.sibling_attribute import SiblingAttribute
from degla.negatives.rule import MOST_CANDIDATES, judge, load_rule
from degla.progress import TaskProgress
from degla.records import CaptionRecord, NegativeRecord, read_jsonl, write_jsonl
from degla.shelf import POSITIVES, RULES

MADE = {
    "exchange_conjuncts": [
        ("A red bucket and a small shovel.", ["A small shovel and a red bucket."]),
        ("A black and white goat on a hill", ["A white and black goat on a hill"]),
        ("A man and a woman in a hat", []),  # who wears it?
        ("A fork and knife on a plate", []),
        ("A group of boys and girls", []),  # the group is of both
        ("A man and his dog on a beach.", []),
        ("Man and dog on a beach", []),
        ("A cup and a plate and a fork.", []),
        ("A small black and white dog", []),
        ("A woman wearing tiara and floral dress", []),  # no adjective
        ("A blue and cream-colored bus", ["A cream-colored and blue bus"]),
        ("Mr. and Mrs. Luvernis Lee", []),
        ("Broccoli and artichoke bake", []),  # one bake
    ],
    "front_place": [
        ("A farmer is carrying a basket in a field.", ["In a field, a farmer is carrying a basket."]),
        ("In a kitchen, a chef holds a knife.", ["A chef holds a knife in a kitchen."]),
        ("A farmer is looking at a man in a hat.", []),
        ("A girl walks on a boardwalk with blue domes in the background.", []),
        ("A girl leans over a wall to feed ducks in the water.", []),
        ("A dog is running on a shore beside two geese in water.", []),  # who is in the water?
        ("A man is pointing his camera at the arena.", []),  # where does he stand?
        ("A man sits and a dog runs in a park.", []),
        ("A man sits in a car near a park.", ["Near a park, a man sits in a car."]),
        ("A man sits in his kitchen.", []),
        ("There is a man who sits in a park.", []),
    ],
    "replace_by_synonym": [
        ("A cat on a couch", ["A cat on a sofa"]),
        ("A lamp next to a bed", ["A lamp beside a bed"]),
        ("A big ring", ["A large ring"]),  # it need not be huge
        ("A dog in a doorway", []),
        ("A girl swims in a pool", []),  # no pond
        ("A man rides a motorcycle", ["A man rides a bike"]),
        ("A little girl on a path", ["A young girl on a path"]),  # she need not be small
    ],
    "replace_by_hypernym": [
        ("A woman holds an umbrella", ["A person holds an umbrella"]),
        ("A group of livestock in a field", []),  # no group of animal
        ("A poodle near a fence", ["An animal near a fence", "A dog near a fence"]),
        ("A woman and a man", []),  # either may be meant
        ("A little girl holds an umbrella", []),  # no little person
        ("Polo in a field", []),
        ("A skateboard on a bench", []),  # no vehicle to people
        ("A young female is smiling", []),  # no animal
        ("Bats on a bench", []),
        ("A peach on a plate", []),  # no tree
        ("Cricket in a field", []),
        ("Strollers on bleachers", []),  # no people on people
        ("A comforter on a bed", []),
        ("Turkeys in a field", ["Birds in a field"]),
        ("A hiker in a field", ["A person in a field"]),
    ],
    "passive": [
        ("A girl rides a donkey on a path.", ["A donkey is ridden by a girl on a path."]),
        ("Two boys are pushing a cart.", ["A cart is being pushed by two boys."]),
        ("A girl holds her donkey.", []),
        ("Little girl feeds the ducks.", []),
        ("Group of men kick a ball.", []),
        ("A biker makes a high jump.", []),
        ("Two boys push a cart and a box.", []),
        ("A dog is herding sheep down a path.", []),  # one, or many?
        ("The girl is hugging another girl with a helmet.", []),  # whose helmet?
        ("A boy is pushing a man in a wheelchair.", []),
        ("A boy is pushing a man in a field.", ["A man is being pushed by a boy in a field."]),
    ],
    "deny_other": [
        ("A wet street.", ["A street that is not dry."]),
        ("An old man smiles.", ["A man who is not young smiles."]),
        ("A street without a wet car.", []),
        ("A happy dog.", []),
        ("A big dog on a bed.", []),
        ("A little dog on a bed.", []),
        ("A black and a brown dog.", []),
        ("A multicolored kite.", []),
        ("A colorful kite.", []),
        ("A dog licks its black nose.", []),
        ("A little girl squats on a tree stump in the woods.", []),  # "squats" is no noun
        ("A little girl with blond hair is smiling.", []),  # a girl that is not big with blond hair
    ],
}


@pytest.mark.parametrize("name", MADE)
def test_what_each_rule_makes(name: str) -> None:
    rule = load_rule(name)
    for text, expected in MADE[name]:
        caption = parse_one(text)
        texts = rule.propose(caption, Random(0), 50)
        assert set(expected) <= set(texts) and (expected or not texts), (text, texts)
        assert all(judge(rule, caption, candidate).accepted for candidate in texts), texts
        assert judge(rule, caption, "A zebra on a moon").reason == "not_rule"


def test_attributes_come_from_captions_of_the_same_image_alone() -> None:
    caption, *siblings = parse(
        ["A dog near a fence.", "A brown dog is running.", "A dog and a wooden fence.", "Two men."]
    )
    rule = SiblingAttribute()
    assert set(rule.from_siblings(caption, siblings, Random(0), 9)) == {
        "A brown dog near a fence.",
        "A dog near a wooden fence.",
    }
    disputed = parse(["A black dog.", "A brown dog is running.", "A dog and a wooden fence."])
    assert rule.from_siblings(caption, disputed, Random(0), 9) == ["A dog near a wooden fence."]
    dressed = parse(["A child dressed as a ninja.", "A young ninja is jumping."])
    assert not rule.from_siblings(dressed[0], dressed[1:], Random(0), 9)
    two = parse(["A brown dog and a black dog."])
    assert not rule.from_siblings(caption, two, Random(0), 9)
    assert not rule.propose(caption, Random(0), MOST_CANDIDATES)


def test_every_rule_for_positives_is_of_their_kind_and_asks_no_model() -> None:
    assert not set(POSITIVES.names()) & set(RULES.names())
    for name in POSITIVES.names():
        assert load_rule(name).kind == "positive" and load_rule(name).ask(parse_one("A dog."), ()) is None
    assert all(load_rule(name).kind != "positive" for name in RULES.names())


def captions(texts: Sequence[str]) -> list[CaptionRecord]:
    return [CaptionRecord(id=str(at), image="1.jpg", text=text, image_id="1") for at, text in enumerate(texts)]


def test_one_file_holds_negatives_or_positives() -> None:
    with pytest.raises(InputError, match="one file"):
        NegativesSettings(("swap_nouns", "passive"), 0)


def test_a_language_model_that_none_would_ask_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "positives.jsonl"
    with pytest.raises(InputError, match=r"positives are made by the grammar alone: omit the language model \(--llm\)"):
        generate(captions(["A dog."]), NegativesSettings(("passive",), 0), out=out, model=ScriptedModel())
    assert not out.exists()


def test_the_engine_makes_them_with_siblings_and_continues(tmp_path: Path) -> None:
    records = captions(["A dog rides a small skateboard.", "A brown dog on a skateboard."])
    settings = NegativesSettings(tuple(POSITIVES.names()), 0, per_rule=3)
    out = tmp_path / "positives.jsonl"
    summary = generate(records, settings, out=out, progress=False)
    rows = list(read_jsonl(NegativeRecord, out))
    texts = {(row.caption_id, row.rule): row.text for row in rows if row.accepted}
    assert texts["0", "sibling_attribute"] == "A brown dog rides a small skateboard."
    assert texts["1", "sibling_attribute"] == "A brown dog on a small skateboard."
    assert texts["0", "passive"] == "A small skateboard is ridden by a dog."
    assert {row.kind for row in rows} == {"positive"} and summary.accepted.total() == sum(row.accepted for row in rows)
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    generate(records, settings, out=out, progress=False)
    assert out.read_bytes() == whole


def row(caption: str, text: str, kind: str, *, accepted: bool = True) -> NegativeRecord:
    return NegativeRecord(caption_id=caption, rule="passive", kind=kind, text=text, source="rules", accepted=accepted)


def test_positives_join_the_column() -> None:
    records = captions(["A dog.", "A cat."])
    rows = [row("0", "An animal.", "positive"), row("0", "No.", "positive", accepted=False)]
    joined = list(with_positives(records, rows, flag="--data.positives_file p"))
    assert [one.positives for one in joined] == [("An animal.",), ()]
    with pytest.raises(InputError, match="meant to be false"):
        list(with_positives(records, [row("0", "A cow.", "object")], flag="p"))
    with pytest.raises(InputError, match="no positive belongs"):
        list(with_positives(records, [row("7", "A cow.", "positive")], flag="p"))


def test_a_positive_is_no_negative_and_a_text_is_not_both(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = captions(["A dog."])
    with pytest.raises(InputError, match=r"with --data\.positives-file\."):
        join(records, [row("0", "An animal.", "positive")])
    true = [records[0].model_copy(update={"positives": ("An animal!",)})]
    false = [row("0", "An animal.", "object"), row("0", "A cow.", "object")]
    assert join(true, false)[0].negatives == ("A cow.",)
    report = join_and_report(true, false, folder=tmp_path)
    assert dict(report.dropped) == {"equal to a further true text of their caption": 1}
    assert report.contradiction == "'An animal.' of caption '0'"
    caplog.set_level("WARNING")
    join(true, [row("0", "An animal.", "object"), row("0", "A cow.", "object")])
    assert "1 negative is also given as true texts" in caplog.text and "'An animal.' of caption '0'" in caplog.text
    caplog.clear()
    join(true, [row("0", "A cow.", "object")])
    assert not caplog.text


def test_the_command_makes_positives_by_a_flag_and_balanced_rules_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    task = TaskProgress.task

    def noted(bar: TaskProgress, name: str, *rest: Any, **more: Any) -> Any:
        shown.append(name)
        return task(bar, name, *rest, **more)

    monkeypatch.setattr(TaskProgress, "task", noted)
    write_jsonl(tmp_path / "captions.jsonl", captions(["A girl rides a brown donkey."]))
    argv = ["negatives", str(tmp_path / "captions.jsonl")]
    assert main([*argv, "--positives", "--rules", "passive", "--out", str(tmp_path / "p.jsonl"), "--json"]) == 0
    assert shown == ["captions", "true texts"]
    assert [one.text for one in read_jsonl(NegativeRecord, tmp_path / "p.jsonl")] == [
        "A brown donkey is ridden by a girl."
    ]
    for flags, rules in (([], {"negation": False, "swap_nouns": True}), (["--rules", "all"], {"negation": True})):
        out = tmp_path / f"{len(flags)}.jsonl"
        assert main([*argv, *flags, "--out", str(out), "--json"]) == 0
        names = {one.rule for one in read_jsonl(NegativeRecord, out)}
        assert all((name in names) == wanted for name, wanted in rules.items())
    assert main([*argv, "--rules", "passive", "--out", str(tmp_path / "n.jsonl")]) == 2
