"""ARO on made files of its four forms: crops, group averages and exclusions, orders, ties, literal twins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from degla.errors import InputError
from degla.evaluation import perturb
from degla.evaluation.benchmarks.aro import BENCHMARK, EXCLUDED_RELATIONS
from degla.evaluation.questions import ask
from degla.records import PairItem
from tests.evaluation.fake_encoders import constant
from tests.evaluation.shelf_contract import (
    assert_contract,
    average_columns,
    literal_image,
    literal_text,
    paint,
    score,
    tiny_encoder,
    values_of,
)

BOX = {"bbox_x": 3, "bbox_y": 2, "bbox_w": 20, "bbox_h": 10}


@pytest.fixture(autouse=True)
def plain_tagger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tags by the first letter, so that these tests need no tagger."""

    def by_letter(captions: Sequence[str]) -> list[perturb.TaggedCaption]:
        names = {"n": "NN", "j": "JJ"}
        return [
            perturb.TaggedCaption(tuple(text.split()), tuple(names.get(word[0], "IN") for word in text.split()))
            for text in captions
        ]

    monkeypatch.setattr(perturb, "tag", by_letter)


def write_lists(root: Path, relations: Sequence[str], attributes: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    truth: dict[str, list[str]] = {}
    for name, groups, field in (
        ("relation", relations, "relation_name"),
        ("attribution", attributes, "attributes"),
    ):
        rows = []
        for number, group in enumerate(groups):
            image = f"{number % 7}.jpg"
            row = {
                "image_path": image,
                "true_caption": f"{name} true {number}",
                "false_caption": f"{name} fake {number}",
            }
            rows.append(row | BOX | {field: group, "image_id": str(number)})
            truth.setdefault(f"vg/{image}", []).append(f"{name} true {number}")
        (root / "aro").mkdir(exist_ok=True)
        (root / "aro" / f"visual_genome_{name}.json").write_text(json.dumps(rows))
    return truth


def write_orders(root: Path) -> dict[str, list[str]]:
    (root / "karpathy").mkdir(exist_ok=True)
    truth = {}
    for name, image, count in (
        ("coco_karpathy_test", "val2014/COCO_val2014_{}.jpg", 3),
        ("flickr30k_test", "flickr30k-images/{}.jpg", 2),
    ):
        rows = [
            {
                "image": image.format(number),
                "caption": [f"A n{number} j{number} over n{copy} by j{copy} {name} now." for copy in range(8, 10)],
            }
            for number in range(count)
        ]
        (root / "karpathy" / f"{name}.json").write_text(json.dumps(rows))
        prefix = "coco/" if name.startswith("coco") else ""
        truth |= {prefix + row["image"]: [perturb.prepare(text) for text in row["caption"]] for row in rows}
    return truth


def test_oracle_liar_and_constant(tmp_path: Path) -> None:
    pairs = [("old", "red")] * 25
    truth = write_lists(tmp_path, ["on"] * 4 + ["under"] * 3, pairs) | write_orders(tmp_path)
    colours = paint(tmp_path, truth)
    assert_contract("aro", tmp_path, truth, colours)
    result = score(tiny_encoder(), "aro", tmp_path).benchmarks[0]
    assert result.headline == {"composition": "mean4", "order": "order"}
    parts = {part.name: part for part in result.parts}
    assert {name: part.scores[0].n for name, part in parts.items()} == {
        "vg_relation": 7,
        "vg_attribution": 25,
        "coco_order": 6,
        "flickr30k_order": 4,
    }
    assert parts["vg_attribution"].scores[0].metric == "macro", "a pair of 25 items counts"
    assert parts["coco_order"].scores[0].chance == pytest.approx(0.2)
    assert parts["coco_order"].tie == "lenient"
    assert parts["vg_relation"].tie == "strict"
    assert set(result.annotation_sha256) == {
        *(f"aro/visual_genome_{name}.json" for name in ("relation", "attribution")),
        *(f"karpathy/{name}.json" for name in ("coco_karpathy_test", "flickr30k_test")),
    }


def test_another_number_of_items_of_a_part_that_may_be_absent_is_refused(tmp_path: Path) -> None:
    paint(tmp_path, write_lists(tmp_path, ["on"] * 3, [("old", "red")]))
    with pytest.raises(InputError, match=r"part 'vg_relation' under .* has 3 items, the published one has 23,937"):
        ask(BENCHMARK, tmp_path, allow_missing=False)


def test_a_part_without_its_own_metric_is_in_no_average(tmp_path: Path) -> None:
    truth = write_lists(tmp_path, ["on"], [("old", "red")] * 24) | write_orders(tmp_path)
    paint(tmp_path, truth)
    result = score(tiny_encoder(), "aro", tmp_path).benchmarks[0]
    assert [row.metric for part in result.parts if part.name == "vg_attribution" for row in part.scores] == ["micro"]
    assert {row.name for row in result.averages} == {"coco_order.mean", "flickr30k_order.mean", "order"}


def test_visual_genome_equals_the_literal_protocol(tmp_path: Path) -> None:
    """Crop, [false, true] and argmax, accuracy a relation without the listed ones, a pair of attributes from 25 on."""
    relations = ["on", "near", "under", "on", "in", "next to", "under", "on"] * 5
    attributes = [("old", "red")] * 30 + [("red", "old")] * 26 + [("wet", "dry")] * 24
    write_lists(tmp_path, relations, attributes)
    generator = torch.Generator().manual_seed(1)
    (tmp_path / "vg").mkdir()
    for number in range(7):
        pixels = torch.randint(0, 256, (6, 9, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).resize((48, 30)).save(tmp_path / "vg" / f"{number}.jpg")
    encoder = tiny_encoder()
    expected: dict[str, bool] = {}
    averages = {}
    for part, groups in (("relation", relations), ("attribution", ["_".join(pair) for pair in attributes])):
        by_group: dict[str, list[bool]] = {}
        rows = json.loads((tmp_path / "aro" / f"visual_genome_{part}.json").read_text())
        for index, (row, group) in enumerate(zip(rows, groups, strict=True)):
            picture = literal_image(encoder, tmp_path / "vg" / row["image_path"], (3, 2, 3 + 20, 2 + 10))
            options = [float(picture @ literal_text(encoder, row[name])) for name in ("false_caption", "true_caption")]
            right = options.index(max(options)) == 1
            expected[f"aro/vg_{part}/{index}"] = right
            by_group.setdefault(group, []).append(right)
        remaining = {
            group: verdicts
            for group, verdicts in by_group.items()
            if (group not in EXCLUDED_RELATIONS if part == "relation" else len(verdicts) >= 25)
        }
        assert len(remaining) == (3 if part == "relation" else 2)
        averages[part] = sum(sum(verdicts) / len(verdicts) for verdicts in remaining.values()) / len(remaining)
    result = score(encoder, "aro", tmp_path)
    assert {item.id: item.ok["text_ok"] == 1 for item in result.items} == expected
    assert 0.2 < sum(expected.values()) / len(expected) < 0.8
    for part in result.benchmarks[0].parts:
        name = part.name.removeprefix("vg_")
        macro, micro = part.scores
        assert (macro.metric, micro.metric) == ("macro", "micro")
        assert macro.value == pytest.approx(averages[name])
        members = [right for key, right in expected.items() if key.startswith(f"aro/{part.name}/")]
        assert micro.value == pytest.approx(sum(members) / len(members))
        assert macro.n == {"relation": 30, "attribution": 56}[name]
    assert "mean4" not in {average.name for average in result.benchmarks[0].averages}


def test_orders_equal_the_literal_protocol(tmp_path: Path) -> None:
    """Five options, the true one first, argmax takes the first of equals: lenient."""
    truth = write_orders(tmp_path)
    rows = json.loads((tmp_path / "karpathy" / "coco_karpathy_test.json").read_text())
    rows[0]["caption"].append("Nothing.")
    (tmp_path / "karpathy" / "coco_karpathy_test.json").write_text(json.dumps(rows))
    paint(tmp_path, truth)
    encoder = tiny_encoder()
    captions = [(row["image"], caption) for row in rows for caption in row["caption"]]
    orders = perturb.perturb([caption for _, caption in captions], seed=1)
    expected = []
    for (image, caption), wrong in zip(captions, orders, strict=True):
        picture = literal_image(encoder, tmp_path / "coco" / image)
        distinct = {text: float(picture @ literal_text(encoder, text)) for text in (perturb.prepare(caption), *wrong)}
        options = [distinct[text] for text in (perturb.prepare(caption), *wrong)]
        expected.append(options.index(max(options)) == 0)
    result = score(encoder, "aro", tmp_path)
    items = [item for item in result.items if item.part == "coco_order"]
    assert [item.ok["text_ok"] == 1 for item in items] == expected
    assert 0 < sum(expected) < len(expected)
    same = items[2]
    assert same.id == "aro/coco_order/0-2"
    assert (same.ok["text_ok"], same.ties["text_ok"], same.degenerate) == (1.0, 4, True)
    strict = score(encoder, "aro", tmp_path, tie="strict")
    assert next(item for item in strict.items if item.id == same.id).ok["text_ok"] == 0.0
    coco, flickr = result.benchmarks[0].parts
    assert coco.scores[0].value == pytest.approx(sum(expected) / len(expected))
    assert coco.degenerate >= 1
    assert flickr.scores[0].n == 4


def test_averaged_over_the_seeds_that_are_asked_for(tmp_path: Path) -> None:
    truth = write_orders(tmp_path)
    paint(tmp_path, truth)
    (tmp_path / "aro").mkdir()
    (tmp_path / "aro" / "order_seeds.json").write_text("[1, 5, 9]")
    result = score(tiny_encoder(), "aro", tmp_path).benchmarks[0]
    values = values_of(result)
    of_coco = [values[f"coco_order{seed}.accuracy"] for seed in ("", "/seed5", "/seed9")]
    assert values["coco_order.mean"] == pytest.approx(sum(of_coco) / 3)
    assert values["order"] == pytest.approx((values["coco_order.mean"] + values["flickr30k_order.mean"]) / 2)
    assert "aro/order_seeds.json" in result.annotation_sha256
    items = {item.id: item.texts for item in BENCHMARK.items(tmp_path) if isinstance(item, PairItem)}
    assert items["aro/coco_order/1-0"][0] == items["aro/coco_order/seed5/1-0"][0]
    assert items["aro/coco_order/1-0"][1:] != items["aro/coco_order/seed5/1-0"][1:]
    assert {part.tie for part in result.parts} == {"lenient"}
    (tmp_path / "aro" / "order_seeds.json").write_text("[5, 1]")
    assert {entry.part for entry in BENCHMARK.items(tmp_path)} == {
        f"{name}{seed}" for name in ("coco_order", "flickr30k_order") for seed in ("", "/seed1")
    }
    (tmp_path / "aro" / "order_seeds.json").unlink()
    alone = {item.id: item.texts for item in BENCHMARK.items(tmp_path) if isinstance(item, PairItem)}
    assert alone == {name: texts for name, texts in items.items() if "seed" not in name}
    for content, message in (
        ("[]", r"List should have at least 1 item"),
        ("[1, -2]", "field '1'"),
        ("[3, 3]", "contains a seed twice"),
    ):
        (tmp_path / "aro").mkdir(exist_ok=True)
        (tmp_path / "aro" / "order_seeds.json").write_text(content)
        with pytest.raises(InputError, match=rf"order_seeds\.json.*{message}"):
            list(BENCHMARK.items(tmp_path))


@pytest.mark.parametrize(
    ("row", "mean"),
    [
        ("59.2 62.9 48.4 59.1", 57.40),
        ("80.4 70.5 86.9 90.5", 82.08),
        ("81.8 80.5 81.7 83.9", 81.98),
        ("83.9 76.4 80.9 83.7", 81.23),
        ("81.6 74.3 93.8 94.7", 86.10),
    ],
)
def test_averages_in_print(row: str, mean: float) -> None:
    names = ("vg_relation", "vg_attribution", "coco_order", "flickr30k_order")
    # All items of VG-Attribution are in one pair here, which needs 25 of them.
    columns = dict(zip(names, (float(number) / 100 for number in row.split()), strict=True))
    averages = {average.name: average.value for average in average_columns(BENCHMARK, columns, {names[1]: 25}).averages}
    assert 100 * averages["mean4"] == pytest.approx(mean, abs=0.0051)


def test_the_excluded_relations_are_the_published_ones() -> None:
    assert len(EXCLUDED_RELATIONS) == 157
    assert {"near", "next to", "by", "with", "of", "beside", "around", "on the side of"} <= EXCLUDED_RELATIONS
    assert not {"on", "to the left of", "under", "in", "wearing"} & EXCLUDED_RELATIONS


def test_a_crop_outside_its_image_is_refused(tmp_path: Path) -> None:
    truth = write_lists(tmp_path, ["on"], [])
    paint(tmp_path, truth, size=(22, 12))
    with pytest.raises(InputError, match=r"vg/0\.jpg: crop \(3, 2, 20, 10\) lies outside"):
        score(constant(), "aro", tmp_path)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no ARO files found(.|\n)*mertyg(.|\n)*visual_genome_relation\.json"):
        list(BENCHMARK.items(tmp_path))
    write_lists(tmp_path, ["on"], [("old", "red")])
    for name, change, message in (
        ("relation", {"bbox_w": 0}, r"visual_genome_relation\.json item 0: field 'bbox_w'"),
        ("relation", {"relation_name": ""}, r"visual_genome_relation\.json item 0: field 'relation_name'"),
        ("relation", {"image_path": "../1.jpg"}, r"visual_genome_relation\.json item 0: field 'image_path'"),
        ("attribution", {"attributes": ["old"]}, r"visual_genome_attribution\.json item 0: field 'attributes\.1'"),
    ):
        file = tmp_path / "aro" / f"visual_genome_{name}.json"
        text = file.read_text()
        file.write_text(json.dumps([json.loads(text)[0] | change]))
        with pytest.raises(InputError, match=message):
            list(BENCHMARK.items(tmp_path))
        file.write_text(text)
    (tmp_path / "karpathy").mkdir()
    (tmp_path / "karpathy" / "flickr30k_test.json").write_text('[{"image": "a.jpg", "caption": []}]')
    with pytest.raises(InputError, match=r"flickr30k_test\.json item 0: field 'caption'"):
        list(BENCHMARK.items(tmp_path))
    file = tmp_path / "karpathy" / "flickr30k_test.json"
    file.write_text('[{"image": "a.jpg", "caption": ["a b"]}]')
    with pytest.raises(InputError, match=r"part 'vg_relation' under .* has 1 item, the published one has 23,937"):
        from degla.evaluation.run import Evaluation

        Evaluation(["aro"], tmp_path, progress=False).score(constant())
