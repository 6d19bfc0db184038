"""What images show and do not show: the two streams of the recipe negbench, from captions only."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from degla.cli import main
from degla.data.sources import read_negatives
from degla.negatives.presence import naming_the_absent, questions, survey
from degla.records import CaptionRecord, read_jsonl, write_jsonl

SAID = [
    ("a", "a dog on a sofa"),
    ("a", "A brown dog lies next to a pillow."),
    ("b", "a cat and a dog on a couch"),
    ("c", "two cats on a sofa near a lamp"),
    ("d", "a man with an umbrella and a dog"),
    ("e", "a woman riding a horse on the grass"),
    ("f", "a person holding an umbrella near a horse"),
    ("g", "no dog on the sofa, a cat sleeps"),
]
CAPTIONS = [
    CaptionRecord(id=f"{image}{number}", image=f"{image}.jpg", text=text, image_id=image)
    for number, (image, text) in enumerate(SAID)
]


def test_what_is_absent_is_usual_beside_a_thing_and_named_by_no_caption_of_the_image() -> None:
    contents = survey(CAPTIONS, seed=0)
    assert contents["a"].things == {"dog": "a dog", "sofa": "a sofa", "pillow": "a pillow"}
    # Not the couch, which a sofa is; of the horse's picture no dog is known.
    assert set(contents["a"].absent) == {"cat", "lamp", "man", "umbrella"}
    assert contents["c"].things["cat"] == "cats" and contents["e"].things["grass"] == "grass"
    # A man and a woman may each be the person; what is denied is named, and is not there.
    assert contents["f"].absent == () and contents["e"].absent == ("umbrella",)
    assert "dog" not in contents["g"].things and "dog" not in contents["g"].absent
    denied = CaptionRecord(id="x", image="x.jpg", text="a dog not on the sofa", image_id="x")
    assert survey([denied], seed=0)["x"].things == {"dog": "a dog"}
    assert survey(CAPTIONS, seed=0) == contents
    assert any(set(survey(CAPTIONS, seed=seed)["a"].absent[:1]) != {contents["a"].absent[0]} for seed in range(1, 5))


def test_captions_and_questions_are_true_where_they_say_so() -> None:
    contents = survey(CAPTIONS, seed=0)
    named = {each.id: each.text for each in naming_the_absent(CAPTIONS, contents)}
    assert set(named) == {each.id for each in CAPTIONS} - {"f6"}
    first, second = contents["a"].absent[:2]
    assert named["a0"] == f"a dog on a sofa, but no {first}"
    assert named["a1"] == f"A brown dog lies next to a pillow, but no {second}"
    forms = set()
    for seed in range(20):
        rows = {caption.id: (caption, [each.text for each in false]) for caption, false in questions(
            CAPTIONS, contents, seed=seed)}  # fmt: skip
        assert set(rows) == {"a0", "b2", "c3", "d4", "e5", "g7"}, "one an image, of images with both"
        caption, false = rows["e5"]
        assert len({caption.text, *false}) == 4
        for text in false:
            denied = "not feature" in text
            assert ("umbrella" in text.partition(", but")[0]) != denied and text.startswith("This image ")
        assert ("not an umbrella" in caption.text or "not feature an umbrella" in caption.text) or (
            "umbrella" not in caption.text
        )
        forms.add((" and " in caption.text, "not feature" in caption.text, "but not" in caption.text))
    assert len(forms) == 3


def test_the_command_writes_what_the_recipe_reads(
    tiny_pairs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = tmp_path / "captions.jsonl"
    captions.write_text("".join(each.model_dump_json() + "\n" for each in CAPTIONS))
    out = tmp_path / "presence"
    assert main(["prepare", "presence", str(captions), "--out", str(out)]) == 0
    assert "7 of 8 captions name an absent object, 6 of 7 images have a question" in capsys.readouterr().err
    choices = list(read_jsonl(CaptionRecord, out / "choice.jsonl"))
    false = list(read_negatives(out / "choice-negatives.jsonl"))
    assert len(choices) == 6 and [each.caption_id for each in false] == [name.id for name in choices for _ in range(3)]
    assert all(each.accepted and each.rule == "presence" for each in false)
    alone = tmp_path / "alone.jsonl"
    alone.write_text(json.dumps({"id": "1", "image": "1.jpg", "text": "a dog", "image_id": "1"}) + "\n")
    assert main(["prepare", "presence", str(alone), "--out", str(tmp_path / "none")]) == 2
    assert "alone.jsonl: no image has absent things" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert main(["prepare", "presence", str(captions), "--out", str(tmp_path / "no" / "folder")]) == 2


@pytest.mark.parametrize(("maker", "times"), [("contexts", 1), ("presence", 1), ("split", 0)])
def test_captions_that_are_not_english_are_reported_once_where_rules_read_them(
    maker: str, times: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "captions.jsonl"
    texts = ("Ein Hund liegt auf dem Sofa und schläft.", "Un chien dort sur un lit.")
    others = [CaptionRecord(id=text, image=f"{text[0]}.jpg", text=text, image_id=text) for text in texts]
    write_jsonl(file, [*CAPTIONS, *others])
    assert main(["prepare", maker, str(file), "--out", str(tmp_path / "out.jsonl")]) == 0
    assert capsys.readouterr().err.count("2 captions count as not English; all rules are for English.") == times


@pytest.mark.parametrize(("maker", "name"), [("presence", "out"), ("units", "out.jsonl"), ("contexts", "out.jsonl")])
def test_a_dry_run_tells_rows_space_and_time_and_writes_nothing(
    maker: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    captions, out = tmp_path / "captions.jsonl", tmp_path / name
    rows = [each.model_copy(update={"id": f"{turn}-{each.id}", "image_id": f"{turn}-{each.image_id}"})
            for turn in range(40) for each in CAPTIONS]  # fmt: skip
    captions.write_text("".join(each.model_dump_json() + "\n" for each in rows))
    words = ["prepare", maker, str(captions), "--out", str(out)]
    monkeypatch.setattr("degla.verbs.prepare._SAMPLED", 70)
    assert main([*words, "--dry-run"]) == 0
    told = capsys.readouterr().err
    assert not out.exists() and list(tmp_path.iterdir()) == [captions]
    assert "320 captions of 280 images; estimated from 80 captions of 70 images, nothing was written" in told
    assert "disk space: about" in told and "GB are free" in told and "time: about" in told
    assert main(words) == 0
    for file in [out] if out.is_file() else out.iterdir():
        about = re.search(rf"about (\d+) in {file.name}", told)
        assert about and int(about[1]) == pytest.approx(len(file.read_text().splitlines()), rel=0.1)
    if maker != "presence":
        server = ["--llm", "openai", "--base-url", "http://127.0.0.1:9/v1", "--model", "m"]
        assert main([*words, "--dry-run", *server]) == 0
        assert "a request to the language model for each caption" in capsys.readouterr().err


def test_a_dry_run_counts_a_sample_as_often_as_it_is_contained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = tmp_path / "captions.jsonl"
    rows = [CAPTIONS[0].model_copy(update={"id": str(turn), "image_id": str(turn)}) for turn in range(40)]
    captions.write_text("".join(each.model_dump_json() + "\n" for each in rows))

    def make(arguments: Namespace, sample: Iterable[CaptionRecord]) -> str:
        arguments.out.write_text("{}\n" * 500_000)
        return f"{len(list(sample))} captions"

    monkeypatch.setattr("degla.verbs.prepare._SAMPLED", 10)
    monkeypatch.setattr("degla.verbs.prepare._contexts", make)
    monkeypatch.setattr("degla.verbs.prepare.time", SimpleNamespace(monotonic=iter([3.0, 13.0]).__next__))
    assert main(["prepare", "contexts", str(captions), "--out", str(tmp_path / "o.jsonl"), "--dry-run"]) == 0
    printed = capsys.readouterr().err
    assert "estimated from 10 captions of 10 images" in printed and "about 2,000,000 in o.jsonl" in printed
    assert "disk space: about 6.0 MB" in printed and "time: about 40 s" in printed


def test_bodies_have_their_parts_and_people_what_they_are_called_after() -> None:
    texts = [
        "a skier near a fence",
        "a ski near a fence",
        "a dog with a big mouth near a fence",
        "a bicyclist and a dog",
    ]
    texts += ["a bicycle and a dog", "a face behind a fence"]
    captions = [CaptionRecord(id=text, image=text, text=text, image_id=text) for text in texts]
    contents = survey(captions, seed=0)
    assert set(contents[texts[0]].absent) == {"dog"}
    assert "bicyclist" in contents[texts[3]].things and contents[texts[3]].absent == ("fence",)
    assert set(contents[texts[4]].absent) == {"bicyclist", "fence"}
    assert "ski" in contents[texts[2]].absent and "face" not in contents[texts[2]].absent


def test_a_question_names_no_thing_twice() -> None:
    texts = ["a bike and a bicycle near a dog", "a bike near a cat", "a bicycle near a cat"]
    captions = [CaptionRecord(id=text, image=text, text=text, image_id=text) for text in texts]
    contents = survey(captions, seed=0)
    for seed in range(30):
        (caption, false), *_ = questions(captions, contents, seed=seed)
        for text in (caption.text, *(each.text for each in false)):
            assert not {"bike", "bicycle"} <= set(text.strip(".").split()), text
