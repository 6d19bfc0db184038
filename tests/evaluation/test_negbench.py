"""NegBench: files of the official form, a literal reading of its protocol, its counts, and cells that are wrong."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from degla.errors import InputError
from degla.evaluation.benchmark import Retrieval
from degla.evaluation.benchmarks.negbench import BENCHMARK
from degla.evaluation.caveats import missing_images
from degla.evaluation.text_floors import compare_options
from degla.evaluation.verdicts import mistakes
from degla.model.load import load_encoder
from degla.records import PairItem
from tests.evaluation.fake_encoders import knowing
from tests.evaluation.shelf_contract import (
    assert_constant_ties,
    literal_image,
    literal_text,
    paint,
    score,
    tiny_encoder,
    values_of,
)
from tests.official import OFFICIAL, SHARED

COCO, VOC = "COCO_val_mcq_llama3.1_rephrased.csv", "VOC2007_mcq_llama3.1_rephrased.csv"
PLAIN = "COCO_val_retrieval.csv"
NEGATED = "COCO_val_negated_retrieval_llama3.1_rephrased_affneg_true.csv"
CHOICE = ["image_path", "correct_answer", *(f"caption_{n}" for n in range(4)), "correct_answer_template"]
CAPTIONS = ["positive_objects", "negative_objects", "filepath", "image_id", "captions"]


def write_table(root: Path, file: str, header: list[str], rows: list[list[object]]) -> None:
    folder = root / "negbench" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / file).open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def write_negbench(root: Path) -> dict[str, list[str]]:
    """Two questions on each of two images a set; the answer of one stands second, as in the synthetic files."""
    truth: dict[str, list[str]] = {}
    for file, folder, name in ((COCO, "coco/val2017", "{:012d}.jpg"), (VOC, "voc2007/JPEGImages", "{:06d}.jpg")):
        rows: list[list[object]] = []
        for number in range(4):
            image = name.format(number // 2)
            options = [f'{file[0]} {kind} {number}, "so"' for kind in ("true", "mixed", "other", "not")]
            right = int(number == 3)
            options[0], options[right] = options[right], options[0]
            truth.setdefault(f"{folder}/{image}", []).append(options[right])
            template = ("positive", "negative", "hybrid", "hybrid")[number]
            rows.append([f"/a/cluster/{image}", right, *options, template])
        write_table(root, file, CHOICE, rows)
    for file, word in ((PLAIN, "with"), (NEGATED, "without")):
        rows = []
        for number in range(2):
            captions = [f"a dog's day {word} {number}", f'one {word}\n"two" {number}']
            truth[f"coco/val2017/{number:012d}.jpg"] += captions
            rows.append([["dog"], ["cat"], f"data/coco/{number:012d}.jpg", number, repr(captions)])
        write_table(root, file, CAPTIONS, rows)
    return truth


def test_oracle_liar_and_constant(tmp_path: Path) -> None:
    truth = write_negbench(tmp_path)
    colours = paint(tmp_path, truth)
    for lying, worth in ((False, 1.0), (True, 0.0)):
        values = values_of(score(knowing(truth, colours, lying=lying), "negbench", tmp_path).benchmarks[0])
        # Of two images, the right one is always among the first five.
        scores = {
            name: value for name, value in values.items() if not name.endswith(("@5", "@10")) and "answered" not in name
        }
        assert lying or {value for name, value in values.items() if "answered" in name} == {0.0}
        assert set(scores.values()) == {worth} and "retrieval/coco.text_to_image@1" in scores
    for file in (PLAIN, NEGATED):
        (tmp_path / "negbench" / "images" / file).unlink()
    assert_constant_ties("negbench", tmp_path)


def test_multiple_choice_equals_a_literal_reading(tmp_path: Path) -> None:
    paint(tmp_path, write_negbench(tmp_path), size=(40, 30))
    encoder = tiny_encoder()
    expected = {}
    answers: dict[str, list[int]] = {"coco": [], "voc2007": []}
    for part, file, folder in (("coco", COCO, "coco/val2017"), ("voc2007", VOC, "voc2007/JPEGImages")):
        with (tmp_path / "negbench" / "images" / file).open(newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream)):
                image = literal_image(encoder, tmp_path / folder / row["image_path"].split("/")[-1])
                cosines = [float(image @ literal_text(encoder, row[f"caption_{option}"])) for option in range(4)]
                answer = cosines.index(max(cosines))
                right = answer == int(row["correct_answer"])
                answers[part].append(-1 if right else answer)
                expected[f"negbench/mcq/{part}/{number}"] = right
    result = score(encoder, "negbench", tmp_path)
    verdicts = {item.id: item.ok["text_ok"] == 1 for item in result.items if "/mcq/" in item.id}
    assert verdicts == expected and len(expected) == 8
    coco = {each.metric: each for part in result.benchmarks[0].parts[:1] for each in part.scores}
    assert coco["accuracy"].value == sum(right for name, right in expected.items() if "coco" in name) / 4
    for part, chosen in zip(result.benchmarks[0].parts, answers.values(), strict=False):
        values = {each.metric: each.value for each in part.scores}
        for place, name in enumerate(("hybrid", "positive", "negative"), start=1):
            assert values[f"answered_{name}"] == chosen.count(place) / 4
    assert sum(each > 0 for some in answers.values() for each in some) > 0
    # The third and fourth question have an answer of the hybrid template.
    assert coco["hybrid"].value == sum(expected[f"negbench/mcq/coco/{number}"] for number in (2, 3)) / 2
    assert [coco[name].n for name in ("accuracy", "positive", "negative", "hybrid")] == [4, 1, 1, 2]


def test_parts_that_lack_are_left_out(tmp_path: Path) -> None:
    truth = write_negbench(tmp_path)
    for file in (VOC, PLAIN):
        (tmp_path / "negbench" / "images" / file).unlink()
    paint(tmp_path, truth)
    parts = {entry.part for entry in BENCHMARK.items(tmp_path)}
    assert parts == {"mcq/coco", "retrieval/coco_negated"}


def test_what_a_missing_image_leaves_out_is_counted(tmp_path: Path) -> None:
    truth = write_negbench(tmp_path)
    paint(tmp_path, truth)
    (tmp_path / "coco/val2017/000000000001.jpg").unlink()
    entry = score(tiny_encoder(), "negbench", tmp_path).benchmarks[0]
    (note,) = missing_images(entry)
    # Two of COCO's four questions, and one of two images of each retrieval, which has scored texts.
    assert note.startswith("NegBench: 1 image was missing, so 4 items are not in the score.")
    questions = tuple(part for part in entry.parts if part.family != "retrieval")
    (note,) = missing_images(entry.model_copy(update={"parts": questions}))
    assert note.startswith("NegBench: 1 image was missing, so 2 of 8 items are not in the score.")


def test_an_empty_caption_is_asked_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = write_negbench(tmp_path)
    write_table(tmp_path, NEGATED, CAPTIONS, [["[]", "[]", "x/000000000000.jpg", 0, repr(["", "no cat"])]])
    paint(tmp_path, truth)
    with caplog.at_level(logging.WARNING):
        entry = next(entry for entry in BENCHMARK.items(tmp_path) if entry.part == "retrieval/coco_negated")
    assert isinstance(entry, Retrieval) and entry.texts == ("", "no cat")
    assert f"{NEGATED} line 2: a caption of x/000000000000.jpg is empty" in caplog.text
    assert score(tiny_encoder(), "negbench", tmp_path).items


def test_mistakes_and_the_right_answer_are_all_answers() -> None:
    leads = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.2], [0.0, 0.3, 0.0], [0.1, -0.1, 0.2]])
    right = np.array([1.0, 0.0, 0.5, 0.0])
    by_place = mistakes(leads, right, at=1)
    assert list(by_place) == ["mistake.1", "mistake.2", "mistake.3", "mistake.4"]
    # Equally good wrong options share what the right one lacks.
    shares = [[0, 0, 0.25, 0], [0] * 4, [0, 0.5, 0, 1], [0, 0.5, 0.25, 0]]
    assert np.array_equal(np.array(list(by_place.values())), shares)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("__import__('os').remove('x')", "column 'captions' must be a Python list of texts, found .__import__"),
        ("['a', 3]", "a Python list of texts"),
        ("{'a': 1}", "a Python list of texts, found"),
        ("['a'", "a Python list of texts, found"),
    ],
)
def test_a_cell_that_is_code_is_not_run(tmp_path: Path, cell: str, message: str) -> None:
    write_table(tmp_path, NEGATED, CAPTIONS, [["[]", "[]", "x/000000000000.jpg", 0, cell]])
    with pytest.raises(InputError, match=rf"affneg_true\.csv line 2: .*{message}"):
        list(BENCHMARK.items(tmp_path))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["a.jpg", 4, "a", "b", "c", "d", "hybrid"], "line 2: field 'correct_answer'"),
        (["a.jpg", 0, "a", "", "c", "d", "hybrid"], "line 2: field 'caption_1'"),
        (["a.jpg", 0, "a", "b", "c", "d", "both"], "line 2: field 'correct_answer_template'"),
        (["a.jpg", 0, "a", "b", "c", "d"], "line 2: has 6 cells, but the header has 7"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, row: list[object], message: str) -> None:
    with pytest.raises(
        InputError, match=r"none of COCO_val_mcq(.|\n)*found\.(.|\n)*m1k2zoo/negbench(.|\n)*voc2007/JPEGImages"
    ):
        list(BENCHMARK.items(tmp_path))
    write_table(tmp_path, COCO, CHOICE, [row])
    with pytest.raises(InputError, match=rf"{COCO} {message}"):
        list(BENCHMARK.items(tmp_path))


def test_a_file_without_a_caption_is_named(tmp_path: Path) -> None:
    write_table(tmp_path, "COCO_val_retrieval.csv", ["filepath", "captions"], [["1.jpg", "[]"]])
    with pytest.raises(InputError, match=r"COCO_val_retrieval\.csv: has no captions for retrieval/coco"):
        list(BENCHMARK.items(tmp_path))


def test_other_counts_are_refused(tmp_path: Path) -> None:
    write_negbench(tmp_path)
    with pytest.raises(InputError, match=r"'mcq/coco' under .* has 4 items, the published one has 5,914"):
        score(tiny_encoder(), "negbench", tmp_path, allow_missing=False)
    write_table(tmp_path, COCO, CHOICE, [["1.jpg", 0, *"abcd", "hybrid"]] * 5914)
    with pytest.raises(
        InputError, match=r"rephrased\.csv: answers per template are {'hybrid': 5914}, in the published file .*2032"
    ):
        list(BENCHMARK.items(tmp_path))
    (tmp_path / "negbench" / "images" / COCO).unlink()
    rows: list[list[object]] = [["[]", "[]", f"{number:012d}.jpg", number, "['a', 'b']"] for number in range(5000)]
    write_table(tmp_path, PLAIN, CAPTIONS, rows)
    with pytest.raises(
        InputError, match=r"retrieval\.csv: has 10,000 captions of 5,000 images, but the published file has 25,014"
    ):
        list(BENCHMARK.items(tmp_path))


QUESTIONS = [
    (0, ("A knife is here, but a car is not.", "A car is present, but there's no knife.", "This features a car",
         "Notably absent from this image is a knife.")),
    (1, ("This shows a chair, with no spoon.", "There are no chairs.", "A chair is present.", "It is spoon-free.")),
    (2, ("A TV monitor, but no people.", "This shows a tvmonitor.", "Persons and a dog.", "No person is visible.")),
    (0, ("No knife, but a car is here.", "No car, but a knife is here.", "A knife.", "There is no car.")),
    (None, ("A dog.", "A cat.", "No dog.", "No cat.")),
    (None, ("A knife.", "No knife.", "A car, but no knife.", "No car.")),
    (None, ("something", "nothing", "a dog", "a cat")),
]  # fmt: skip


@pytest.mark.parametrize(("right", "options"), QUESTIONS)
def test_options_compared_with_each_other(right: int | None, options: tuple[str, ...]) -> None:
    assert compare_options(options) == right


def test_floors_stand_beside_the_score_and_tell_nothing(tmp_path: Path) -> None:
    rows: list[list[object]] = [["1.jpg", 0, *QUESTIONS[0][1], "hybrid"]] * 20
    write_table(tmp_path, COCO, CHOICE, rows)
    paint(tmp_path, ["coco/val2017/1.jpg"])
    entry = score(tiny_encoder(), "negbench", tmp_path).benchmarks[0]
    assert entry.parts[0].scores[0].floors == {"shorter text": 0.0, "longer text": 0.0, "options compared": 1.0}
    assert entry.text_solvable == {} and entry.headline["composition"] == "mcq/coco"


@pytest.mark.skipif(not OFFICIAL, reason="the official files are not in ../shared/data")
def test_the_official_files(tmp_path: Path) -> None:
    (tmp_path / "negbench").mkdir()
    (tmp_path / "negbench" / "images").symlink_to(SHARED / "negbench")
    entries = list(BENCHMARK.items(tmp_path))
    pairs = [entry for entry in entries if isinstance(entry, PairItem)]
    assert Counter((entry.part, entry.group["template"]) for entry in pairs) == {
        ("mcq/coco", "positive"): 2032, ("mcq/coco", "negative"): 1870, ("mcq/coco", "hybrid"): 2012,
        ("mcq/voc2007", "positive"): 682, ("mcq/voc2007", "negative"): 2121, ("mcq/voc2007", "hybrid"): 2228,
    }  # fmt: skip
    assert [part.n for part in BENCHMARK.parts[:2]] == [5914, 5031]
    assert all(entry.gold == ((1, 0, 0, 0),) for entry in entries if isinstance(entry, PairItem))
    for part, least in (("coco", 0.99), ("voc2007", 0.98)):
        pairs = [entry for entry in entries if isinstance(entry, PairItem) and f"/{part}/" in entry.id]
        assert sum(compare_options(entry.texts) == 0 for entry in pairs) / len(pairs) > least
    (plain,) = (entry for entry in entries if isinstance(entry, Retrieval))
    assert (len(plain.images), len(plain.texts)) == (5000, 25014)
    there = {path.name for path in (SHARED / "coco" / "val2017").iterdir()}
    on_them = Counter(
        entry.group["template"]
        for entry in entries
        if isinstance(entry, PairItem) and entry.images[0].path.split("/")[-1] in there and "coco" in entry.part
    )
    assert on_them == {"positive": 41, "negative": 38, "hybrid": 42}
    captions = json.loads((SHARED / "coco" / "annotations" / "captions_val2017.json").read_text())
    texts = {row["caption"] for row in captions["annotations"] if row["image_id"] == 397133}
    assert texts == set(plain.texts[:5])


@pytest.mark.skipif(not OFFICIAL, reason="the official files are not in ../shared/data")
def test_the_shipped_model_on_photographs_equals_a_literal_reading(tmp_path: Path) -> None:
    """Every sixth of the 121 questions about the photographs that are there, one forward a picture and a text."""
    there = {path.name for path in (SHARED / "coco" / "val2017").iterdir()}
    with (SHARED / "negbench" / COCO).open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["image_path"].split("/")[-1] in there]
    assert len(rows) == 121
    rows = rows[::6]
    write_table(tmp_path, COCO, CHOICE, [[row[name] for name in CHOICE] for row in rows])
    (tmp_path / "coco").symlink_to(SHARED / "coco")
    encoder = load_encoder("photo")
    names = {row["image_path"].split("/")[-1] for row in rows}
    images = {name: literal_image(encoder, tmp_path / "coco" / "val2017" / name) for name in names}
    texts = {row[f"caption_{option}"] for row in rows for option in range(4)}
    row_of = {text: literal_text(encoder, text) for text in texts}
    expected = {}
    for number, row in enumerate(rows):
        image = images[row["image_path"].split("/")[-1]]
        cosines = [float(image @ row_of[row[f"caption_{option}"]]) for option in range(4)]
        right = cosines.index(max(cosines)) == int(row["correct_answer"])
        expected[f"negbench/mcq/coco/{number}"] = right
    verdicts = {item.id: item.ok["text_ok"] == 1 for item in score(encoder, "negbench", tmp_path).items}
    assert verdicts == expected and len(verdicts) == 21 and 0 < sum(expected.values()) < 21
