"""COLA and Winoground: two images, two captions; official counts, truth tables, literal twins on made pictures."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from degla.errors import InputError
from degla.evaluation.benchmarks import cola, winoground
from degla.evaluation.questions import ask
from degla.records import PairItem
from tests.evaluation.fake_encoders import FakeEncoder, words
from tests.evaluation.shelf_contract import (
    Colours,
    assert_contract,
    literal_image,
    literal_text,
    paint,
    score,
    tiny_encoder,
)
from tests.official import SHARED

ADDRESS = "https://cs-people.bu.edu/array/data/vg_gqa_images/{}.jpg"


def write_cola(root: Path, count: int = 3) -> dict[str, list[str]]:
    (root / "cola").mkdir()
    rows = [[ADDRESS.format(2 * n), f"left {n}", ADDRESS.format(2 * n + 1), f"right {n}"] for n in range(count)]
    (root / "cola" / "COLA_multiobjects_matching_benchmark.json").write_text(json.dumps(rows))
    return {f"vg/{2 * n + side}.jpg": [f"{('left', 'right')[side]} {n}"] for n in range(count) for side in (0, 1)}


def write_winoground(root: Path, count: int = 6) -> dict[str, list[str]]:
    (root / "winoground").mkdir()
    lines = [
        {
            "id": number,
            "image_0": f"ex_{number}_img_0",
            "image_1": f"ex_{number}_img_1" + (".png" if number else ""),
            "caption_0": f"one {number}",
            "caption_1": f"two {number}",
            "tag": "Noun",
            "secondary_tag": "",
            "num_main_preds": 1,
            "collapsed_tag": ("Object", "Relation", "Both")[number % 3],
        }
        for number in range(count)
    ]
    (root / "winoground" / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return {
        f"winoground/images/ex_{number}_img_{side}.png": [f"{('one', 'two')[side]} {number}"]
        for number in range(count)
        for side in (0, 1)
    }


def test_cola_counts_are_the_published_ones(data_root: Path) -> None:
    items = [item for item in cola.BENCHMARK.items(data_root) if isinstance(item, PairItem)]
    assert cola.BENCHMARK.parts[0].n == 210
    assert cola.BENCHMARK.parts[0].metrics[0].verdict == "image_ok"
    assert len(items) == len({item.id for item in items}) == (210 if data_root == SHARED else 12)
    if data_root != SHARED:
        assert [image.path for image in items[0].images] == ["vg/0.jpg", "vg/1.jpg"]
        assert items[0].texts == ("brown dog under white wall", "white dog under brown wall")
        return
    assert len({image.path for item in items for image in item.images}) == 218
    first = items[0]
    assert [image.path for image in first.images] == ["vg/2390970.jpg", "vg/2388902.jpg"]
    assert first.texts[1] == "brown giraffe behind tall white giraffe"


def test_pairs_that_share_an_image_are_drawn_together(tmp_path: Path) -> None:
    truth = write_cola(tmp_path, 6)
    file = tmp_path / "cola" / "COLA_multiobjects_matching_benchmark.json"
    # The second image of pair 0 is the second of pair 2, whose first one is the first of pair 3.
    # Pairs 4 and 5 share none, but both share one with pair 6.
    pairs = ((0, 1), (2, 3), (4, 1), (4, 5), (6, 7), (8, 9), (7, 8), (9, 10))
    rows = [[ADDRESS.format(first), "a", ADDRESS.format(second), "b"] for first, second in pairs]
    file.write_text(json.dumps(rows))
    paint(tmp_path, truth)
    items = score(tiny_encoder(), "cola", tmp_path).items
    assert [item.image for item in items] == [f"vg/{number}.jpg" for number, _ in pairs]
    assert [item.drawn_with for item in items] == [f"vg/{number}.jpg" for number in (0, 2, 0, 0, 6, 6, 6, 6)]


def test_oracle_liar_and_constant(tmp_path: Path) -> None:
    for name, write in (("cola", write_cola), ("winoground", write_winoground)):
        truth = write(tmp_path)
        assert_contract(name, tmp_path, truth, paint(tmp_path, truth))


def table_encoder(colours: Colours, captions: list[str], table: np.ndarray) -> FakeEncoder:
    """Two images and two captions whose four cosines are in the order of `table` [image, caption]."""
    directions = np.eye(2)
    by_colour = {colour: table[number] for number, colour in enumerate(colours.values())}
    by_tokens = {tuple(words(caption)): directions[number] for number, caption in enumerate(captions)}

    def image_row(image: np.ndarray) -> np.ndarray:
        rgb = tuple(int(value) for value in np.round(image.reshape(3, -1).mean(axis=1) * 255))
        # The third coordinate brings each row to the same length, so that cosines are in the table's proportion.
        row = by_colour[rgb]  # type: ignore[index]
        return np.append(row, np.sqrt(1 - (row**2).sum()))

    return FakeEncoder(image_row, lambda tokens: np.append(by_tokens[tokens], 0.0))


@pytest.mark.parametrize("name", ["cola", "winoground"])
def test_truth_table(tmp_path: Path, name: str) -> None:
    """All 24 orders of the four similarities against the definitions written out."""
    truth = write_cola(tmp_path, 1) if name == "cola" else write_winoground(tmp_path, 1)
    colours = paint(tmp_path, truth)
    captions = [text for texts in truth.values() for text in texts]
    counts = np.zeros(3)
    for order in permutations((0.1, 0.2, 0.3, 0.4)):
        table = np.array(order).reshape(2, 2)
        (item,) = score(table_encoder(colours, captions, table), name, tmp_path).items
        text = table[0, 0] > table[0, 1] and table[1, 1] > table[1, 0]
        image = table[0, 0] > table[1, 0] and table[1, 1] > table[0, 1]
        assert item.ok == {"text_ok": float(text), "image_ok": float(image), "group_ok": float(text and image)}
        counts += (text, image, text and image)
    assert counts.tolist() == [6, 6, 4]
    tied = score(table_encoder(colours, captions, np.array([[0.3, 0.3], [0.1, 0.4]])), name, tmp_path)
    assert tied.items[0].ok == {"text_ok": 0.0, "image_ok": 1.0, "group_ok": 0.0}
    assert tied.items[0].ties == {"text_ok": 1, "image_ok": 0, "group_ok": 1}
    turned = score(table_encoder(colours, captions, np.array([[0.3, 0.1], [0.3, 0.4]])), name, tmp_path)
    assert turned.items[0].ties == {"text_ok": 0, "image_ok": 1, "group_ok": 1}
    scores = {score.metric: score for score in tied.benchmarks[0].parts[0].scores}
    assert {metric: score.chance for metric, score in scores.items()} == {
        "image": 0.25,
        "text": 0.25,
        "group": pytest.approx(1 / 6),
    }


def test_equals_the_literal_protocol_item_by_item(tmp_path: Path, data_root: Path) -> None:
    """COLA's captions, and Winoground's shape, with noise for pictures."""
    (tmp_path / "cola").symlink_to(data_root / "cola")
    generator = torch.Generator().manual_seed(0)
    rows = json.loads((data_root / "cola" / "COLA_multiobjects_matching_benchmark.json").read_text())[:20]
    write_winoground(tmp_path, 18)
    names = [f"vg/{address.split('/')[-1]}" for row in rows for address in row[::2]]
    names += [f"winoground/images/ex_{number}_img_{side}.png" for number in range(18) for side in (0, 1)]
    for name in dict.fromkeys(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (6, 9, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).resize((90, 60)).save(tmp_path / name, format="PNG")
    encoder = tiny_encoder()

    def literal(images: list[str], texts: list[str]) -> dict[str, bool]:
        pictures = [literal_image(encoder, tmp_path / image) for image in images]
        captions = [literal_text(encoder, text) for text in texts]
        s = [[float(picture @ caption) for caption in captions] for picture in pictures]
        text = s[0][0] > s[0][1] and s[1][1] > s[1][0]
        image = s[0][0] > s[1][0] and s[1][1] > s[0][1]
        return {"text_ok": text, "image_ok": image, "group_ok": text and image}

    expected = {
        f"cola/multi_object/{number}": literal([f"vg/{row[i].split('/')[-1]}" for i in (0, 2)], [row[1], row[3]])
        for number, row in enumerate(rows)
    }
    verdicts = {
        item.id: {key: bool(worth) for key, worth in item.ok.items()} for item in score(encoder, "cola", tmp_path).items
    }
    assert {name: verdicts[name] for name in expected} == expected
    assert 0 < sum(row["image_ok"] for row in expected.values()) < len(expected)

    lines = map(json.loads, (tmp_path / "winoground" / "examples.jsonl").read_text().splitlines())
    expected = {
        f"winoground/{line['collapsed_tag'].lower()}/{line['id']}": literal(
            [f"winoground/images/ex_{line['id']}_img_{side}.png" for side in (0, 1)],
            [line["caption_0"], line["caption_1"]],
        )
        for line in lines
    }
    result = score(encoder, "winoground", tmp_path)
    assert {item.id: {key: bool(worth) for key, worth in item.ok.items()} for item in result.items} == expected
    averages = {average.name: average for average in result.benchmarks[0].averages}
    for metric in ("text", "image", "group"):
        assert averages[metric].n == 18
        assert averages[metric].value == pytest.approx(sum(row[f"{metric}_ok"] for row in expected.values()) / 18)
    assert sum(row["text_ok"] + row["image_ok"] for row in expected.values()) > 0


def test_winoground_parts_add_up_to_the_published_number() -> None:
    assert sum(part.n or 0 for part in winoground.BENCHMARK.parts) == 400


def test_winoground_keeps_the_finer_tags(tmp_path: Path) -> None:
    write_winoground(tmp_path)
    first = next(iter(winoground.BENCHMARK.items(tmp_path)))
    assert isinstance(first, PairItem)
    assert first.id == "winoground/object/0"
    assert first.meta == {"tag": "Noun", "secondary_tag": "", "num_main_preds": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([ADDRESS.format(1), "a", ADDRESS.format(2)], r"benchmark\.json item 0: field '3'"),
        (["images/1.jpg", "a", ADDRESS.format(2), "b"], r"benchmark\.json item 0: field '0'.*got 'images/1\.jpg'"),
        ([ADDRESS.format(1), "", ADDRESS.format(2), "b"], r"benchmark\.json item 0: field '1'"),
        ("abcd", r"benchmark\.json item 0: Input should be a valid list"),
    ],
)
def test_wrong_cola_records_are_named(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(InputError, match=r"benchmark\.json: cannot be read(.|\n)*arijitray1993"):
        list(cola.BENCHMARK.items(tmp_path))
    write_cola(tmp_path)
    (tmp_path / "cola" / "COLA_multiobjects_matching_benchmark.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match=message):
        list(cola.BENCHMARK.items(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 0}', r"examples\.jsonl line 2: field 'image_0'"),
        ('{"id": 0', r"examples\.jsonl line 2: not JSON"),
        ("[]", r"examples\.jsonl line 2: must be one JSON object, got an empty list"),
    ],
)
def test_wrong_winoground_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=r"examples\.jsonl: cannot be read(.|\n)*facebook/winoground"):
        list(winoground.BENCHMARK.items(tmp_path))
    write_winoground(tmp_path)
    file = tmp_path / "winoground" / "examples.jsonl"
    first = file.read_text().splitlines()[0]
    file.write_text(f"{first}\n{line}\n")
    with pytest.raises(InputError, match=message):
        list(winoground.BENCHMARK.items(tmp_path))
    row = json.loads(first) | {"collapsed_tag": "Noun"}
    file.write_text(f"{first}\n{json.dumps(row)}\n")
    with pytest.raises(InputError, match=r"line 2: field 'collapsed_tag'.*got 'Noun'"):
        list(winoground.BENCHMARK.items(tmp_path))


def test_images_that_are_there_are_not_called_missing(tmp_path: Path) -> None:
    """Half of each pair is there, so that no item can be asked."""
    write_cola(tmp_path)
    (tmp_path / "vg").mkdir()
    for number in (0, 2, 4):
        (tmp_path / "vg" / f"{number}.jpg").touch()
    with pytest.raises(InputError, match=r"every item lacks an image: 3 of 6 are not under .*, for example vg/1\.jpg"):
        ask(cola.BENCHMARK, tmp_path, allow_missing=True)
