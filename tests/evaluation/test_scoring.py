"""The one scoring: truth tables, ties, precision, refusal of non-finite numbers, and a slow twin."""

from __future__ import annotations

import numpy as np
import pytest

from degla.errors import DeglaError
from degla.evaluation.scoring import class_rows, pair_similarities, rank, score_pairs, unit_rows
from degla.evaluation.verdicts import pair_chances

IDENTITY = np.array([[[1, 0], [0, 1]]])


@pytest.mark.parametrize(
    ("similarities", "text", "image", "group"),
    [
        ([[0.9, 0.1], [0.1, 0.9]], 1, 1, 1),
        ([[0.9, 0.1], [0.8, 0.85]], 1, 1, 1),
        ([[0.5, 0.4], [0.7, 0.8]], 1, 0, 0),
        ([[0.5, 0.7], [0.4, 0.8]], 0, 1, 0),
        ([[0.1, 0.9], [0.9, 0.1]], 0, 0, 0),
    ],
)
def test_two_by_two_truth_table(similarities: list[list[float]], text: int, image: int, group: int) -> None:
    verdicts = score_pairs(np.array([similarities]), IDENTITY, tie="strict")
    assert (verdicts.text_ok[0], verdicts.image_ok[0], verdicts.group_ok[0]) == (text, image, group)


@pytest.mark.parametrize(("tie", "worth"), [("strict", 0.0), ("half", 0.5), ("lenient", 1.0)])
def test_ties_are_worth_what_the_rule_says_and_are_counted(tie: str, worth: float) -> None:
    verdicts = score_pairs(np.full((3, 1, 2), 0.25), np.array([[[1, 0]]] * 3), tie=tie)  # type: ignore[arg-type]
    assert verdicts.text_ok.tolist() == [worth] * 3
    assert verdicts.text_ties.tolist() == [1, 1, 1]
    assert verdicts.image_ties.tolist() == [0, 0, 0]
    ranks = rank(unit_rows(np.ones((1, 4))), unit_rows(np.ones((2, 4))), [[0]], ["q"])
    assert ranks.within(1, tie).tolist() == [worth]  # type: ignore[arg-type]
    assert ranks.ties.tolist() == [1]


def slow_item(similarity: np.ndarray, gold: np.ndarray, worth: float) -> tuple[float, float, int, int]:
    def compare(true: float, false: float) -> float:
        return 1.0 if true > false else worth if true == false else 0.0

    text, image, text_ties, image_ties = 1.0, 1.0, 0, 0
    for i in range(gold.shape[0]):
        for j in range(gold.shape[1]):
            for k in range(gold.shape[1]):
                if gold[i, j] and not gold[i, k]:
                    text *= compare(similarity[i, j], similarity[i, k])
                    text_ties += similarity[i, j] == similarity[i, k]
            for k in range(gold.shape[0]):
                if gold[i, j] and not gold[k, j]:
                    image *= compare(similarity[i, j], similarity[k, j])
                    image_ties += similarity[i, j] == similarity[k, j]
    return text, image, text_ties, image_ties


@pytest.mark.parametrize("shape", [(1, 2), (1, 5), (2, 2), (3, 3), (2, 3)])
@pytest.mark.parametrize(("tie", "worth"), [("strict", 0.0), ("half", 0.5), ("lenient", 1.0)])
def test_equals_the_slow_formula(shape: tuple[int, int], tie: str, worth: float) -> None:
    generator = np.random.default_rng(0)
    # Few distinct values, so that ties are common.
    similarity = generator.integers(0, 4, (60, *shape)).astype(np.float32) / 4
    gold = generator.integers(0, 2, (60, *shape))
    verdicts = score_pairs(similarity, gold, tie=tie)  # type: ignore[arg-type]
    for row in range(60):
        expected = slow_item(similarity[row], gold[row], worth)
        got = (verdicts.text_ok[row], verdicts.image_ok[row], verdicts.text_ties[row], verdicts.image_ties[row])
        assert got == expected
    assert 0 < verdicts.text_ok.mean() < 1


def test_half_precision_rows_are_scored_in_float32() -> None:
    generator = np.random.default_rng(1)
    images = generator.normal(size=(400, 64))
    texts = np.repeat(images, 2, axis=0) + 0.9 * generator.normal(size=(800, 64))
    index = np.arange(400)
    gold = np.broadcast_to([[[1, 0]]], (400, 1, 2))

    def verdicts(kind: type) -> np.ndarray:
        rows = [unit_rows(unit_rows(values).astype(kind)) for values in (images, texts)]
        similarity = pair_similarities(*rows, index[:, None], np.stack([2 * index, 2 * index + 1], axis=1))
        assert similarity.dtype == np.float32
        return score_pairs(similarity, gold, tie="strict")

    half, single = verdicts(np.float16), verdicts(np.float32)
    assert half.text_ties.sum() == 0
    assert (half.text_ok != single.text_ok).mean() <= 0.005
    # What scoring in half precision would have done to the same rows.
    rounded = (
        pair_similarities(
            unit_rows(images), unit_rows(texts), index[:, None], np.stack([2 * index, 2 * index + 1], axis=1)
        )
    ).astype(np.float16)
    assert score_pairs(rounded, gold, tie="strict").text_ties.sum() > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_is_refused_by_name(bad: float) -> None:
    values = np.zeros((3, 1, 2))
    values[1, 0, 1] = bad
    with pytest.raises(DeglaError, match=r"item 'b'.*fp32"):
        score_pairs(values, np.array([[[1, 0]]] * 3), tie="strict", ids=["a", "b", "c"])
    with pytest.raises(DeglaError, match="query 'x'"):
        rank(np.full((1, 2), bad, dtype=np.float32), np.eye(2, dtype=np.float32), [[0]], ["x"])


@pytest.mark.parametrize("candidates", [2, 3, 17, 100, 1001])
def test_equal_rows_tie_whatever_their_place(candidates: int) -> None:
    generator = np.random.default_rng(2)
    row = unit_rows(generator.normal(size=(1, 37)))
    queries = unit_rows(generator.normal(size=(9, 37)))
    ranks = rank(queries, np.repeat(row, candidates, axis=0), [[3 % candidates]] * 9, [str(i) for i in range(9)])
    assert ranks.ties.tolist() == [candidates - 1] * 9
    index = np.tile(np.arange(candidates), (9, 1))
    similarity = pair_similarities(queries, np.repeat(row, candidates, axis=0), np.arange(9)[:, None], index)
    assert all(len(set(line[0].tolist())) == 1 for line in similarity)


def test_class_rows_are_the_renormalised_mean_of_unit_prompts() -> None:
    prompts = unit_rows(np.random.default_rng(3).normal(size=(6, 5)))
    got = class_rows(prompts, 2)
    for number in range(2):
        mean = prompts[3 * number : 3 * number + 3].sum(axis=0) / 3
        np.testing.assert_allclose(got[number], mean / np.linalg.norm(mean), rtol=1e-6)


def test_rank_counts_the_better_ones_and_allows_several_true() -> None:
    candidates = unit_rows(np.array([[1, 0], [1, 0.2], [1, 0.4], [0, 1]]))
    ranks = rank(unit_rows(np.array([[1.0, 0.0]])), candidates, [[1, 3]], ["q"])
    assert ranks.better.tolist() == [1]
    assert ranks.within(1, "strict").tolist() == [0.0]
    assert ranks.within(5, "strict").tolist() == ranks.within(5, "half").tolist() == [1.0]


@pytest.mark.parametrize("gold", [((1, 0),), ((1, 0, 0, 0, 0),), ((1, 1, 0),), ((1, 0), (0, 1))])
def test_chance_is_what_random_similarities_get(gold: tuple[tuple[int, ...], ...]) -> None:
    truth = np.broadcast_to(np.array(gold), (40000, len(gold), len(gold[0])))
    verdicts = score_pairs(np.random.default_rng(4).random(truth.shape), truth, tie="strict")
    chance = pair_chances(gold)
    for key in ("text_ok", "image_ok", "group_ok"):
        assert chance[key] == pytest.approx(getattr(verdicts, key).mean(), abs=0.01)
    if len(gold) == 2:
        assert chance == {"text_ok": 0.25, "image_ok": 0.25, "group_ok": pytest.approx(1 / 6)}


def test_the_margin_is_the_smallest_lead_over_both_directions() -> None:
    by_text = [[0.5, 0.4], [0.1, 0.6]]  # leads of texts 0.1 and 0.5, of images 0.4 and 0.2
    values = np.array([by_text, np.transpose(by_text)])
    margins = score_pairs(values, np.array([np.eye(2)] * 2), tie="strict").margin
    assert margins == pytest.approx([0.1, 0.1])
