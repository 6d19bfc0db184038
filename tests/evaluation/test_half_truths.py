"""Half-truths: short true texts, right and wrong details of the same, made of captions; what is asked of them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from datasets import Dataset

from degla.errors import InputError
from degla.evaluation.benchmarks.half_truths import BENCHMARK
from degla.records import PairItem
from tests.evaluation.fake_encoders import constant, knowing
from tests.evaluation.shelf_contract import literal_image, literal_text, paint, score, tiny_encoder, values_of

CAPTIONS = [
    "A brown dog is on the red sofa.",
    "Two cats sit under a wooden table with a blue vase.",
    "A man in a white shirt holds a green umbrella.",
    "A cat.",
]


def write_captions(root: Path) -> list[PairItem]:
    (root / "half_truths" / "images").mkdir(parents=True)
    rows = [
        {"id": f"c{number}", "image": f"{number}.png", "text": text, "image_id": str(number)}
        for number, text in enumerate(CAPTIONS)
    ]
    (root / "half_truths" / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    paint(root, [f"half_truths/images/{number}.png" for number in range(len(CAPTIONS))])
    return [item for item in BENCHMARK.items(root) if isinstance(item, PairItem)]


def test_one_detail_is_added_and_one_is_wrong(tmp_path: Path) -> None:
    items = write_captions(tmp_path)
    assert {item.part for item in items} == {"thing", "relation"} and len(items) >= 4
    assert len({item.id for item in items}) == len(items) and not any(item.id.endswith("/c3") for item in items)
    for item in items:
        whole, short, half = item.texts
        assert item.gold == ((1, 1, 0),) and whole != half
        assert whole.startswith(f"{short} ") and half.startswith(f"{short} ")
        caption = CAPTIONS[int(item.id[-1])].lower()
        assert short.lower() in caption and half.lower() not in caption
        if item.part == "thing":
            assert whole.removeprefix(f"{short} and ").lower() in caption
        assert item.images[0].path == f"half_truths/images/{item.id[-1]}.png"
    assert [item.texts for item in BENCHMARK.items(tmp_path)] == [item.texts for item in items]  # type: ignore[union-attr]


def test_oracle_liar_and_a_literal_reading(tmp_path: Path) -> None:
    items = write_captions(tmp_path)
    truth = {item.images[0].path: [] for item in items} | {}
    for item in items:
        truth[item.images[0].path] += item.texts[:2]
    colours = paint(tmp_path, truth)
    for lying, worth in ((False, 1.0), (True, 0.0)):
        values = values_of(score(knowing(truth, colours, lying=lying), "half_truths", tmp_path).benchmarks[0])
        assert set(values.values()) == {worth}
    encoder = tiny_encoder()
    expected = {}
    for item in items:
        image = literal_image(encoder, tmp_path / item.images[0].path)
        whole, short, half = (float(image @ literal_text(encoder, text)) for text in item.texts)
        ok = {"text_ok.1": whole > half, "text_ok.2": short > half, "text_ok": min(whole, short) > half}
        expected[item.id] = ok
    result = score(encoder, "half_truths", tmp_path)
    assert {item.id: item.ok for item in result.items} == expected
    first = {part.name: part.scores[0] for part in result.benchmarks[0].parts}
    for part, row in first.items():
        right = [ok["text_ok.2"] for name, ok in expected.items() if f"/{part}/" in name]
        assert row.metric == "half_truth" and row.value == pytest.approx(sum(right) / len(right))
        # The half-truth is the longer text.
        assert row.floors["shorter text"] == 1.0 and row.chance == 0.5


def test_captions_may_be_a_folder(tmp_path: Path) -> None:
    items = write_captions(tmp_path)
    file = tmp_path / "half_truths" / "captions.jsonl"
    rows = list(map(json.loads, file.read_text().splitlines()))
    file.unlink()
    file.with_suffix("").mkdir()
    parquet.write_table(arrow.Table.from_pylist(rows), file.with_suffix("") / "part.parquet")
    result = score(constant(), "half_truths", tmp_path)
    assert len(result.items) == len(items)
    assert list(result.benchmarks[0].annotation_sha256) == ["half_truths/captions/part.parquet"]


def test_images_may_be_in_a_datasets_folder(tmp_path: Path) -> None:
    items = write_captions(tmp_path)
    file = tmp_path / "half_truths" / "captions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["image"] = {"bytes": (tmp_path / "half_truths" / "images" / row["image"]).read_bytes()}
    file.unlink()
    Dataset.from_list(rows).save_to_disk(str(file.with_suffix("")))
    result = score(constant(), "half_truths", tmp_path, allow_missing=False)
    assert len(result.items) == len(items)


def test_without_captions_what_is_needed_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"half_truths: no captions found(.|\n)*half_truths/captions\.\*"):
        list(BENCHMARK.items(tmp_path))
    (tmp_path / "half_truths").mkdir()
    (tmp_path / "half_truths" / "captions.jsonl").write_text('{"id": "1"}')
    with pytest.raises(InputError, match=r"captions\.jsonl line 1"):
        list(BENCHMARK.items(tmp_path))
