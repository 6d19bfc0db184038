"""VALSE against the official files, a literal twin, made data, and the averages that are in print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from degla.errors import InputError
from degla.evaluation.benchmarks.valse import BENCHMARK
from degla.records import PairItem
from tests.evaluation.shelf_contract import (
    assert_contract,
    average_columns,
    literal_image,
    literal_text,
    paint,
    score,
    tiny_encoder,
)
from tests.official import SHARED

COUNTS = {
    "existence": (534, 505),
    "plurals": (1000, 851),
    "counting-hard": (1000, 868),
    "counting-small-quant": (1000, 900),
    "counting-adversarial": (756, 691),
    "relations": (614, 535),
    "action-replacement": (779, 648),
    "actant-swap": (1042, 949),
    "coreference-standard": (916, 708),
    "coreference-hard": (141, 104),
    "foil-it": (1000, 943),
}
VALID = {part: valid for part, (_, valid) in COUNTS.items()}
COLUMNS = ("existence", "plurals", "counting", "relations", "action-replacement", "actant-swap")
COLUMNS += ("coreference-standard", "coreference-hard", "foil-it")


def columns(row: str) -> dict[str, float]:
    """The nine printed columns as eleven parts; Counting stands for its three files."""
    printed = dict(zip(COLUMNS, (float(number) / 100 for number in row.split()), strict=True))
    counting = printed.pop("counting")
    return printed | dict.fromkeys(("counting-hard", "counting-small-quant", "counting-adversarial"), counting)


def test_counts_of_the_official_files(data_root: Path) -> None:
    items = [item for item in BENCHMARK.items(data_root) if isinstance(item, PairItem)]
    assert {part.name: part.n for part in BENCHMARK.parts} == {part: n for part, (n, _) in COUNTS.items()}
    assert (sum(n for n, _ in COUNTS.values()), sum(VALID.values())) == (8782, 7702)
    counts = counts_of(data_root)
    assert len(items) == len({item.id for item in items}) == sum(n for n, _ in counts.values())
    for part, (everything, valid) in counts.items():
        assert sum(item.part == part for item in items) == everything
        assert sum(item.part == part and item.keep for item in items) == valid
    assert sum(item.texts[0] == item.texts[1] for item in items) == (24 if data_root == SHARED else 0)
    assert not any(item.texts[0] == item.texts[1] for item in items if item.keep)
    assert {item.reason != "" for item in items if item.keep} == {False}
    assert all("caption of 3" not in item.reason and item.reason for item in items if not item.keep)


def counts_of(root: Path) -> dict[str, tuple[int, int]]:
    """Records and valid records of each piece."""
    return COUNTS if root == SHARED else dict.fromkeys(COUNTS, (6, 4))


def test_where_the_images_lie(data_root: Path) -> None:
    folders: dict[str, dict[str, int]] = {}
    items = list(BENCHMARK.items(data_root))
    for item in items:
        numbers = folders.setdefault(item.part, {})
        folder = item.images[0].path.rpartition("/")[0]
        numbers[folder] = numbers.get(folder, 0) + 1
    official = data_root == SHARED
    counts = {part: n for part, (n, _) in counts_of(data_root).items()}
    assert folders["existence"] == {"vg": counts["existence"]}
    assert folders["plurals"] == {"coco/val2017": counts["plurals"]}
    assert folders["relations"] == {"coco/val2017": counts["relations"]}
    assert folders["actant-swap"] == {"swig/images_512": counts["actant-swap"]}
    standard = {"coco/train2014": 633, "coco/val2014": 283} if official else {"coco/train2014": 6}
    assert folders["coreference-standard"] == standard
    assert folders["coreference-hard"] == {"visdial/val2018": counts["coreference-hard"]}
    assert folders["foil-it"] == {"coco/val2014": counts["foil-it"]}
    first = next(item for item in items if item.part == "counting-adversarial")
    assert first.images[0].path == ("vg/1.jpg" if official else "vg/4.jpg")
    if not official:
        return
    actions = [item for item in items if item.id.endswith("/actions_test_0")]
    assert [item.part for item in actions] == ["action-replacement", "actant-swap"]
    assert actions[1].texts == ("A man exercises his torso.", "A torso exercises for a man.")
    assert actions[1].meta["classes_foil"] == "torso"


FOLDERS = {"v7w": "vg", "COCO": "coco/{}2014", "VisualDialog": "visdial/val2018", "running": "swig/images_512"}


def literal_place(name: str) -> str:
    """Where an image lies by its name, as VALSE's README says."""
    beginning, _, rest = name.partition("_")
    if beginning not in FOLDERS:
        return f"coco/val2017/{name}"
    folder = FOLDERS[beginning].format("train" if rest.startswith("train") else "val")
    return f"{folder}/{rest if beginning == 'v7w' else name}"


def test_equals_the_literal_protocol_item_by_item(data_root: Path, tmp_path: Path) -> None:
    """On the pictures that are there; official photographs of foil-it carry 2014 names, and are the same pictures."""
    official = data_root == SHARED
    root = data_root
    if official:
        root = tmp_path
        (root / "valse").symlink_to(data_root / "valse")
        (root / "coco" / "val2014").mkdir(parents=True)
        (root / "coco" / "val2017").symlink_to(data_root / "coco" / "val2017")
        for image in (data_root / "coco" / "val2017").glob("*.jpg"):
            (root / "coco" / "val2014" / f"COCO_val2014_{image.name}").symlink_to(image)
    encoder = tiny_encoder()
    counts = counts_of(data_root)
    expected = {}
    for part in COUNTS:
        for key, row in json.loads((root / "valse" / f"{part}.json").read_text()).items():
            image = root / literal_place(row["image_file"])
            if row["mturk"]["caption"] < 2 or not image.exists():
                continue
            row_image = literal_image(encoder, image)
            caption, foil = (float(row_image @ literal_text(encoder, row[name])) for name in ("caption", "foil"))
            expected[f"valse/{part}/{key}"] = caption > foil
    result = score(encoder, "valse", root)
    assert {item.id: item.ok["text_ok"] == 1 for item in result.items} == expected
    assert len(expected) == (16 if official else 39)
    assert 0 < sum(expected.values()) < len(expected)
    for part in result.benchmarks[0].parts:
        first = part.scores[0]
        assert first.n + part.missing + part.filtered == counts[part.name][0]
        assert part.filtered == counts[part.name][0] - counts[part.name][1]
    assert ("mean11" in {average.name for average in result.benchmarks[0].averages}) == (not official)


@pytest.mark.parametrize(
    ("row", "mean11", "mean9", "mean7"),
    [
        ("82.4 73.8 68.3 75.3 82.6 88.8 58.5 54.8 93.8", 74.08, 75.37, 76.56),
        ("78.6 77.6 64.3 74.0 81.2 88.5 54.9 52.9 93.7", 72.21, 73.97, 75.28),
        ("76.8 72.0 65.2 72.7 81.6 84.8 58.9 54.8 91.8", 71.73, 73.18, 74.08),
        ("68.7 57.1 61.0 65.4 77.8 71.8 54.1 51.0 89.8", 65.34, 66.30, 67.05),
    ],
)
def test_averages_in_print(row: str, mean11: float, mean9: float, mean7: float) -> None:
    averages = {average.name: 100 * average.value for average in average_columns(BENCHMARK, columns(row)).averages}
    assert averages["mean11"] == pytest.approx(mean11, abs=0.0051)
    assert averages["mean9"] == pytest.approx(mean9, abs=0.0051)
    assert averages["mean7"] == pytest.approx(mean7, abs=0.0051)


def test_averages_of_the_reference_model() -> None:
    values = (69.31, 57.58, 64.52, 61.89, 58.18, 65.98, 77.78, 71.76, 54.94, 51.92, 90.14)
    printed = dict(zip(COUNTS, (value / 100 for value in values), strict=True))
    averages = {average.name: average for average in average_columns(BENCHMARK, printed, VALID).averages}
    assert 100 * averages["mean11"].value == pytest.approx(65.8, abs=0.051)
    assert 100 * averages["mean7"].value == pytest.approx(67.53, abs=0.0051)
    assert 100 * averages["mean7.micro"].value == pytest.approx(67.6, abs=0.051)
    assert averages["micro"].n == 7702
    assert averages["micro"].value == pytest.approx(
        sum(printed[part] * n for part, n in VALID.items()) / sum(VALID.values())
    )


def write_made(root: Path) -> dict[str, list[str]]:
    """Two valid items and one invalid a piece; the truth of each image."""
    truth: dict[str, list[str]] = {}
    (root / "valse").mkdir()
    names = {
        "existence": ("visual7w", "v7w_{}.jpg", "vg/{}.jpg"),
        "counting": ("visual7w", "v7w_1{}.jpg", "vg/1{}.jpg"),
        "coreference-standard": ("VisDial_v1.0", "COCO_train2014_{}.jpg", "coco/train2014/COCO_train2014_{}.jpg"),
        "coreference-hard": (
            "VisDial_v1.0",
            "VisualDialog_val2018_{}.jpg",
            "visdial/val2018/VisualDialog_val2018_{}.jpg",
        ),
        "foil-it": ("FOIL dataset", "COCO_val2014_{}.jpg", "coco/val2014/COCO_val2014_{}.jpg"),
        "act": ("SWiG", "running_{}.jpg", "swig/images_512/running_{}.jpg"),
        "plurals": ("coco2017", "00{}.jpg", "coco/val2017/00{}.jpg"),
        "relations": ("coco_2017", "01{}.jpg", "coco/val2017/01{}.jpg"),
    }
    for part in COUNTS:
        dataset, name, path = next(value for start, value in names.items() if part.startswith(start))
        rows = {}
        for number in range(3):
            caption = f"{part} true {number}"
            truth.setdefault(path.format(number), []).append(caption)
            rows[f"same_{number}"] = {
                "dataset": dataset,
                "image_file": name.format(number),
                "caption": caption,
                "foil": f"{part} false {number}",
                "classes_foil": [1, 2] if part == "existence" else 3,
                "mturk": {"caption": 3 - number, "foil": number, "other": 0},
            }
        (root / "valse" / f"{part}.json").write_text(json.dumps(rows))
    return truth


def test_oracle_liar_and_constant(tmp_path: Path) -> None:
    truth = write_made(tmp_path)
    colours = paint(tmp_path, truth)
    assert_contract("valse", tmp_path, truth, colours)
    result = score(tiny_encoder(), "valse", tmp_path).benchmarks[0]
    assert [(part.scores[0].n, part.filtered) for part in result.parts] == [(2, 1)] * 11
    assert all(part.scores[0].chance == 0.5 for part in result.parts)
    assert result.headline == {"composition": "mean11"}
    assert len(result.annotation_sha256) == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"mturk": {"caption": "many", "foil": 0, "other": 0}},
            r"existence\.json item 'same_0': field 'mturk\.caption'",
        ),
        ({"mturk": None}, r"existence\.json item 'same_0': field 'mturk'"),
        ({"foil": ""}, r"existence\.json item 'same_0': field 'foil'"),
        ({"caption": 3}, r"existence\.json item 'same_0': field 'caption'"),
        ({"dataset": "imagenet", "image_file": "a.jpg"}, r"existence\.json item 'same_0': field 'dataset': 'imagenet'"),
    ],
)
def test_wrong_records_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_made(tmp_path)
    file = tmp_path / "valse" / "existence.json"
    rows = json.loads(file.read_text())
    rows["same_0"] |= change
    file.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=message):
        list(BENCHMARK.items(tmp_path))


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"existence\.json: cannot be read(.|\n)*Heidelberg-NLP(.|\n)*swig/images_512"):
        list(BENCHMARK.items(tmp_path))
    write_made(tmp_path)
    file = tmp_path / "valse" / "existence.json"
    for content, message in (
        ("[]", "must be one JSON object, got a list"),
        ("{", "line 1: not JSON"),
        ('{"a": {}, "a": {}}', "the key 'a' occurs twice"),
        ("[" * 100000, "nested more than 64 levels"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=rf"existence\.json.*{message}"):
            list(BENCHMARK.items(tmp_path))
    file.write_bytes(b'{"\xff": 1}')
    with pytest.raises(InputError, match=r"existence\.json: not UTF-8"):
        list(BENCHMARK.items(tmp_path))
