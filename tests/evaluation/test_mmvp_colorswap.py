"""MMVP-VLM and ColorSwap: files of the official form, literal readings of their protocols, and files that are wrong."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch

from degla.errors import InputError
from degla.evaluation.benchmarks import colorswap, mmvp_vlm
from degla.records import PairItem
from tests.evaluation.shelf_contract import assert_contract, literal_image, literal_text, paint, score, tiny_encoder
from tests.official import OFFICIAL, SHARED

PATTERNS = (
    "Orientation", "Presence", "State", "Quantity", "Spatial", "Color", "Structural Character", "Text",
    "Camera Perspective",
)  # fmt: skip
STATEMENTS = ('A dog, facing "left"', "A dog facing right")


def write_mmvp(root: Path) -> dict[str, list[str]]:
    """One pair a pattern; the second row of a pair is of another type, which counts for nothing."""
    truth: dict[str, list[str]] = {}
    (root / "mmvp_vlm").mkdir(parents=True)
    with (root / "mmvp_vlm" / "Questions.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["Question ID", "Type", "Statement"])
        for pair, pattern in enumerate(PATTERNS):
            for side, statement in enumerate(STATEMENTS):
                number = 2 * pair + side + 1
                table.writerow([number, "Text" if side else pattern, f"{statement} {pair}"])
                texts = [f"a photo of {statement} {pair}", f"{statement} {pair}"]
                truth[f"mmvp_vlm/MLLM_VLM Images/{pattern}/{number}.jpg"] = texts
    return truth


def write_colorswap(root: Path) -> dict[str, list[str]]:
    (root / "colorswap").mkdir(parents=True)
    rows, truth = [], {}
    for number in (9, 11, 19):
        texts = [f"a white raft {number} on blue water", f"a blue raft {number} on white water"]
        images = [f"images/img_{number}_{side}.png" for side in (1, 2)]
        about = {"image_source": "midjourney", "caption_source": "human"}
        rows.append({"id": number, **{f"caption_{side}": texts[side - 1] for side in (1, 2)},
                     **{f"image_{side}": images[side - 1] for side in (1, 2)}, **about})  # fmt: skip
        truth |= {f"colorswap/{image}": [text] for image, text in zip(images, texts, strict=True)}
    (root / "colorswap" / "test.json").write_text(json.dumps(rows))
    return truth


def test_oracle_liar_and_constant(tmp_path: Path) -> None:
    for name, write in (("mmvp_vlm", write_mmvp), ("colorswap", write_colorswap)):
        truth = write(tmp_path)
        assert_contract(name, tmp_path, truth, paint(tmp_path, truth))


def test_published_counts() -> None:
    official = [part for part in mmvp_vlm.BENCHMARK.parts if not part.name.startswith("raw/")]
    assert len(official) == 9 and sum(part.n or 0 for part in official) == 135
    assert [metric.verdict for metric in official[0].metrics] == ["image_ok", "text_ok", "group_ok"]
    assert colorswap.BENCHMARK.parts[0].n == 300


def test_mmvp_equals_its_script_item_by_item(tmp_path: Path) -> None:
    """Of each statement, a softmax over the two images; above one half is the first image."""
    truth = write_mmvp(tmp_path)
    paint(tmp_path, truth, size=(40, 30))
    encoder = tiny_encoder()
    texts = {item.texts[0] for item in mmvp_vlm.BENCHMARK.items(tmp_path) if item.part.endswith("orientation")}  # type: ignore[union-attr]
    assert texts == {'a photo of A dog, facing "left" 0', 'A dog, facing "left" 0'}, (
        "capitals matter to some tokenizers"
    )
    result = score(encoder, "mmvp_vlm", tmp_path)
    verdicts = {item.id: item.ok["image_ok"] == 1 for item in result.items}
    expected = {}
    with (tmp_path / "mmvp_vlm" / "Questions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        number = int(first["Question ID"])
        folder = tmp_path / "mmvp_vlm" / "MLLM_VLM Images" / first["Type"]
        images = torch.stack([literal_image(encoder, folder / f"{number + side}.jpg") for side in (0, 1)])
        choices = []
        for row in (first, second):
            text = literal_text(encoder, "a photo of " + row["Statement"])
            choices.append((100 * images @ text).softmax(dim=0)[0].item() > 0.5)
        part = mmvp_vlm._PATTERNS[first["Type"]]
        expected[f"mmvp_vlm/{part}/{number}"] = choices == [True, False]
    assert {name: right for name, right in verdicts.items() if "/raw/" not in name} == expected
    assert len(verdicts) == 2 * len(expected) == 18
    averages = {average.name: average for average in result.benchmarks[0].averages}
    assert averages["image"].value == pytest.approx(sum(expected.values()) / 9)
    for name, average in averages.items():
        prefix, _, metric = name.rpartition(".")
        own = [item.ok[f"{metric}_ok"] for item in result.items if item.part.startswith("raw/") == bool(prefix)]
        assert (average.n, average.value) == (9, pytest.approx(sum(own) / 9)), name


def test_colorswap_equals_its_protocol_item_by_item(tmp_path: Path) -> None:
    paint(tmp_path, write_colorswap(tmp_path), size=(40, 30))
    encoder = tiny_encoder()
    expected = {}
    for row in json.loads((tmp_path / "colorswap" / "test.json").read_text()):
        images = [literal_image(encoder, tmp_path / "colorswap" / row[f"image_{side}"]) for side in (1, 2)]
        texts = [literal_text(encoder, row[f"caption_{side}"]) for side in (1, 2)]
        s = [[float(image @ text) for text in texts] for image in images]
        text_ok = s[0][0] > s[0][1] and s[1][1] > s[1][0]
        image_ok = s[0][0] > s[1][0] and s[1][1] > s[0][1]
        expected[f"colorswap/test/{row['id']}"] = [text_ok and image_ok, text_ok, image_ok]
    verdicts = {
        item.id: [item.ok[f"{name}_ok"] == 1 for name in ("group", "text", "image")]
        for item in score(encoder, "colorswap", tmp_path).items
    }
    assert verdicts == expected


@pytest.mark.skipif(not OFFICIAL, reason="the official items are not in ../shared/data")
def test_the_official_items_of_colorswap(tmp_path: Path) -> None:
    (tmp_path / "colorswap").mkdir()
    rows = (SHARED / "colorswap" / "test_reconstructed.json").read_bytes()
    (tmp_path / "colorswap" / "test.json").write_bytes(rows)
    items = [item for item in colorswap.BENCHMARK.items(tmp_path) if isinstance(item, PairItem)]
    assert len(items) == len({item.id for item in items}) == 300
    bags = [[sorted(re.findall("[a-z0-9']+", text.lower())) for text in item.texts] for item in items]
    assert sum(first != second for first, second in bags) == 12


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, "Color", "a"], [2, "Color", "b"], [4, "Color", "c"], [5, "Color", "d"]], r"line 4: rows \[4, 5\] are no"),
        ([[1, "Color", "a"], [3, "Color", "b"]], r"line 2: rows \[1, 3\] are not a pair"),
        ([[1, "Color", "a"]], r"line 2: rows \[1\] are not a pair"),
        (
            [[1, "Colour", "a"], [2, "Color", "b"]],
            r"line 2: field 'Type': unknown pattern 'Colour'.*Did you mean 'Color'",
        ),
        ([[1, "Color", ""], [2, "Color", "b"]], r"line 2: field 'Statement'"),
        ([["one", "Color", "a"], [2, "Color", "b"]], r"line 2: field 'Question ID'"),
    ],
)
def test_wrong_questions_are_named(tmp_path: Path, rows: list[list[object]], message: str) -> None:
    with pytest.raises(InputError, match=r"Questions\.csv: cannot be read(.|\n)*MMVP_VLM(.|\n)*mmvp_vlm/Questions"):
        list(mmvp_vlm.BENCHMARK.items(tmp_path))
    (tmp_path / "mmvp_vlm").mkdir()
    with (tmp_path / "mmvp_vlm" / "Questions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["Question ID", "Type", "Statement"], *rows])
    with pytest.raises(InputError, match=rf"Questions\.csv {message}"):
        list(mmvp_vlm.BENCHMARK.items(tmp_path))


def test_wrong_colorswap_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test\.json: cannot be read(.|\n)*Top34051"):
        list(colorswap.BENCHMARK.items(tmp_path))
    write_colorswap(tmp_path)
    file = tmp_path / "colorswap" / "test.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([*rows, rows[0] | {"caption_2": ""}]))
    with pytest.raises(InputError, match=r"test\.json item 3: field 'caption_2'"):
        list(colorswap.BENCHMARK.items(tmp_path))
    file.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"'test' under .* has 3 items, the published one has 300"):
        score(tiny_encoder(), "colorswap", tmp_path, allow_missing=False)
