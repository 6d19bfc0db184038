"""Verdicts of embeddings that are made up, and averages of verdicts against a loop over the drawn images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from degla.errors import InputError
from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmark import (
    Average,
    BenchmarkPart,
    Classification,
    Metric,
    Retrieval,
    image_question,
    pair_question,
)
from degla.evaluation.data_sets import METRICS
from degla.evaluation.embed import EmbeddedItems
from degla.evaluation.scoring import unit_rows
from degla.evaluation.verdicts import Judged, judge
from degla.records import ItemImage
from degla.results import ItemVerdict
from degla.shelf import BENCHMARKS
from degla.statistics.proportions import cluster_draws

BENCHMARK = replace(
    BENCHMARKS.load("own").BENCHMARK,
    parts=(
        BenchmarkPart("many", "own"),
        BenchmarkPart("few", "own"),
        BenchmarkPart("pairs", "own", metrics=(Metric(group="pair", whole=True, lower=True),)),
        BenchmarkPart("see", "own", metrics=METRICS),
        BenchmarkPart("*", "own"),
    ),
    averages=(
        Average("macro", of=("many", "few")),
        Average("micro", of=("many", "few"), how="micro"),
        Average("less is better", of=("pairs",)),
    ),
)


def judged(part: str, image: int, right: float, *, tied: bool = False, pair: int = 0) -> Judged:
    verdict = ItemVerdict(id=f"{part}/{image}/{pair}", benchmark="own", part=part, image=f"{image}.png",
                          ok={"text_ok": right}, ties={"text_ok": int(tied)}, margin=None,
                          group={"pair": str(pair)})  # fmt: skip
    return Judged(verdict, {"text_ok": 0.5})


@pytest.mark.parametrize("seed", [0, 7])
def test_an_average_is_drawn_over_the_images_of_all_its_parts(seed: int) -> None:
    right = np.random.default_rng(1).integers(0, 2, 90).astype(float)
    # Sixty images with a question of the one part; every second of them has one of the other part, too.
    rows = [judged("many", number, right[number]) for number in range(60)]
    rows += [judged("few", 2 * number, right[60 + number]) for number in range(30)]
    scores = aggregate(BENCHMARK, rows, seed=seed)
    means: dict[str, list[float]] = {"macro": [], "micro": []}
    for counts in np.concatenate(list(cluster_draws(60, seed=seed))):
        many, few = counts @ right[:60], counts[::2] @ right[60:]
        means["macro"].append((many / counts.sum() + few / counts[::2].sum()) / 2)
        means["micro"].append((60 * many / counts.sum() + 30 * few / counts[::2].sum()) / 90)
    assert [average.name for average in scores.averages] == list(means)
    for average in scores.averages:
        assert average.interval is not None and average.interval.method == "bootstrap over images"
        wanted = np.percentile(means[average.name], [2.5, 97.5])
        assert (average.interval.low, average.interval.high) == (pytest.approx(wanted[0]), pytest.approx(wanted[1]))
        assert (average.n, average.chance) == (90, pytest.approx(0.5))


def test_a_group_that_must_be_right_as_a_whole_ties_with_any_of_its_items() -> None:
    rows = [judged("pairs", number, 1.0, tied=number == 3, pair=number // 2) for number in range(6)]
    scores = aggregate(BENCHMARK, rows)
    (score,) = scores.parts["pairs"]
    assert (score.value, score.n, score.ties, score.chance) == (1.0, 3, 1, 0.25)
    assert [(average.name, average.lower) for average in scores.averages] == [("less is better", True)]


def test_an_average_that_lacks_a_part_is_not_made() -> None:
    assert aggregate(BENCHMARK, [judged("many", number, 1.0) for number in range(3)]).averages == ()


def embedded(images: dict[str, list[float]], texts: dict[str, list[float]]) -> EmbeddedItems:
    rows = {ItemImage(path=path): place for place, path in enumerate(images)}
    columns = {text: place for place, text in enumerate(texts)}
    return EmbeddedItems(unit_rows(np.array([*images.values()])), rows, unit_rows(np.array([*texts.values()])), columns)


def test_a_text_that_is_true_of_two_images_finds_either() -> None:
    pairs = [("a", "both"), ("b", "both"), ("c", "one")]
    entry = Retrieval.of_pairs("own", "find", pairs, merged=True, where=Path("pairs"))
    table = embedded({"a": [1, 0, 0], "b": [0, 1, 0], "c": [0, 0, 1]}, {"both": [1, 3, 2], "one": [0, 9, 5]})
    rows = {row.verdict.id.partition("/find/")[2]: row for row in judge(BENCHMARK, [entry], table)}
    assert list(rows) == ["image/a", "image/b", "image/c", "text/0", "text/1"]
    both, one = rows["text/0"], rows["text/1"]
    assert (both.verdict.ok["text_to_image@1"], one.verdict.ok["text_to_image@1"]) == (1.0, 0.0)
    assert (both.chance["text_to_image@1"], one.chance["text_to_image@1"]) == pytest.approx((2 / 3, 1 / 3))
    assert (both.verdict.image, one.verdict.image) == ("a", "c"), "an interval draws images"
    assert [rows[f"image/{name}"].verdict.ok["image_to_text@1"] for name in "abc"] == [1.0, 0.0, 0.0]


def test_a_text_that_an_image_has_twice_is_one_true_text() -> None:
    pairs = [("a", "one"), ("a", "one"), ("b", "other")]
    entry = Retrieval.of_pairs("own", "find", pairs, merged=True, where=Path("pairs"))
    table = embedded({"a": [1, 0], "b": [0, 1]}, {"one": [1, 0], "other": [0, 1]})
    assert [row.chance["image_to_text@1"] for row in judge(BENCHMARK, [entry], table)[:2]] == [0.5, 0.5]


def test_classes_of_one_name_are_groups_of_their_own() -> None:
    images = {"a": [1.0, 0.0], "b": [0.0, 1.0]}
    entry = Classification(benchmark="own", part="see", images=tuple(ItemImage(path=path) for path in images),
                           labels=(0, 2), classes=("crane", "heron", "crane"), templates=("a {}",))  # fmt: skip
    rows = judge(BENCHMARK, [entry], embedded(images, {"a crane": [1.0, 0.0], "a heron": [0.0, 1.0]}))
    assert [row.verdict.group for row in rows] == [{"class": "crane (0)"}, {"class": "crane (2)"}]
    assert [row.verdict.ties["top1"] for row in rows] == [1, 1]


def test_top5_is_a_right_class_among_the_five_most_similar() -> None:
    generator = np.random.default_rng(3)
    images = {f"{at}.png": list(generator.normal(size=4)) for at in range(40)}
    classes = {f"a {name}": list(generator.normal(size=4)) for name in "pqrstuvw"}
    labels = generator.integers(0, 8, 40)
    entry = Classification(benchmark="own", part="see", images=tuple(ItemImage(path=path) for path in images),
                           labels=tuple(map(int, labels)), classes=tuple("pqrstuvw"), templates=("a {}",))  # fmt: skip
    rows = judge(BENCHMARK, [entry], embedded(images, classes))
    similarity = np.array([*images.values()]) @ unit_rows(np.array([*classes.values()])).T
    for k in (1, 5):
        expected = (np.argsort(-similarity, axis=1)[:, :k] == labels[:, None]).any(axis=1)
        assert [row.verdict.ok[f"top{k}"] for row in rows] == expected.astype(float).tolist()
        assert {row.chance[f"top{k}"] for row in rows} == {k / 8}


def test_each_image_and_each_text_may_be_asked_by_itself() -> None:
    """Two images with three texts, of which the last is of the second image and is like the first."""
    names = [f"{side}_ok.{at}" for side, count in (("text", 2), ("image", 3)) for at in range(1, count + 1)]
    metrics = tuple(Metric(each, each) for each in names)
    wanted = replace(BENCHMARK, parts=(BenchmarkPart("*", "own", metrics=metrics),))
    item = pair_question(("own", "some", 0), ["a", "b"], ["p", "q", "r"], ((1, 0, 0), (0, 1, 1)))
    table = embedded({"a": [1, 0], "b": [0, 1]}, {"p": [5, 1], "q": [1, 5], "r": [3, 1]})
    (row,) = judge(wanted, [item], table)
    assert [row.verdict.ok[name] for name in names] == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert [row.chance[name] for name in names] == pytest.approx([1 / 3, 1 / 3, 0.5, 0.5, 0.5])


def test_texts_that_are_asked_alone_go_with_the_image_that_they_are_about() -> None:
    texts, gold = ("p", "q", "n"), ((1, 1, 0),)
    items = [
        image_question(("own", "seen", 0), "a", texts[:2], texts[2:]),
        pair_question(("own", "alone", 0), [], texts, gold, group={"image": "a"}),
        pair_question(("own", "alone", 1), [], texts, gold),
    ]
    rows = judge(BENCHMARK, items, embedded({"a": [1, 0]}, {"p": [1, 0], "q": [5, 1], "n": [0, 1]}))
    assert [row.verdict.image for row in rows] == ["a", "a", "own/alone/1"]
    assert [row.verdict.ok for row in rows[1:]] == [{"text_only_ok": 1.0}] * 2


def test_a_single_text_is_not_taken_for_a_list_of_its_letters() -> None:
    with pytest.raises(InputError, match="own/mine/7: true and false are lists of texts"):
        image_question(("own", "mine", 7), "a", ["a dog"], "a cat")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"title": 3}, r"title must be a text; it is 3\."), ({"licence": None}, r"licence must be a text; it is None\."),
     ({"floors": ("no",)}, r"floors has 'no'; it may have 'longer text' and 'options compared'\."),
     ({"prepare": 3}, r"prepare must be a function of the root folder, or None; it is of type int\.")],
)  # fmt: skip
def test_attributes_of_wrong_types_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"^benchmark '{BENCHMARK.name}': {message}$"):
        replace(BENCHMARK, **change)
    with pytest.raises(InputError, match=r"^part 'p': n must be a whole number or None; it is '3'\.$"):
        BenchmarkPart("p", "own", n="3")  # type: ignore[arg-type]
    assert BenchmarkPart("p", "own", n=np.int64(3)).n == 3  # type: ignore[arg-type]
    pattern = (BenchmarkPart("colour_*", "own"),)
    assert replace(BENCHMARK, parts=pattern, averages=(), headline={"swap": "colour_red"}).headline
