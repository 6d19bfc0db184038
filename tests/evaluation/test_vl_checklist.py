"""VL-CheckList's format on made files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from degla.errors import InputError
from degla.evaluation.benchmarks.vl_checklist import BENCHMARK
from degla.records import PairItem
from tests.evaluation.shelf_contract import (
    assert_contract,
    literal_image,
    literal_text,
    paint,
    score,
    tiny_encoder,
    values_of,
)

FILES = {
    "Attribute/vg/color.json": ("VG_100K_2/{}.jpg", "vg/{}.jpg"),
    "Attribute/vaw/size.json": ("VG_100K/1{}.jpg", "vg/1{}.jpg"),
    "Object/Location/swig_center.json": ("running_{}.jpg", "swig/images_512/running_{}.jpg"),
    "Relation/hake_action.json": ("hico/train/{}.jpg", "hake/hico/train/{}.jpg"),
}


def write_made(root: Path) -> dict[str, list[str]]:
    truth: dict[str, list[str]] = {}
    for name, (written, path) in FILES.items():
        file = root / "vl_checklist" / name
        file.parent.mkdir(parents=True)
        rows = [
            [written.format(number), {"POS": [f"{file.stem} true {number}"], "NEG": [f"{file.stem} false {number}"]}]
            for number in range(3 if "color" in name else 2)
        ]
        file.write_text(json.dumps(rows))
        for number, (_, captions) in enumerate(rows):
            truth.setdefault(path.format(number), []).extend(captions["POS"])
    return truth


def test_oracle_liar_and_constant(tmp_path: Path) -> None:
    truth = write_made(tmp_path)
    assert_contract("vl_checklist", tmp_path, truth, paint(tmp_path, truth))


def test_equals_the_literal_protocol(tmp_path: Path) -> None:
    truth = write_made(tmp_path)
    paint(tmp_path, truth)
    encoder = tiny_encoder()
    by_file = {}
    expected = {}
    for name, (written, path) in FILES.items():
        right = []
        for number, (image, captions) in enumerate(json.loads((tmp_path / "vl_checklist" / name).read_text())):
            assert image == written.format(number)
            picture = literal_image(encoder, tmp_path / path.format(number))
            true, false = (float(picture @ literal_text(encoder, captions[key][0])) for key in ("POS", "NEG"))
            right.append(true > false)
            expected[f"vl_checklist/{name.removesuffix('.json').lower()}/{number}"] = true > false
        by_file[name] = sum(right) / len(right)
    result = score(encoder, "vl_checklist", tmp_path)
    assert {item.id: item.ok["text_ok"] == 1 for item in result.items} == expected
    values = values_of(result.benchmarks[0])
    attribute = (by_file["Attribute/vg/color.json"] + by_file["Attribute/vaw/size.json"]) / 2
    assert values["attribute"] == pytest.approx(attribute)
    others = by_file["Object/Location/swig_center.json"] + by_file["Relation/hake_action.json"]
    assert values["mean3"] == pytest.approx((attribute + others) / 3)
    assert len(result.benchmarks[0].annotation_sha256) == 4


def test_the_first_of_several_wordings_is_asked(tmp_path: Path) -> None:
    """As the released `evaluate.py` does: SWiG's objects have three true and three false texts."""
    file = tmp_path / "vl_checklist/Object/Size/swig_tool_small.json"
    file.parent.mkdir(parents=True)
    file.write_text('[["dragging_90.jpg", {"POS": ["a", "b", "c"], "NEG": ["x", "y", "z"]}]]')
    (item,) = BENCHMARK.items(tmp_path)
    assert isinstance(item, PairItem) and (item.texts, item.gold) == (("a", "x"), ((1, 0),))


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"vl_checklist: no files found(.|\n)*om-ai-lab(.|\n)*Attribute,Object,Relation"
    ):
        list(BENCHMARK.items(tmp_path))
    write_made(tmp_path)
    file = tmp_path / "vl_checklist" / "Attribute" / "vg" / "color.json"
    for content, message in (
        ("{}", "must be one JSON list"),
        ('[["a.jpg"]]', "item 0: field '1'"),
        ('[["a.jpg", {"POS": [], "NEG": ["x"]}]]', r"item 0: field '1\.POS'"),
        ('[["a.jpg", {"POS": ["x"]}]]', r"item 0: field '1\.NEG'"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=rf"color\.json:? ?{message}"):
            list(BENCHMARK.items(tmp_path))
    file.write_text("[]")
    for name, message in (
        ("Attribute/coco/color.json", "must name the images' corpus"),
        ("Colour/vg/a.json", "one of the folders"),
    ):
        wrong = tmp_path / "vl_checklist" / name
        wrong.parent.mkdir(parents=True)
        wrong.write_text("[]")
        with pytest.raises(InputError, match=message):
            list(BENCHMARK.items(tmp_path))
        wrong.unlink()
