"""COLA's single objects: average precision by hand, by a literal loop, and its files of the official form."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from degla.errors import DeglaError, InputError
from degla.evaluation.benchmarks.cola_single import BENCHMARK
from degla.evaluation.scoring import ranking_chance, score_ranking
from degla.records import PairItem
from tests.evaluation.fake_encoders import constant, knowing
from tests.evaluation.shelf_contract import literal_image, literal_text, paint, score, tiny_encoder, values_of

PHRASES = ["square white plate", "round red ball", "never there", "all of them"]
LABELS = [[1, 0, 0, 1], [0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]]
HARD = [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]


def write_cola_single(root: Path) -> dict[str, list[str]]:
    (root / "cola").mkdir(parents=True)
    truth: dict[str, list[str]] = {}
    for part, folder in (("GQA", "vg"), ("PACO", "paco")):
        rows = []
        for number, (label, hard) in enumerate(zip(LABELS, HARD, strict=True)):
            about = [{"plate": ["square"]}] if part == "GQA" else []
            rows.append([f"/a/cluster/{number}.jpg", *about, label, hard])
            truth[f"{folder}/{number}.jpg"] = [text for text, true in zip(PHRASES, label, strict=True) if true]
        (root / "cola" / f"COLA_singleobjects_benchmark_{part}.json").write_text(json.dumps([PHRASES, rows]))
    return truth


def test_average_precision_by_hand() -> None:
    """Right ones first and third of four: (1/1 + 2/3) / 2; all alike: the share of right ones."""
    values = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.7, 0.6]])
    precisions, ties, margin = score_ranking(values, np.array([1, 0, 1, 0]))
    assert precisions == pytest.approx([(1 + 2 / 3) / 2, 0.5, (1 / 2 + 2 / 3) / 2])
    assert ties.tolist() == [0, 4, 1] and margin == pytest.approx([-0.1, 0.0, -0.2], abs=1e-6)
    with pytest.raises(DeglaError, match="item 'x': the model's similarity is nan"):
        score_ranking(np.array([[np.nan, 1.0]]), np.array([1, 0]), ids=["x"])


@pytest.mark.parametrize("gold", [(1, 0, 0, 0), (1, 1, 0, 0, 0), (1, 1, 1, 0)])
def test_chance_is_the_mean_over_all_orders(gold: tuple[int, ...]) -> None:
    orders = np.array(list(permutations(range(len(gold)))))
    assert ranking_chance(np.array(gold)) == pytest.approx(score_ranking(orders, np.array(gold))[0].mean())


def test_oracle_liar_and_a_literal_reading(tmp_path: Path) -> None:
    truth = write_cola_single(tmp_path)
    colours = paint(tmp_path, truth, size=(40, 30))
    # The last phrase is true of all, the third of none: they ask nothing.
    items = {item.id: item for item in BENCHMARK.items(tmp_path) if isinstance(item, PairItem)}
    assert list(items) == [f"cola_single/{part}/{number}" for part in ("gqa", "paco") for number in (0, 1)]
    assert [image.path for image in items["cola_single/paco/1"].images] == [f"paco/{n}.jpg" for n in (0, 1, 3, 4)]
    oracle = score(knowing(truth, colours, lying=False), "cola_single", tmp_path).benchmarks[0]
    assert set(values_of(oracle).values()) == {1.0}
    liar = score(knowing(truth, colours, lying=True), "cola_single", tmp_path).benchmarks[0]
    tied = score(constant(), "cola_single", tmp_path).benchmarks[0]
    assert all(value < 1 for value in values_of(liar).values()) and set(values_of(tied).values()) == {0.5}
    encoder = tiny_encoder()
    for name, item in items.items():
        text = literal_text(encoder, item.texts[0])
        cosines = [float(literal_image(encoder, tmp_path / image.path) @ text) for image in item.images]
        ranked = [item.gold[place][0] for place in np.argsort(cosines)[::-1]]
        precisions = [sum(ranked[: at + 1]) / (at + 1) for at, true in enumerate(ranked) if true]
        (verdict,) = (row for row in score(encoder, "cola_single", tmp_path).items if row.id == name)
        assert verdict.ok == {"average_precision": pytest.approx(np.mean(precisions))}


def test_the_form_of_the_readme_is_read_too(tmp_path: Path) -> None:
    write_cola_single(tmp_path)
    listed = list(BENCHMARK.items(tmp_path))
    for file in (tmp_path / "cola").iterdir():
        labels, data = json.loads(file.read_text())
        file.write_text(json.dumps({"labels": labels, "data": data}))
    assert list(BENCHMARK.items(tmp_path)) == listed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [["a"], [["1.jpg", {}, [1, 0], [1]]]],
            r"GQA\.json image 0: 2 labels and 1 hard-image flag for 1 phrase",
        ),
        ([["a"], [["1.jpg", {}, [2], [1]]]], r"GQA\.json image 0: field 'label\.0'"),
        ([["a"], [["1.jpg", [1]]]], r"GQA\.json image 0: field 'file'"),
        ([["a"], [{"file": "1.jpg", "label": [1], "hard": [1]}]], r"GQA\.json image 0: field 'file'"),
        ([["a"]], r"GQA\.json: field 'data'"),
        ({"labels": [], "data": [0]}, r"GQA\.json: field 'labels'"),
        ("a", r"GQA\.json: must be one JSON object, got the text 'a'"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(
        InputError, match=r"none of COLA_singleobjects_benchmark_GQA\.json(.|\n)*found\.(.|\n)*arijitray1993"
    ):
        list(BENCHMARK.items(tmp_path))
    (tmp_path / "cola").mkdir()
    (tmp_path / "cola" / "COLA_singleobjects_benchmark_GQA.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        list(BENCHMARK.items(tmp_path))
