"""What'sUp: six files of the official form, pairs and sets, a literal reading of the protocol, files that are wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from degla.errors import InputError
from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmarks.whatsup import BENCHMARK
from degla.evaluation.verdicts import Judged
from degla.results import ItemVerdict
from tests.evaluation.shelf_contract import assert_contract, literal_image, literal_text, paint, score, tiny_encoder

WORDS = {
    "controlled_images": {"on": "on", "under": "under", "left_of": "to the left of", "right_of": "to the right of"},
    "controlled_clevr": {
        "in-front_of": "in front of", "behind": "behind", "left_of": "to the left of", "right_of": "to the right of",
    },
}  # fmt: skip
OBJECTS = [("beer-bottle", "armchair"), ("dog", "chair")]


def write_whatsup(root: Path) -> dict[str, list[str]]:
    truth: dict[str, list[str]] = {}
    (root / "whatsup").mkdir(parents=True)
    for stem, prepositions in WORDS.items():
        rows = []
        for (first, second), where in product(OBJECTS, prepositions):
            name = f"{first}_{where}_{second}.jpeg"
            order = [where, *(other for other in prepositions if other != where)]
            sentence = f"A {first.replace('-', ' ')} {{}} a {second}"
            options = [f"{stem[-1]} " + sentence.format(prepositions[each]) for each in order]
            rows.append({"image_path": f"data/{stem}/{name}", "caption_options": options})
            truth[f"whatsup/{stem}/{name}"] = options[:1]
        (root / "whatsup" / f"{stem}_dataset.json").write_text(json.dumps(rows))
    for stem, number in (("coco_qa_one_obj", 5), ("coco_qa_two_obj", 6), ("vg_qa_one_obj", "7"), ("vg_qa_two_obj", 8)):
        row = [number, f"A photo of a {stem} on the top", f"A photo of a {stem} on the bottom"]
        (root / "whatsup" / f"{stem}.json").write_text(json.dumps([row]))
        path = f"coco/val2017/{number:012d}.jpg" if stem.startswith("coco") else f"vg/{number}.jpg"
        truth[path] = row[1:2]
    return truth


def test_oracle_liar_and_constant(tmp_path: Path) -> None:
    truth = write_whatsup(tmp_path)
    assert_contract("whatsup", tmp_path, truth, paint(tmp_path, truth))


def judged(right: dict[str, bool]) -> Iterator[Judged]:
    """One set of four: file's name to whether it is right."""
    for name, worth in right.items():
        axis = "side" if "_left" in name or "_right" in name else "other"
        group = {"set": "a|b", "pair": f"a|b|{axis}", "preposition": "x"}
        ok = {"text_ok": float(worth)}
        yield Judged(
            ItemVerdict(id=name, benchmark="whatsup", part="controlled_a", image=name, group=group, ok=ok,
                        ties={"text_ok": 0}, margin=0.1), {"text_ok": 0.25},
        )  # fmt: skip


def test_where_no_group_is_whole_there_is_no_score() -> None:
    """Of a benchmark whose every metric needs whole groups, and of nothing at all."""
    (part,) = (part for part in BENCHMARK.parts if part.name == "controlled_a")
    sets = replace(part, metrics=tuple(metric for metric in part.metrics if metric.name == "sets"))
    only = replace(BENCHMARK, parts=(sets,), averages=(), headline={})
    for names in ((), ("a_on_b", "a_under_b")):
        assert aggregate(only, list(judged(dict.fromkeys(names, True)))).parts == {}


@pytest.mark.parametrize("wrong", [(), ("a_on_b",), ("a_on_b", "a_left_of_b"), ("a_on_b", "a_under_b")])
def test_pairs_and_sets_need_all_of_theirs(wrong: tuple[str, ...]) -> None:
    names = ("a_on_b", "a_under_b", "a_left_of_b", "a_right_of_b")
    scores = aggregate(BENCHMARK, list(judged({name: name not in wrong for name in names}))).parts["controlled_a"]
    by_metric = {score.metric: score for score in scores}
    pairs = [all(name not in wrong for name in pair) for pair in (names[:2], names[2:])]
    assert by_metric["accuracy"].value == (4 - len(wrong)) / 4
    assert (by_metric["pairs"].value, by_metric["pairs"].n) == (sum(pairs) / 2, 2)
    assert (by_metric["sets"].value, by_metric["sets"].n) == (float(not wrong), 1)
    assert [by_metric[name].chance for name in ("accuracy", "pairs", "sets")] == [0.25, 0.25**2, 0.25**4]


def test_a_set_that_lacks_an_image_is_not_counted() -> None:
    names = ("a_on_b", "a_left_of_b", "a_right_of_b")
    scores = {
        score.metric: score
        for score in aggregate(BENCHMARK, list(judged(dict.fromkeys(names, True)))).parts["controlled_a"]
    }
    assert "sets" not in scores and scores["pairs"].n == 1


def test_groups_come_from_the_names_of_files(tmp_path: Path) -> None:
    write_whatsup(tmp_path)
    groups = {item.id: item.group for item in BENCHMARK.items(tmp_path)}  # type: ignore[union-attr]
    assert groups["whatsup/controlled_b/beer-bottle_in-front_of_armchair.jpeg"] == {
        "set": "beer-bottle|armchair", "pair": "beer-bottle|armchair|other", "preposition": "in-front of",
    }  # fmt: skip
    axes = {where: groups[f"whatsup/controlled_a/dog_{where}_chair.jpeg"]["pair"]
            for where in ("left_of", "right_of", "on", "under")}  # fmt: skip
    assert axes == dict.fromkeys(("left_of", "right_of"), "dog|chair|side") | dict.fromkeys(
        ("on", "under"), "dog|chair|other"
    )
    assert groups["whatsup/coco_one/0"] == {"preposition": "top"}


def test_equals_a_literal_reading(tmp_path: Path) -> None:
    paint(tmp_path, write_whatsup(tmp_path), size=(40, 30))
    encoder = tiny_encoder()
    expected = {}
    for part, stem in (("controlled_a", "controlled_images"), ("controlled_b", "controlled_clevr")):
        for row in json.loads((tmp_path / "whatsup" / f"{stem}_dataset.json").read_text()):
            name = row["image_path"].split("/")[-1]
            image = literal_image(encoder, tmp_path / "whatsup" / stem / name)
            cosines = [float(image @ literal_text(encoder, text)) for text in row["caption_options"]]
            expected[f"whatsup/{part}/{name}"] = cosines.index(max(cosines)) == 0
    verdicts = {item.id: item.ok["text_ok"] == 1 for item in score(encoder, "whatsup", tmp_path).items}
    assert {name: right for name, right in verdicts.items() if "controlled" in name} == expected and len(verdicts) == 20


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        ("controlled_images_dataset", {"image_path": "a/dog_near_chair.jpeg", "caption_options": list("abcd")},
         r"item 0: field 'image_path': 'dog_near_chair.jpeg' is not OBJECT_PREPOSITION_OBJECT"),
        ("controlled_images_dataset", {"image_path": "a/dog_on_chair.jpeg", "caption_options": list("abc")},
         r"item 0: field 'caption_options'"),
        ("coco_qa_one_obj", [5, "a photo", ""], r"item 0: field '2'"),
        ("coco_qa_two_obj", ["mug.jpg", "a photo", "another"], "item 0: 'mug.jpg' is not a COCO image number"),
        ("vg_qa_two_obj", [5, "a photo"], r"item 0: field '2'"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named(tmp_path: Path, file: str, row: object, message: str) -> None:
    with pytest.raises(InputError, match=r"controlled_images_dataset\.json: cannot be read(.|\n)*whatsup_vlms"):
        list(BENCHMARK.items(tmp_path))
    write_whatsup(tmp_path)
    (tmp_path / "whatsup" / f"{file}.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match=rf"{file}\.json {message}"):
        list(BENCHMARK.items(tmp_path))


def test_published_counts(tmp_path: Path) -> None:
    write_whatsup(tmp_path)
    assert [part.n for part in BENCHMARK.parts] == [412, 408, 2247, 440, 1160, 291]
    with pytest.raises(InputError, match=r"'controlled_a' under .* has 8 items, the published one has 412"):
        score(tiny_encoder(), "whatsup", tmp_path, allow_missing=False)
