"""Corrected tests, standings and the frontier on made-up results, where the answer is known."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from degla.evaluation.results import load_result, save_result
from degla.records import BenchmarkResult, ItemVerdict, ModelProvenance, PartResult, Result, Score
from degla.study.plot import _undominated, frontier, has_many, standing_alone
from degla.study.significance import compare_all, holm
from degla.study.standings import BASE, Model, tabulate
from degla.study.tuning import Cost

_ITEMS = 200
_DOMAINS = ("letter", "digit", "animal", "food", "thing", "pattern", "shape", "count", "place")
_KINDS = ("replace_noun", "replace_adjective", "replace_relation", "swap_noun", "swap_adjective", "swap_phrase")


def _result(path: Path, label: str, *, seed: int | None, right: float, kept: float, noise: int) -> Path:
    """A result on the world's parts: each item right with a probability, the same items hard for every model."""
    items, parts = [], []
    composition = [f"id/{kind}" for kind in (*_KINDS, "add_attribute")]
    for part in [*composition, *(f"recognition/{name}" for name in _DOMAINS)]:
        hard, luck = random.Random(part), random.Random(f"{part}{label}{seed}{noise}")
        wanted = right if part in composition else kept
        verdict = "text_ok" if part in composition else "top1"
        values = [float(0.9 * hard.random() + 0.1 * luck.random() < wanted) for _ in range(_ITEMS)]
        items += [
            ItemVerdict(id=f"world/{part}/{number}", benchmark="world", part=part, ok={verdict: value},
                        ties={verdict: 0}, image=f"{part.partition('/')[0]}{number}", margin=None)
            for number, value in enumerate(values)
        ]  # fmt: skip
        score = Score(name=part, metric="accuracy" if part in composition else "top1", value=sum(values) / _ITEMS,
                      n=_ITEMS, ties=0)  # fmt: skip
        family = part.partition("/")[2].partition("_")[0] if part in composition else "recognition"
        parts.append(PartResult(name=part, family=family, tie="strict", scores=(score,)))
    means = {
        name: sum(part.scores[0].value for part in chosen) / len(chosen)
        for name, chosen in (("composition.id", parts[:7]), ("recognition", parts[7:]))
    }
    benchmark = BenchmarkResult(
        name="world", title="World", paper="-", licence="-", annotation_sha256={}, items_sha256="x", told={},
        parts=tuple(parts),
        averages=tuple(Score(name=name, metric="macro", value=value, n=1, ties=0) for name, value in means.items()),
        headline={"composition": "composition.id", "recognition": "recognition"},
    )  # fmt: skip
    model = ModelProvenance(name=label, label=label, fingerprint="0", activation="gelu", precision="fp32")
    save_result(
        Result(model=model, training_seed=seed, date="", versions={}, benchmarks=(benchmark,), items=tuple(items)), path
    )
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int | None, Path]]:
    folder = tmp_path_factory.mktemp("results")
    wanted = {BASE: (0.5, 0.8), "good": (0.7, 0.78), "same": (0.7, 0.78), "forgets": (0.75, 0.5), "worse": (0.6, 0.7)}
    return {
        label: {
            seed: _result(folder / f"{label}-{seed}.json", label, seed=seed, right=right, kept=kept, noise=place)
            for seed in ([None] if label == BASE else range(5))
        }
        for place, (label, (right, kept)) in enumerate(wanted.items())
    }


def test_differences_that_are_there_and_one_that_is_not(results: dict[str, dict[int | None, Path]]) -> None:
    arms = {label: paths for label, paths in results.items() if label != BASE}
    joint = {"composition": 1.0, "recognition": 1.0}
    tests = compare_all(arms, scores={"composition": {"composition": 1.0}, "joint": joint})
    assert len(tests) == 2 * 6
    by_name = {(test.first, test.second, test.score): test for test in tests}
    for score in ("composition", "joint"):
        assert not by_name["good", "same", score].significant
        better = by_name["good", "worse", score]
        assert better.significant and better.over_seeds.value > 0.05
        assert better.over_questions.value == pytest.approx(better.over_seeds.value)
        for interval in (better.over_seeds.interval, better.over_questions.interval):
            assert interval is not None and 0 < interval.low < better.over_seeds.value < interval.high
        assert better.p_seeds is not None and better.corrected_seeds is not None
        assert better.p_seeds < better.corrected_seeds < 0.05
    assert by_name["good", "forgets", "composition"].over_seeds.value < 0
    assert (
        by_name["good", "forgets", "joint"].significant and by_name["good", "forgets", "joint"].over_seeds.value > 0.1
    )

    few = compare_all(arms, scores={"composition": {"composition": 1.0}}, against="same")
    assert {(test.first, test.second) for test in few} == {("good", "same"), ("forgets", "same"), ("worse", "same")}
    same = by_name["good", "same", "composition"]
    assert few[0].p_seeds == same.p_seeds and (few[0].corrected_questions or 0) <= (same.corrected_questions or 0)


def test_one_seed_is_tested_over_questions_alone(results: dict[str, dict[int | None, Path]]) -> None:
    arms = {label: {0: results[label][0]} for label in ("good", "worse")}
    (test,) = compare_all(arms, scores={"composition": {"composition": 1.0}})
    assert test.p_seeds is None and test.over_seeds.interval is None
    assert test.p_questions is not None and test.p_questions < 0.001 and test.significant


def test_p_of_the_paired_t_test_is_scipys(results: dict[str, dict[int | None, Path]]) -> None:
    from scipy.stats import ttest_rel

    arms = {label: results[label] for label in ("good", "same")}
    (test,) = compare_all(arms, scores={"recognition": {"recognition": 1.0}})
    good, same = (
        [load_result(path).benchmarks[0].averages[1].value for path in results[label].values()] for label in arms
    )
    assert test.p_seeds == pytest.approx(ttest_rel(good, same).pvalue, rel=1e-6)


def test_holm() -> None:
    corrected = holm([0.01, None, 0.04, 0.03, 0.005])
    assert corrected[1] is None
    assert [corrected[place] for place in (4, 0, 3, 2)] == pytest.approx([0.02, 0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_standings(results: dict[str, dict[int | None, Path]]) -> None:
    cost = Cost(seconds=10, pairs_per_second=100, teacher=True, negatives=5)
    models = [
        Model(label, BASE if label == BASE else "arm" if label in ("good", "worse") else label, (), 1.0,
              {seed: load_result(path) for seed, path in paths.items()}, [] if label == BASE else [cost] * 5)
        for label, paths in results.items() if label != "same"
    ]  # fmt: skip
    table = tabulate(models, gain="composition", kept="recognition", price=1.0)
    by_label = {row.label: row for row in table.standings}
    good, base = by_label["good"], by_label[BASE]
    assert table.headline == ("composition", "recognition") and set(table.families) == {
        "replace id", "swap id", "add id", "recognition",
    }  # fmt: skip
    assert base.gained.mean == base.lost.mean == base.joint.mean == 0
    assert good.gained.mean == pytest.approx(good.scores["composition"].mean - base.scores["composition"].mean)
    assert good.joint.mean == pytest.approx(good.gained.mean - good.lost.mean)
    assert good.gained.half_width is not None and good.gained.n == 5
    assert good.best and not by_label["worse"].best, "worse is of the same arm"
    assert {label for label, row in by_label.items() if row.pareto} == {BASE, "good", "forgets"}
    dear = tabulate(models, gain="composition", kept="recognition", price=0.0).standings
    assert max(dear, key=lambda row: row.joint.mean).label == "forgets"

    picture = frontier(table, gain="composition", kept="recognition", price=1.0)
    assert picture.startswith("<svg") and picture == frontier(table, gain="composition", kept="recognition", price=1.0)
    assert all(f">{name}<" in picture for name in (BASE, "arm", "forgets"))
    assert "var(--" in picture and "var(--" not in standing_alone(picture)

    # With many models an arm, its line is its own frontier and the others are dots beside it.
    assert not has_many(table)
    many = replace(
        table, standings=(*table.standings, *(replace(good, label=f"more {n}", best=False) for n in range(6)))
    )
    assert has_many(many)
    dots = frontier(many, gain="composition", kept="recognition", price=1.0)
    assert dots.count("opacity: 0.5;") > picture.count("opacity: 0.5;")
    line = _undominated([base, by_label["worse"], good, by_label["forgets"]])
    assert [row.label for row in line] == [BASE, "good", "forgets"], "worse gains less and loses more than good"
