"""Composites of two images with the texts of both: the data of the recipe clic."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy
import pytest
from PIL import Image

from degla.cli import main
from degla.data.composites import composites, exchange_words, join
from degla.data.pairs import normalized_words
from degla.data.sources import read_negatives
from degla.records import CaptionRecord, read_jsonl

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize("size", [(40, 30), (30, 30), (20, 50)])
def test_a_red_and_a_blue_picture_are_half_each(size: tuple[int, int]) -> None:
    joined = numpy.asarray(join(Image.new("RGB", size, RED), Image.new("RGB", size, BLUE), size=16))
    assert joined.shape == (16, 16, 3)
    first, second = (joined[:8], joined[8:]) if size[0] >= size[1] else (joined[:, :8], joined[:, 8:])
    assert (first == RED).all() and (second == BLUE).all()


def _exchanged(first: list[tuple[str, str]], second: list[tuple[str, str]], chance: Random) -> list[str] | None:
    texts = [" ".join(word for word, _ in side) for side in (first, second)]
    return exchange_words(first, second, chance, texts=texts)


def test_words_of_one_part_of_speech_are_exchanged_everywhere() -> None:
    dog = [("a", "DET"), ("dog", "NOUN"), ("sees", "VERB"), ("a", "DET"), ("dog", "NOUN")]
    men = [("two", "NUM"), ("men", "NOUN"), ("ride", "VERB")]
    results = {tuple(_exchanged(dog, men, Random(seed)) or ()) for seed in range(20)}
    assert results == {("a men sees a men", "two dog ride"), ("a dog ride a dog", "two men sees")}
    # One word each: exchanging them gives the other order, which says the same.
    assert _exchanged([("dogs", "NOUN")], [("cats", "NOUN")], Random(0)) is None
    # A word of both captions stays.
    one, other = ([(name, "NOUN"), (how, "ADP"), ("tree", "NOUN")] for name, how in (("dog", "by"), ("cat", "under")))
    results = {tuple(_exchanged(one, other, Random(seed)) or ()) for seed in range(20)}
    assert results == {("cat by tree", "dog under tree"), ("dog under tree", "cat by tree")}
    # No part of speech in common: any two words; words that both contain stay.
    red, run = ([("red", "ADJ"), ("and", "CCONJ"), ("big", "ADJ")], [("run", "VERB"), ("and", "CCONJ")])
    results = {tuple(_exchanged(red, run, Random(seed)) or ()) for seed in range(20)}
    assert results == {("run and big", "red and"), ("red and run", "big and")}
    assert _exchanged(red[:2], run, Random(0)) is None, "the other order"
    written = exchange_words(
        [("dogs", "NOUN"), (",", "PUNCT"), ("say", "VERB")], [("men", "NOUN")], Random(0), texts=["dogs, say", "men"]
    )
    assert written == ["men, say", "dogs"], "no space before the comma tells"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["presence", "--out", "x" * 250], "x: cannot be written: File name too long. Choose another --out."),
        (["composites", "--out", "out", "--images", ".", "--size", "9460"], "it must be even, from 2 to 9458"),
        (["composites", "--out", "out", "--images", ".", "--size", "15"], "--size is 15; it must be even, from 2"),
        (["units", "--out", "out", "--size", "224"], "--size applies only to degla prepare composites, not to units"),
        (["split", "--out", "out", "--size", "224"], "--size applies only to degla prepare composites, not to split"),
        (["contexts", "--out", "out", "--images", "."], "only to degla prepare split and composites, not to contexts"),
        (["split", "--out", "out", "--images", "absent"], "absent: no such folder of images (--images)"),
        (["split", "--out", "out", "--images", "s3://bucket/images"], "s3://bucket/images: the new folder links to"),
        (["split", "--out", "out"], "captions.jsonl: has captions of fewer than five images, too few to hold out"),
        (["split", "--out", "out", "--held-out", "2"], "has captions of fewer than 3 images, too few to hold out 2."),
        (["units", "--out", "out.jsonl", "--held-out", "2"], "--held-out applies only to degla prepare split, not to"),
        (["split", "--out", "no/out"], "no: no such folder to write to (--out). Create it first."),
        (["units", "--out", "o.jsonl", "--dry-run", "--timeout", "3"], "--timeout requires --llm openai; this run"),
        (["split", "--out", "out", "--dry-run"], "--dry-run does not apply to degla prepare split, which takes"),
    ],
)
def test_wrong_use_is_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = ("a dog on a sofa", "a dog and a cat near a lamp")
    rows = [CaptionRecord(id=text, image=f"{text}.jpg", text=text, image_id=text) for text in texts]
    Path("captions.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))
    assert main(["prepare", words[0], "captions.jsonl", *words[1:]]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["captions.jsonl"]


def test_the_command_writes_what_clic_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentences = {
        "wide1": ["A black dog runs on a beach.", "The dog is wet.", "Waves behind a dog."],
        "wide2": ["two men ride brown horses", "men outside"],
        "high1": ["a woman with a red umbrella", "it rains", "a wet street"],
        "high2": ["an old clock on a tall tower", "it is noon"],
    }
    (tmp_path / "images").mkdir()
    rows = []
    for number, (name, texts) in enumerate(sentences.items()):
        colour = (60 * number, 0, 255 - 60 * number)
        size = (24, 16) if name.startswith("wide") else (16, 24)
        Image.new("RGB", size, colour).save(tmp_path / "images" / f"{name}.png")
        rows += [{"id": f"{name}-{at}", "image": f"{name}.png", "text": text, "image_id": name} for at, text in
                 enumerate(texts)]  # fmt: skip
    captions = tmp_path / "captions.jsonl"
    captions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["prepare", "composites", str(captions), "--images", str(tmp_path / "images"), "--size", "16", "--out"]
    assert main([*words, str(tmp_path / "out")]) == 0
    assert "4 composites of 4 images, 4 with a negative" in capsys.readouterr().err
    records = list(read_jsonl(CaptionRecord, tmp_path / "out" / "captions.jsonl"))
    negatives = {each.caption_id: str(each.text) for each in read_negatives(tmp_path / "out" / "negatives.jsonl")}
    plain = {text.rstrip(".").lower() for texts in sentences.values() for text in texts}
    for record in records:
        first, second = record.id.split("+")
        assert first[:4] == second[:4], "one orientation"
        texts = [text.rstrip(".") for text in record.text.split(". ")]
        assert record.positives[0] == f"{texts[1]}. {texts[0]}." and len(record.positives) == 3
        for positive in record.positives[1:]:
            further = positive.removesuffix(".").split(". ")
            assert set(further) <= plain - set(texts) and len(further) == 2
        changed = normalized_words(negatives[record.id])
        assert changed not in (normalized_words(record.text), normalized_words(record.positives[0]))
        assert sorted(changed) == sorted(normalized_words(record.text)), "words change places"
        picture = numpy.asarray(Image.open(tmp_path / "out" / "images" / record.image))
        assert picture.shape == (16, 16, 3) and len(numpy.unique(picture.reshape(-1, 3), axis=0)) == 2
    assert main([*words, str(tmp_path / "out")]) == 2 and "already exists" in capsys.readouterr().err
    again = tmp_path / "again"
    assert main([*words, str(again)]) == 0
    assert (again / "captions.jsonl").read_bytes() == (tmp_path / "out" / "captions.jsonl").read_bytes()
    assert (
        main(
            ["prepare", "composites", str(captions), "--images", str(tmp_path / "images"), "--size", "15", "--out", "x"]
        )
        == 2
    )
    captions.write_text(json.dumps(rows[0]) + "\n")
    assert main([*words, str(tmp_path / "one")]) == 2 and "a composite needs two" in capsys.readouterr().err


def test_images_of_one_caption_are_no_partners(tmp_path: Path) -> None:
    """In either order their texts would say the same, so the first positive would be another sentence."""
    records = []
    for number, text in enumerate(["a dog", "A dog.", "a dog", "two men"]):
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
        further = () if number == 3 else (f"it is {number}", f"number {number}")
        records.append(
            CaptionRecord(id=f"{number}", image=f"{number}.png", text=text, image_id=f"{number}", positives=further)
        )
    results = list(composites(records, folder=tmp_path, size=8, seed=0))
    assert len(results) == 4 and all("3" in each.caption.id.split("+") for each in results)
    assert all(normalized_words(each.caption.positives[0]) != normalized_words(each.caption.text) for each in results)
    assert {len(each.caption.positives) for each in results} == {1}, "a partner without a further sentence"
    records[3] = records[3].model_copy(update={"positives": ("men sit",)})
    results = list(composites(records, folder=tmp_path, size=8, seed=0))
    assert all(["men sit." in text for text in each.caption.positives] == [False, True, True] for each in results)
