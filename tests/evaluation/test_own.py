"""A user's own true and false captions as a benchmark, floors included."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from degla.cli import main
from degla.errors import InputError
from degla.evaluation.benchmark import Retrieval
from degla.evaluation.benchmarks.own import BENCHMARK
from degla.evaluation.image_files import read_image_file
from degla.evaluation.questions import ask
from degla.evaluation.results import load_result
from degla.evaluation.text_floors import SHORTER, TEXT_SOLVABLE
from degla.records import PairItem
from tests.evaluation.shelf_contract import assert_contract, paint, score, tiny_encoder


def write(root: Path, name: str, *rows: object) -> Path:
    file = root / "own" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def read(root: Path) -> list[PairItem]:
    return [entry for entry in BENCHMARK.items(root) if isinstance(entry, PairItem)]


def write_all(root: Path) -> dict[str, list[str]]:
    """Every form at once; each image's path with what is true of it."""
    write(
        root,
        "mine.jsonl",
        {"image": "a.png", "caption": "true a", "negative": "fake a"},
        {"image": "b.png", "caption": "true b", "negatives": ["fake b", "sham b"], "part": "pairs", "id": 7},
    )
    (root / "own" / "more.csv").write_text(
        'image,caption,negative,part,id\nc.png,"true c, here","fake c, here",,\nd.png,true d,fake d,pairs,x\n'
    )
    write(root, "captions.jsonl", {"id": "1", "image": "e.png", "text": "true e", "image_id": "e"})
    common = {"caption_id": "1", "kind": "object", "source": "rules"}
    write(
        root,
        "negatives.jsonl",
        {**common, "rule": "swap_nouns", "text": "fake e", "accepted": True},
        {**common, "rule": "swap_nouns", "text": "sham e", "accepted": True, "draw": 1},
        {**common, "rule": "negation", "text": "no e", "accepted": False, "reason": "same"},
        {**common, "rule": "negation", "text": None, "accepted": False, "reason": "none"},
    )
    true = {"a": "true a", "b": "true b", "c": "true c, here", "d": "true d", "e": "true e"}
    return {f"{name}.png": [text] for name, text in true.items()}


def test_every_form_keeps_the_shelfs_contract(tmp_path: Path) -> None:
    truth = write_all(tmp_path)
    assert {item.id: item.texts for item in read(tmp_path)} == {
        "own/mine/mine-0": ("true a", "fake a"),
        "own/pairs/7-0": ("true b", "fake b"),
        "own/pairs/7-1": ("true b", "sham b"),
        "own/more/more-0": ("true c, here", "fake c, here"),
        "own/pairs/x": ("true d", "fake d"),
        "own/swap_nouns/1-0": ("true e", "fake e"),
        "own/swap_nouns/1-1": ("true e", "sham e"),
    }
    assert_contract("own", tmp_path, truth, paint(tmp_path, truth))
    result = score(tiny_encoder(), "own", tmp_path).benchmarks[0]
    assert result.headline == {"composition": "macro"} and len(result.annotation_sha256) == 4


def test_every_true_text_meets_every_false_one(tmp_path: Path) -> None:
    row = {"image": "a.png", "caption": "a cat", "captions": ["a pet"], "negatives": ["a dog", "a cow"], "part": "pets"}
    write(tmp_path, "mine.jsonl", row)
    assert {item.id: item.texts for item in read(tmp_path)} == {
        "own/pets/mine-0-0": ("a cat", "a dog"),
        "own/pets/mine-0-1": ("a cat", "a cow"),
        "own/pets/mine-0-2": ("a pet", "a dog"),
        "own/pets/mine-0-3": ("a pet", "a cow"),
    }


def test_the_digest_of_captions_of_any_form_is_recorded(tmp_path: Path) -> None:
    paint(tmp_path, write_all(tmp_path))
    (tmp_path / "own" / "captions.jsonl").unlink()
    (tmp_path / "own" / "captions.tsv").write_text("id\timage\ttext\n1\te.png\ttrue e\n")
    assert "own/captions.tsv" in score(tiny_encoder(), "own", tmp_path).benchmarks[0].annotation_sha256


def test_one_picture_has_one_name_however_it_is_written(tmp_path: Path) -> None:
    row = {"caption": "a cat", "negative": "a dog"}
    write(tmp_path, "mine.jsonl", *({**row, "image": name} for name in ("x/a.png", "./x/a.png", "x//a.png", "b.png")))
    assert [item.images[0].path for item in read(tmp_path)] == ["x/a.png"] * 3 + ["b.png"]
    pairs = [("x/a.png", "a cat"), ("./x/a.png", "an old cat")]
    retrieval = Retrieval.of_pairs("retrieval", "mine", pairs, merged=False, where=tmp_path)
    assert (len(retrieval.images), retrieval.owners) == (1, ((0,), (0,)))


def test_images_may_lie_beside_the_tables(tmp_path: Path) -> None:
    write(tmp_path, "mine.jsonl", {"image": "a.png", "caption": "a cat", "negative": "a dog"})
    assert read(tmp_path)[0].images[0].path == "a.png"
    (tmp_path / "own" / "images").mkdir()
    assert read(tmp_path)[0].images[0].path == "own/images/a.png"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "a.png", "caption": "x"}, "line 1: .*give one false caption"),
        ({"image": "a.png", "caption": "x", "negative": "x"}, "line 1: .*is identical to the caption"),
        ({"image": "a.png", "caption": "x", "negatives": ["y", " "]}, "line 1: .*none of them empty"),
        ({"image": "a.png", "caption": "x", "captions": ["y"], "negative": "y"}, "line 1: .*is identical to the capt"),
        ({"image": "a.png", "caption": "x", "captions": [" "], "negative": "y"}, "line 1: .*'captions' is empty"),
        ({"image": "", "caption": "x", "negative": "y"}, "line 1: field 'image'"),
        ({"image": "a.png", "caption": "x", "negativ": "y"}, "line 1: field 'negativ'"),
        ({"image": "a.png", "words": "x"}, "line 1: field 'words': .*Fields: image, caption; optional: negative, neg"),
        ({"image": "a.png", "negative": "x"}, "line 1: field 'caption': .*Fields: image, caption; optional: negative"),
        (["a.png"], "line 1: must be one JSON object, got a list of 1 entry"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, row: object, message: str) -> None:
    write(tmp_path, "mine.jsonl", row)
    with pytest.raises(InputError, match=rf"mine\.jsonl {message}"):
        read(tmp_path)


def test_wrong_folders_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"own: no table and no negatives found(.|\n)*own/NAME\.jsonl"):
        read(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "t.csv").write_text("image,caption,negative\na.png,x\n")
    with pytest.raises(InputError, match=r"t\.csv line 2: has 2 cells, but the header has 3"):
        read(tmp_path)
    (tmp_path / "own" / "t.csv").write_text("image,caption,negative\n")
    with pytest.raises(InputError, match=r"t\.csv: has no rows\. Expected"):
        read(tmp_path)
    (tmp_path / "own" / "t.csv").write_text("image,image,negative\na.png,x,y\n")
    with pytest.raises(InputError, match=r"t\.csv line 1: two columns are named 'image'"):
        read(tmp_path)
    (tmp_path / "own" / "more.json").write_text("[]")
    with pytest.raises(InputError, match=r"more\.json: tables are read from \.jsonl and \.csv only"):
        read(tmp_path)
    (tmp_path / "own" / "more.json").unlink()
    (tmp_path / "own" / "t.csv").unlink()
    negative = {"caption_id": "9", "kind": "x", "source": "rules", "rule": "r", "text": "fake", "accepted": True}
    write(tmp_path, "negatives.jsonl", negative)
    with pytest.raises(InputError, match=r"negatives\.jsonl: its captions are missing\. .* own/captions"):
        read(tmp_path)
    write(tmp_path, "captions.jsonl", {"id": "1", "image": "e.png", "text": "true e", "image_id": "e"})
    with pytest.raises(InputError, match=r"caption id '9' is not in captions\.jsonl"):
        read(tmp_path)
    write(tmp_path, "negatives.jsonl", negative | {"kind": "positive"})
    with pytest.raises(InputError, match=r"a true text\. Put a file of negatives at"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["composition", "recognition", "macro"])
def test_a_part_cannot_stand_for_a_column_or_an_average_of_tables(tmp_path: Path, name: str) -> None:
    write(tmp_path, f"{name}.jsonl", {"image": "a.png", "caption": "a cat", "negative": "a dog"})
    with pytest.raises(InputError, match=f"a part under .* is called '{name}'.* Rename the file"):
        ask(BENCHMARK, tmp_path, allow_missing=False)


def test_held_out_captions_and_what_degla_negatives_makes_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nouns = ("cat", "dog", "horse", "car", "boat", "bird", "tree", "man", "girl", "chair", "table", "plate")
    captions = tmp_path / "own" / "captions.jsonl"
    (tmp_path / "own" / "images").mkdir(parents=True)
    rows = []
    for number, noun in enumerate(nouns):
        Image.new("RGB", (16, 16), (20 * number, 90, 90)).save(tmp_path / "own" / "images" / f"{number}.png")
        other = nouns[number - 1]
        rows.append({"id": str(number), "image": f"{number}.png", "text": f"A {noun} is on top of a {other}."})
    captions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "own" / "negatives.jsonl"
    assert main(["negatives", str(captions), "--out", str(file), "--rules", "swap_nouns", "add_attribute"]) == 0
    (tmp_path / "own" / "negatives.jsonl.replies.jsonl").write_text('{"caption_id": "0"}\n')  # as --llm leaves it
    (tmp_path / "own" / "negatives.html").write_text("<html>")  # a page of degla negatives report
    out = tmp_path / "out.json"
    words = ["evaluate", "random", "--benchmarks", "own", "--root", str(tmp_path), "--out", str(out)]
    assert main(words) == 0, capsys.readouterr().err
    entry = load_result(out).benchmarks[0]
    assert {part.name for part in entry.parts} == {"swap_nouns", "add_attribute"}
    # What rules add is longer: the report counts it as text-solvable, and leaves exchanged nouns.
    assert entry.text_solvable is not None and SHORTER in entry.text_solvable["add_attribute"]
    assert entry.headline == {"composition": "macro.neutral", TEXT_SOLVABLE: "add_attribute"}


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_images_may_be_inside_the_captions(tmp_path: Path, kind: str) -> None:
    (tmp_path / "own" / "images").mkdir(parents=True)  # for tables; it does not hold these images
    texts = {"red": "a red cube left of a blue ball", "green": "a green cup on a black table"}
    images = paint(tmp_path, [f"{color}.png" for color in texts])
    contents = [(tmp_path / name).read_bytes() for name in images]
    captions = tmp_path / "own" / f"captions.{kind}"
    if kind == "parquet":
        rows = [{"text": text, "image": {"bytes": each}} for text, each in zip(texts.values(), contents, strict=True)]
        parquet.write_table(arrow.Table.from_pylist(rows), captions)
    else:
        with tarfile.open(captions, "w") as archive:
            for name, text in texts.items():
                archive.add(tmp_path / f"{name}.png", f"{name}.png")
                (tmp_path / f"{name}.txt").write_text(text)
                archive.add(tmp_path / f"{name}.txt", f"{name}.txt")
    negatives = tmp_path / "own" / "negatives.jsonl"
    assert main(["negatives", str(captions), "--out", str(negatives), "--rules", "swap_adjectives"]) == 0
    result = score(tiny_encoder(), "own", tmp_path, allow_missing=False)
    assert len(result.items) == 2
    assert {read_image_file(tmp_path, item.images[0].path) for item in read(tmp_path)} == set(contents)


def test_negatives_of_other_captions_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = ("a cat sleeps on a red sofa", "two boats cross the calm lake", "a girl kicks a ball over the fence")
    common = {"rule": "replace_nouns", "kind": "object", "source": "rules", "accepted": True}
    for shift, warned in ((0, False), (1, True)):
        named = [{"id": str(at), "image": f"{at}.png", "text": text} for at, text in enumerate(texts)]
        negatives = [text.rsplit(" ", 1)[0] + " spoon" for text in texts]
        write(tmp_path, "captions.jsonl", *named)
        write(
            tmp_path,
            "negatives.jsonl",
            *({**common, "caption_id": str(at), "text": negatives[at - shift]} for at in (0, 1, 2)),
        )
        caplog.clear()
        assert len(read(tmp_path)) == 3
        assert ("share few words with their captions" in caplog.text) == warned
