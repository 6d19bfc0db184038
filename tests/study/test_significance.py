"""Corrected tests, standings and the frontier on synthetic results with known answers."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtrit

from degla.errors import InputError
from degla.evaluation.aggregate import ItemScore, drawn_values
from degla.evaluation.benchmark import Average, BenchmarkPart, Metric, parts_of
from degla.evaluation.item_difference import averaged_scores, lead_variance
from degla.evaluation.overlap import Leakage, Overlap
from degla.evaluation.results import load_result, save_result
from degla.pages.plot import standalone_picture
from degla.pages.words import points
from degla.results import BenchmarkResult, ItemVerdict, ModelProvenance, PartResult, Result, Score
from degla.shelf import BENCHMARKS
from degla.statistics.proportions import drawn_means, paired_score_interval
from degla.statistics.seeds import QuestionVariance, doubt_of, p_over_questions, p_over_seeds, seed_difference
from degla.study.gather import Model, _columns, _families, gather
from degla.study.jobs import Cost
from degla.study.page import _undominated, frontier, frontier_svg, has_many, page_of, write_all
from degla.study.plan import Plan, read_plan
from degla.study.record import load_study
from degla.study.standings import BASE, StudyRow, tabulate
from degla.study.study import Study, at_edges, write_chosen
from tests.evaluation.made_up import draw_result

_ITEMS = 80
_DOMAINS = ("letter", "digit", "animal", "food", "thing", "pattern", "shape", "count", "place")
_KINDS = ("replace_noun", "replace_adjective", "replace_relation", "swap_noun", "swap_adjective", "swap_phrase")


def _result(path: Path, label: str, *, seed: int | None, right: float, kept: float, noise: int) -> Path:
    """Write a result on the world's parts: items are right with a probability, the same ones hard for all models."""
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
        score = Score(name=part, metric="accuracy", value=sum(values) / _ITEMS, n=_ITEMS, ties=0)
        family = part.partition("/")[2].partition("_")[0] if part in composition else "recognition"
        parts.append(PartResult(name=part, family=family, tie="strict", scores=(score,)))
    means = {
        name: sum(part.scores[0].value for part in chosen) / len(chosen)
        for name, chosen in (("composition.id", parts[:7]), ("recognition", parts[7:]))
    }
    benchmark = BenchmarkResult(
        name="world", title="World", paper="-", licence="-", annotation_sha256={}, items_sha256="x", text_solvable={},
        parts=tuple(parts),
        averages=tuple(Score(name=name, metric="macro", value=value, n=1, ties=0) for name, value in means.items()),
        headline={"composition": "composition.id", "recognition": "recognition"},
    )  # fmt: skip
    model = ModelProvenance(name=label, label=label, fingerprint="0", activation="gelu", precision="fp32")
    save_result(
        Result(
            model=model,
            image_reading="upright",
            training_seed=seed,
            date="",
            versions={},
            benchmarks=(benchmark,),
            items=tuple(items),
        ),
        path,
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


def _study(
    results: Mapping[str, Mapping[int | None, Path]],
    *,
    arms: dict[str, str] | None = None,
    seeds: Sequence[int] = range(5),
    **plan: Any,
) -> Study:
    """Return a study of the synthetic results; `arms` maps labels to arms."""
    labels = [label for label in results if label != BASE]
    names = {label: (arms or {}).get(label, label) for label in labels}
    recipes = [{"recipe": "clip", "label": name} for name in dict.fromkeys(names.values())]
    study_plan = Plan.model_validate({"world": {}, "arms": recipes, "seeds": list(seeds), **plan})
    costs = [Cost(seconds=n, pairs_per_second=10 * n, teacher=True, negatives=5) for n in (8, 9, 10, 11, 12)]
    models = [Model(BASE, BASE, (), 1.0, {(None, ""): results[BASE][None]})]
    models += [
        Model(label, names[label], (), 1.0, {(seed, ""): results[label][seed] for seed in seeds}, costs)
        for label in labels
    ]
    return Study(gather(study_plan, models, where="plan.yaml", command="degla study plan.yaml"))


@pytest.fixture(scope="module")
def study(results: dict[str, dict[int | None, Path]]) -> Study:
    return _study(results)


def test_differences_that_are_there_and_one_that_is_not(
    results: dict[str, dict[int | None, Path]], study: Study
) -> None:
    tests = study.tests
    assert len(tests) == 3 * 6
    by_name = {(test.first, test.second, test.score): test for test in tests}
    for score in ("composition", "joint"):
        assert not by_name["good", "same", score].significant
        better = by_name["good", "worse", score]
        assert better.significant and better.difference.value > 0.05
        interval, questions = better.difference.interval, better.questions
        assert interval is not None and 0 < interval.low < better.difference.value < interval.high
        assert "seeds and questions" in interval.method
        assert questions is not None and questions.interval is not None
        assert interval.high - interval.low > questions.interval.high - questions.interval.low
        assert better.p_seeds is not None and better.corrected_seeds is not None
        assert better.p_seeds < better.corrected_seeds < 0.05
    forgets = by_name["good", "forgets", "joint"]
    assert by_name["good", "forgets", "composition"].difference.value < 0
    assert forgets.significant and forgets.difference.value > 0.1
    page = page_of(study).html()
    assert "80 questions; its standard error is up to 5.6 points" in page
    section = page.split("Paired tests")[1]
    for tone, sign in (("up", 1), ("down", -1)):  # These alone have a colour.
        sure = sum(test.significant and sign * test.difference.value > 0 for test in tests)
        assert section.count(f'class="{tone}"') == sure > 0

    few = _study(results, against="same").tests
    pairs = [(test.first, test.second) for test in few if test.score == "composition"]
    assert pairs == [("good", "same"), ("forgets", "same"), ("worse", "same")]
    same = by_name["good", "same", "composition"]
    assert few[0].p_seeds == same.p_seeds and (few[0].corrected_questions or 0) <= (same.corrected_questions or 0)


def test_a_difference_needs_both_kinds_of_test(study: Study) -> None:
    test = next(test for test in study.tests if test.difference.significant)
    for seeds, questions, verdict in ((0.04, 0.06, False), (0.06, 0.04, False), (0.04, 0.04, True), (None, 0.04, True)):
        assert replace(test, corrected_seeds=seeds, corrected_questions=questions).significant is verdict
    assert not replace(test, corrected_seeds=None, corrected_questions=None).significant
    few = replace(test.difference, doubt="fewer than 25 images")
    assert not replace(test, difference=few, corrected_seeds=0.01, corrected_questions=0.01).significant
    open_one = next(test for test in study.tests if not test.difference.significant)
    assert not replace(open_one, corrected_seeds=0.01, corrected_questions=0.01).significant, "its interval includes 0"


def test_equal_models_are_rarely_declared_different(study: Study) -> None:
    """Seven seeds and the questions vary alike; each p-value by itself leaves one of the two out."""
    generator = np.random.default_rng(0)
    both, verdicts = [], []
    for _ in range(600):
        gaps = generator.normal(0, 0.4) + generator.normal(0, 1, 7)
        questions = QuestionVariance(0.4, 500, 100, None)
        difference = seed_difference(dict(enumerate(gaps)), dict.fromkeys(range(7), 0.0), questions)
        one, other = p_over_seeds(list(gaps)), p_over_questions(difference.value, questions)
        assert one is not None and other is not None
        both.append(max(one, other) < 0.05)
        test = replace(study.tests[0], difference=difference, corrected_seeds=one, corrected_questions=other)
        verdicts.append(test.significant)
    assert np.mean(verdicts) < 0.065 < np.mean(both)


def test_one_seed_is_tested_over_questions_alone(results: dict[str, dict[int | None, Path]]) -> None:
    study = _study({label: results[label] for label in (BASE, "good", "worse")}, seeds=[0])
    test = study.tests[0]
    assert test.p_seeds is None and test.difference.interval is not None
    assert test.difference.interval == (test.questions and test.questions.interval)
    assert test.p_questions is not None and test.p_questions < 0.001 and test.significant
    text = page_of(study).markdown()
    assert "over questions only; not covered: training seed, base model, scenes, seed of the negatives." in text
    row = study.table.of("good")
    assert row.joint.deviation is None and row.joint.half_width is not None and row.joint.half_width > 0
    lost = study.record.models[2].questions["lost"]
    assert 0 < lost.low < study.table.of("worse").lost.mean < lost.high
    assert f"{100 * row.scores['composition'].mean:.1f} ± " in text


def test_p_of_the_paired_t_test_is_scipys(results: dict[str, dict[int | None, Path]], study: Study) -> None:
    from scipy.stats import ttest_rel

    test = next(test for test in study.tests if (test.second, test.score) == ("same", "recognition"))
    good, same = (
        [load_result(path).benchmarks[0].averages[1].value for path in results[label].values()]
        for label in ("good", "same")
    )
    assert test.p_seeds == pytest.approx(ttest_rel(good, same).pvalue, rel=1e-6)


def test_intervals_cover_seeds_and_questions(study: Study) -> None:
    row = study.table.of("good")
    errors = study.record.models[1].questions
    for name, spread in {**row.scores, "gained": row.gained, "lost": row.lost, "joint": row.joint}.items():
        seeds, questions = (spread.deviation or 0) ** 2 / 5, errors[name].error ** 2
        freedom = (seeds + questions) ** 2 / (seeds**2 / 4 + questions**2 / (errors[name].images - 1))
        expected = max(stdtrit(freedom, 0.975) * math.sqrt(seeds + questions), stdtrit(4, 0.975) * math.sqrt(seeds))
        assert spread.half_width == pytest.approx(expected, rel=1e-9), name
        assert questions > 0
    # Verdicts on the same items are paired: items hard for the base are hard for the tuned model.
    assert errors["lost"].error < errors["recognition"].error
    note = "over seeds and questions (for the base, over questions only); not covered: base model, scenes,"
    assert note in page_of(study).markdown()


def test_the_joint_score_has_the_plans_price(results: dict[str, dict[int | None, Path]]) -> None:
    study = _study({label: results[label] for label in (BASE, "good", "forgets")}, price=2.0)
    rows = {test.score: test for test in study.tests}
    for value in ("p_seeds", "p_questions"):
        assert getattr(rows["joint"], value) is not None
    assert rows["joint"].difference.value == pytest.approx(
        rows["composition"].difference.value + 2 * rows["recognition"].difference.value
    )
    row = study.table.of("forgets")
    assert row.joint.mean == pytest.approx(row.gained.mean - 2 * row.lost.mean)
    # Of one family: the mean of its parts.
    parts = study.record.families["swap id"]
    means = [np.mean([run.parts[part] for run in study.record.models[2].runs]) for part in parts]
    assert len(parts) == 3 and row.scores["family:swap id"].mean == pytest.approx(np.mean(means))
    assert study.table.counts["swap id"] == 3 * _ITEMS
    scores = averaged_scores([load_result(path, items=True) for path in results["forgets"].values()], where="")["world"]
    draws = np.mean([scores[part, "accuracy"].draws for part in parts], axis=0)
    assert study.record.models[2].questions["family:swap id"].error == pytest.approx(np.std(draws, ddof=1))
    assert study.record.models[2].cost == Cost(seconds=10, pairs_per_second=100, teacher=True, negatives=5)


def test_models_with_other_seeds_are_tested_over_those_in_common(
    results: dict[str, dict[int | None, Path]],
) -> None:
    few = {label: results[label] for label in (BASE, "good", "worse")}
    wanted = _study(few, seeds=range(3))
    record = wanted.record
    models = [Model(BASE, BASE, (), 1.0, {(None, ""): results[BASE][None]})]
    models += [
        Model(label, label, (), 1.0, {(seed, ""): results[label][seed] for seed in range(count)})
        for label, count in (("good", 5), ("worse", 3))
    ]
    study = Study(gather(record.plan, models, where="plan.yaml", command=""))
    assert study.table.of("good").seeds == (0, 1, 2, 3, 4) and study.tests == wanted.tests


@pytest.mark.parametrize("seeds", [(3, 4), (1,)], ids=["none in common", "one in common"])
def test_models_without_two_seeds_in_common_are_tested_over_all_of_each(
    results: dict[str, dict[int | None, Path]], seeds: tuple[int, ...]
) -> None:
    plan = _study({label: results[label] for label in (BASE, "good", "worse")}, seeds=[0]).record.plan
    models = [Model(BASE, BASE, (), 1.0, {(None, ""): results[BASE][None]})]
    wanted = {"good": (0, 1), "worse": seeds}
    models += [
        Model(label, label, (), 1.0, {(seed, ""): results[label][seed] for seed in own})
        for label, own in wanted.items()
    ]
    test = Study(gather(plan, models, where="plan.yaml", command="")).tests[0]
    scores = [
        averaged_scores([load_result(results[label][seed], items=True) for seed in own], where="")["world"]
        for label, own in wanted.items()
    ]
    one, other = (each["composition.id", "macro"] for each in scores)
    assert test.questions == lead_variance([(1.0, one, other)])
    assert test.difference.doubt == "" and test.p_seeds is None and test.p_questions is not None
    assert test.difference.value == pytest.approx(float(one.weights @ one.worth - other.weights @ other.worth))


def test_results_on_other_items_are_refused(results: dict[str, dict[int | None, Path]], tmp_path: Path) -> None:
    def renamed(path: Path, label: str) -> Path:
        result = load_result(path, items=True)
        items = [row.model_copy(update={"id": f"{row.id}-x"}) for row in result.items]
        save_result(result.model_copy(update={"items": tuple(items)}), tmp_path / f"{label}.json")
        return tmp_path / f"{label}.json"

    one = {BASE: results[BASE], "good": {**results["good"], 3: renamed(results["good"][3], "one")}}
    with pytest.raises(InputError, match="good: the results of seeds 0 and 3 do not have the same items"):
        _study(one)
    every = {BASE: results[BASE], "good": {seed: renamed(path, f"a{seed}") for seed, path in results["good"].items()}}
    with pytest.raises(InputError, match="good: its results have other items than those of base"):
        _study(every)


@pytest.mark.parametrize(
    ("field", "name", "sentence"),
    [
        ("unknown", "runs/first", "was fine-tuned from runs/first"),
        ("changed", "c.jsonl", "c.jsonl changed or moved after the"),
    ],
)
def test_what_is_not_known_of_a_training_is_of_the_models_from_it(
    results: dict[str, dict[int | None, Path]], tmp_path: Path, field: str, name: str, sentence: str
) -> None:
    changed: dict[str, dict[int | None, Path]] = {BASE: results[BASE], "good": {}, "worse": {}}
    for label, names in (("good", ()), ("worse", (name,))):
        leakage = Leakage.model_validate({"captions": ["c.jsonl"], "images": 20, field: names})
        for seed, path in results[label].items():
            changed[label][seed] = tmp_path / path.name
            result = load_result(path, items=True).model_copy(update={"leakage": leakage})
            save_result(result, tmp_path / path.name)
    (caveat,) = (each for each in _study(changed).record.caveats if sentence in each)
    assert caveat.startswith(f"worse: {sentence}")


def test_no_difference_is_reported_of_leaked_images(results: dict[str, dict[int | None, Path]], tmp_path: Path) -> None:
    overlap = Overlap(benchmark="world", images=10, by_id=0, by_content=4, examples=("a.png",))
    leakage = Leakage(captions=("c.jsonl",), images=20, overlaps=(overlap,))
    changed = {**results["good"], 3: tmp_path / "good-3.json"}  # One of the seeds is enough.
    good = load_result(results["good"][3], items=True)
    save_result(good.model_copy(update={"leakage": leakage}), changed[3])
    study = _study({BASE: results[BASE], "worse": results["worse"], "good": changed})
    other = _study({BASE: results[BASE], "good": changed, "worse": results["worse"]})
    assert not any(test.significant for test in [*study.tests, *other.tests]), "whichever of the two it is"
    assert all(test.corrected_seeds is not None and test.corrected_seeds < 0.05 for test in study.tests)
    text = page_of(study).markdown()
    assert "World, good: 4 of 10 benchmark images are in the training data" in text
    assert "No difference is reported for all tests: benchmark images were trained on." in text


def test_replicates_show_where_the_variance_comes_from(
    results: dict[str, dict[int | None, Path]], tmp_path: Path
) -> None:
    replicates = [
        {"negatives_seed": 1}, {"negatives_seed": 2, "seeds": [0, 1]}, {"name": "w", "scenes_seed": 1, "base": "other"},
    ]  # fmt: skip
    recipes = [{"recipe": "clip", "label": "good"}, {"recipe": "clip", "label": "worse"}]
    plan = Plan.model_validate({"world": {}, "arms": recipes, "seeds": 5, "replicates": replicates})
    other = _result(tmp_path / "base.json", "other base", seed=None, right=0.45, kept=0.8, noise=9)
    bases: dict[tuple[int | None, str], Path] = {(None, ""): results[BASE][None], (None, "w"): other}
    bases |= {(None, title): results[BASE][None] for title in ("negatives 1", "negatives 2")}
    models = [Model(BASE, BASE, (), 1.0, bases)]
    for label, right in (("good", 0.7), ("worse", 0.6)):
        files = {(seed, ""): path for seed, path in results[label].items()}
        for title, shift, seeds in (("negatives 1", 0.03, 5), ("negatives 2", -0.03, 2), ("w", 0.1, 5)):
            for seed in range(seeds):
                path = tmp_path / f"{label}-{title}-{seed}.json"
                files[seed, title] = _result(path, label, seed=seed, right=right + shift, kept=0.78, noise=seed)
        models.append(Model(label, label, (), 1.0, files))
    study = Study(gather(plan, models, where="plan", command=""))
    assert study.sources == ["training seed", "negatives", "scenes, base"]
    by_name = {(name, score): overall for name, score, overall in study.variances}
    gained = by_name["good", "composition gained"]
    seed_source, negatives, world = gained.sources
    assert (seed_source.n, negatives.n, world.n) == (5, 3, 2)
    values = study.table.of("good").changes["gained"]
    levels = [(values[0, title] + values[1, title]) / 2 for title in ("", "negatives 1", "negatives 2")]
    assert negatives.deviation == pytest.approx(np.std(levels, ddof=1)) and 0.02 < negatives.deviation < 0.05
    # Against the base of its own world, which is 5 points worse.
    assert world.shift == pytest.approx(0.15 / 2, abs=0.02)
    assert gained.value == pytest.approx(study.table.of("good").gained.mean + negatives.shift + world.shift)
    assert gained.half_width > (study.table.of("good").gained.half_width or 0)
    for test in study.tests:  # A replicate is no further seed.
        assert test.p_seeds == p_over_seeds([test.gaps[seed, ""] for seed in range(5)]) and len(test.gaps) == 17
    text = page_of(study).markdown()
    assert "## Where the variance comes from" in text and "| good − worse | joint |" in text
    assert "The table of variances shows the effect of negatives and scenes, base." in text
    assert study.table.of("good").seeds == (0, 1, 2, 3, 4)
    assert f"({negatives.n})" in text and f"{100 * negatives.deviation:.1f} [" in text
    assert "Where the variance comes from" in page_of(study).html()


def test_pages_come_from_the_file_alone(study: Study, tmp_path: Path) -> None:
    write_all(study, tmp_path)
    again = Study(load_study(tmp_path / "study.json"))
    assert again.record == study.record
    assert page_of(again).markdown() == (tmp_path / "study.md").read_text() == page_of(study).markdown()
    assert page_of(again).html() == (tmp_path / "study.html").read_text()
    assert standalone_picture(frontier_svg(again)) + "\n" == (tmp_path / "frontier.svg").read_text()
    tables = (tmp_path / "study.tex").read_text()
    assert tables.count(r"\begin{tabular}") == 2 and rf" & {study.plan.gain} gained & " in tables
    for test in study.tests:
        value = points(test.difference.value).replace("\N{MINUS SIGN}", "$-$")
        assert f"{test.first} $-$ {test.second} & {test.score} & {value} & " in tables
    (tmp_path / "study.json").write_text('{"title": "old"}')
    with pytest.raises(
        InputError, match=r"field 'format' is None, but this version of degla reads 2\. Run the study again"
    ):
        load_study(tmp_path / "study.json")
    (tmp_path / "study.json").write_text('{"format": 3}')
    with pytest.raises(InputError, match=r"'format' is 3, but .* reads 2\. A newer version wrote it: update degla\.$"):
        load_study(tmp_path / "study.json")


def test_pages_have_no_password_of_the_base(study: Study, tmp_path: Path) -> None:
    plan = study.plan.model_copy(update={"base": "sftp://me:secret@host/run"})
    write_all(Study(study.record.model_copy(update={"plan": plan})), tmp_path)
    texts = [file.read_text() for file in tmp_path.iterdir()]
    assert len(texts) == 5 and not any("secret" in text for text in texts)
    assert sum("sftp://host/run" in text for text in texts) == 3


def test_a_study_without_a_compositional_part(results: dict[str, dict[int | None, Path]], tmp_path: Path) -> None:
    few: dict[str, dict[int | None, Path]] = {}
    for label in (BASE, "good", "worse"):
        for seed, path in results[label].items():
            result = load_result(path, items=True)
            (world,) = result.benchmarks
            parts = tuple(part for part in world.parts if part.family == "recognition")
            fields = {"parts": parts, "averages": world.averages[1:], "headline": {"recognition": "recognition"}}
            items = tuple(row for row in result.items if row.part.startswith("recognition"))
            few.setdefault(label, {})[seed] = tmp_path / f"{label}-{seed}.json"
            world = world.model_copy(update=fields)
            save_result(result.model_copy(update={"benchmarks": (world,), "items": items}), few[label][seed])
    study = _study(few, gain="recognition/letter", kept="recognition")
    write_all(study, tmp_path)
    assert study.table.headline == ("recognition", "recognition/letter") and study.table.families == ()
    assert "By family" not in (tmp_path / "study.md").read_text() + (tmp_path / "study.html").read_text()
    assert "compositional" not in (tmp_path / "study.md").read_text()
    assert study.tests and "<svg" in (tmp_path / "study.html").read_text()


def test_a_family_that_is_a_column_of_its_benchmark_is_no_second_number(
    results: dict[str, dict[int | None, Path]], tmp_path: Path
) -> None:
    two: dict[str, dict[int | None, Path]] = {}
    for label in (BASE, "good"):
        for seed, path in results[label].items():
            result = load_result(path, items=True)
            (world,) = result.benchmarks
            kept, gained = [], []
            for part in world.parts:
                if part.family == "recognition":
                    scores = tuple(score.model_copy(update={"metric": "top1"}) for score in part.scores)
                    kept.append(part.model_copy(update={"scores": scores}))
                else:
                    gained.append(part)
            headline = {"composition": "composition.id"}
            first = {"parts": tuple(gained), "averages": world.averages[:1], "headline": headline}
            headline = {"recognition": "recognition/letter"}
            second = {
                "name": "zeroshot",
                "title": "Classes",
                "parts": tuple(kept),
                "averages": (),
                "headline": headline,
            }
            names = {part.name: "zeroshot" for part in kept}
            items = [
                row.model_copy(update={
                    "benchmark": names.get(row.part, "world"),
                    "ok": row.ok | {"top5": 1.0}, "ties": row.ties | {"top5": 0},
                })
                for row in result.items
            ]  # fmt: skip
            benchmarks = tuple(world.model_copy(update=fields) for fields in (first, second))
            two.setdefault(label, {})[seed] = tmp_path / f"{label}-{seed}.json"
            save_result(result.model_copy(update={"benchmarks": benchmarks, "items": tuple(items)}), two[label][seed])
    table = _study(two).table
    assert table.headline == ("composition", "recognition")
    assert set(table.families) == {f"World: {family} id" for family in ("replace", "swap", "add")}


def test_a_study_of_recognition_and_retrieval_alone(tmp_path: Path) -> None:
    """Two benchmarks without a compositional part: scores of both, no warning about questions of composition."""
    retrieval = BENCHMARKS.load("retrieval").BENCHMARK
    flickr = replace(retrieval, parts=tuple(part for part in retrieval.parts if part.name.startswith("flickr")))
    world = BENCHMARKS.load("world").BENCHMARK
    parts = tuple(part for part in world.parts if part.family == "recognition")
    averages = tuple(average for average in world.averages if average.name == "recognition")
    recognition = replace(world, parts=parts, averages=averages, headline={"recognition": "recognition"})
    files: dict[str, dict[int | None, Path]] = {}
    levels = {BASE: (0.5, 0.5, 0.5, 0.6), "good": (0.5, 0.5, 0.5, 0.8), "worse": (0.5, 0.5, 0.5, 0.5)}
    for label, level in levels.items():
        for seed in [None] if label == BASE else range(3):
            one, other = (draw_result(label, level, seed, benchmark=each) for each in (recognition, flickr))
            whole = one.model_copy(
                update={"benchmarks": one.benchmarks + other.benchmarks, "items": one.items + other.items}
            )
            files.setdefault(label, {})[seed] = tmp_path / f"{label}-{seed}.json"
            save_result(whole, files[label][seed])
    study = _study(files, seeds=range(3), gain="recognition", kept="retrieval")
    write_all(study, tmp_path)
    text = (tmp_path / "study.md").read_text()
    assert "compositional" not in text and "recognition gained" in text and "retrieval lost" in text
    good = study.table.of("good")
    assert good.gained.mean > 0.1 and good.gained.half_width is not None and 0 < good.gained.half_width < 0.1
    assert all(name.partition(":")[0] in ("world", "retrieval") for name in study.record.models[1].runs[0].parts)
    # Images of the second benchmark were trained on: no doubt about the first alone.
    overlap = Overlap(benchmark="retrieval", images=10, by_id=0, by_content=4, examples=("a.png",))
    leakage = Leakage(captions=("c.jsonl",), images=20, overlaps=(overlap,))
    leaked = load_result(files["good"][2], items=True).model_copy(update={"leakage": leakage})
    save_result(leaked, files["good"][2])
    tests = _study(files, seeds=range(3), gain="recognition", kept="retrieval").tests
    assert {test.score: "trained on" in test.difference.doubt for test in tests} == {
        "recognition": False, "retrieval": True, "joint": True
    }  # fmt: skip


def test_published_rows_have_what_was_measured_here_below(tmp_path: Path) -> None:
    sugarcrepe = BENCHMARKS.load("sugarcrepe").BENCHMARK
    files: dict[str, dict[int | None, Path]] = {}
    for label, levels in ((BASE, (0.6, 0.5, 0, 0)), ("good", (0.7, 0.6, 0, 0))):
        for seed in [None] if label == BASE else range(2):
            files.setdefault(label, {})[seed] = tmp_path / f"{label}-{seed}.json"
            save_result(draw_result(label, levels, seed, benchmark=sugarcrepe, n=20), files[label][seed])
    study = _study(files, seeds=range(2), kept="swap_att", printed={"good": "DeGLA"})
    text = page_of(study).markdown()
    published, here = (
        [cell.split(";") for cell in line.split(" | ")[1:]]
        for line in text.splitlines()
        if line.startswith(("| DeGLA |", "| here: good |"))
    )
    parts = [load_result(path).benchmarks[0].parts for path in files["good"].values()]
    for column, own in enumerate(zip(*parts, strict=True)):
        mean = 50 * sum(part.scores[0].value for part in own)
        assert float(here[column][0]) == pytest.approx(mean, abs=0.051)
        difference = float(here[column][1].replace("\N{MINUS SIGN}", "-"))
        assert difference == pytest.approx(mean - float(published[column][0]), abs=0.051)


def test_chosen_settings_are_a_plan_that_reads_the_same_files(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"data.captions": "c.jsonl", "data.images": "images"}
    far = "s3://bucket/negatives.jsonl"
    arms = [
        {"recipe": "clip", "label": "good", "data.negatives": ["a", "b"]},
        {"recipe": "clip", "label": "worse", "data.negatives": far},
    ]
    fields = {"set": data | {"train.steps": [5, 6]}, "average": [0.5, 1], "seeds": [3, 7]}
    plan = Plan.model_validate({"arms": arms, "benchmarks": {"names": ["zeroshot"], "root": "data"}, **fields})
    base, good, worse = (study.table.of(label) for label in (BASE, "good", "worse"))
    good = replace(good, setting=(("train.steps", 6), ("data.negatives", "b")), share=0.5)
    worse = replace(worse, setting=(("train.steps", 5),), best=True)
    write_chosen(plan, replace(study.table, rows=(base, good, worse)), Path("out/chosen.yaml"))
    chosen = read_plan(Path("out/chosen.yaml"))
    first, second = chosen.arms
    assert chosen.benchmarks is not None and chosen.set.keys() == data.keys()
    paths = [chosen.benchmarks.root, *chosen.set.values(), first.fields["data.negatives"]]
    assert [Path(str(path)).resolve() for path in paths] == [tmp_path / n for n in ("data", "c.jsonl", "images", "b")]
    assert (first.fields["train.steps"], first.average) == (6, (0.5,))
    assert second.fields == {"data.negatives": far, "train.steps": 5}
    assert chosen.seeds == (3, 7, 0, 1, 2), "five at least, those that it was chosen by among them"


def test_the_chosen_plan_names_no_arm_without_a_finished_run(study: Study, tmp_path: Path) -> None:
    arms = [{"recipe": "clip", "label": label} for label in ("good", "gone")]
    replicates = [{"base": str(number), "arms": some} for number, some in enumerate((["gone"], ["good", "gone"], None))]
    printed = dict.fromkeys(("base", "good", "gone"), "DeGLA")
    fields = {"benchmarks": {"names": ["valse"], "root": "."}, "set": {"data.captions": "c"}, "against": "gone"}
    plan = Plan.model_validate({"arms": arms, "replicates": replicates, "printed": printed, **fields})
    table = replace(study.table, rows=(study.table.of(BASE), study.table.of("good")))
    write_chosen(plan, table, tmp_path / "chosen.yaml")
    chosen = read_plan(tmp_path / "chosen.yaml")
    assert [arm.name for arm in chosen.arms] == ["good"] and chosen.against is None
    assert list(chosen.printed) == ["base", "good"]
    assert [(each.base, each.arms) for each in chosen.replicates] == [("1", ("good",)), ("2", None)]


def test_a_best_setting_at_the_edge_is_named(study: Study) -> None:
    def row(label: str, rate: str, share: float, *, best: bool = False) -> StudyRow:
        return replace(good, label=label, arm="good", setting=(("optim.lr", rate),), share=share, best=best)

    good = study.table.of("good")
    rows = [row("a", "1e-4", 1.0), row("b", "2e-4", 0.5), row("c", "4e-4", 0.7)]

    def named(best: str) -> dict[str, list[str]]:
        table = replace(study.table, rows=tuple(replace(one, best=one.label == best) for one in rows))
        return at_edges(table)

    assert named("a") == {"good": ["optim.lr 1e-4, the smallest"]}, "a share of 1 has nothing beyond it"
    assert named("b") == {"good": ["share 0.5, the smallest"]}
    assert named("c") == {"good": ["optim.lr 4e-4, the largest"]}
    assert at_edges(study.table) == {}, "nothing was varied"


def test_standings(results: dict[str, dict[int | None, Path]]) -> None:
    arms = {"good": "arm", "worse": "arm"}
    some = {label: paths for label, paths in results.items() if label != "same"}
    record = _study(some, arms=arms).record
    table = tabulate(record)
    by_label = {row.label: row for row in table.rows}
    good, base = by_label["good"], by_label[BASE]
    assert table.headline == ("composition", "recognition")
    assert set(table.families) == {"replace id", "swap id", "add id"}, "a name stands for one number of a page"
    assert base.gained.mean == base.lost.mean == base.joint.mean == 0
    assert good.gained.mean == pytest.approx(good.scores["composition"].mean - base.scores["composition"].mean)
    assert good.joint.mean == pytest.approx(good.gained.mean - good.lost.mean)
    assert good.gained.half_width is not None and good.gained.n == 5
    assert good.best and not by_label["worse"].best, "worse is of the same arm"
    first, *others = record.models
    turned = record.model_copy(update={"models": (first, *reversed(others))})
    assert {row.label for row in tabulate(turned).best} == {row.label for row in table.best}
    assert {label for label, row in by_label.items() if row.pareto} == {BASE, "good", "forgets"}
    dear = tabulate(record.model_copy(update={"plan": record.plan.model_copy(update={"price": 0.0})})).rows
    assert max(dear, key=lambda row: row.joint.mean).label == "forgets"

    picture = frontier(table, gain="composition", kept="recognition", price=1.0)
    assert picture.startswith("<svg") and picture == frontier(table, gain="composition", kept="recognition", price=1.0)
    assert picture != frontier(table, gain="composition", kept="recognition", price=3.0), (
        "the line of equal joint score"
    )
    assert all(f">{name}<" in picture for name in (BASE, "arm", "forgets"))
    assert "var(--" in picture and "var(--" not in standalone_picture(picture)

    # With many models per arm, its line is its own frontier and the other models are dots.
    assert not has_many(table)
    many = replace(table, rows=(*table.rows, *(replace(good, label=f"more {n}", best=False) for n in range(6))))
    assert has_many(many)
    dots = frontier(many, gain="composition", kept="recognition", price=1.0)
    assert dots.count("opacity: 0.5;") > picture.count("opacity: 0.5;")
    line = _undominated([base, by_label["worse"], good, by_label["forgets"]])
    assert table.leader is not None and table.leader.label == "good", "forgets gains most"
    assert [row.label for row in line] == [BASE, "good", "forgets"], "worse gains less and loses more than good"


def test_bars_of_the_frontier_are_those_of_their_axis(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[tuple[tuple[float, float], tuple[float, float]]] = []
    monkeypatch.setattr("degla.study.page.svg.label_points", lambda *args: bars.extend(args[-1]))
    frontier(study.table, gain="composition", kept="recognition", price=1.0)
    row = study.table.of("good")
    x, y = 100 * row.lost.mean, 100 * row.gained.mean
    wide, high = 100 * (row.lost.half_width or 0), 100 * (row.gained.half_width or 0)
    ends = [abs(end[0] - x) + 1j * abs(end[1] - y) for end, middle in bars if middle == pytest.approx((x, y))]
    assert wide != pytest.approx(high) and ends == pytest.approx([wide, wide, 1j * high, 1j * high])


def test_equal_joint_scores_are_on_the_dotted_line_and_a_far_model_is_outside_the_frame(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    panels: list[Any] = []
    monkeypatch.setattr("degla.study.page.svg.label_points", lambda figure, axes, *_: panels.append(axes))
    good = study.table.of("good")

    def model(gained: float, lost: float) -> StudyRow:
        means = {"gained": gained, "lost": lost, "joint": gained - 2 * lost}
        spreads: Any = {name: replace(getattr(good, name), mean=mean) for name, mean in means.items()}
        return replace(good, label=f"{lost}", best=lost == 0.02, **spreads)

    rows = [model(0.05, lost) for lost in (0.02, 0.03, 0.04, 0.05, 0.055, 0.058, 0.9)]
    table = replace(study.table, rows=(study.table.of(BASE), *rows))
    frontier(table, gain="composition", kept="recognition", price=2.0)
    (axes,) = panels
    assert 5.8 < axes.get_xlim()[1] < 90
    (dotted,) = (line for line in axes.lines if tuple(line.get_xdata()) == axes.get_xlim())
    joint = [y - 2 * x for x, y in zip(dotted.get_xdata(), dotted.get_ydata(), strict=True)]
    assert joint == pytest.approx([5 - 2 * 2] * 2)


def test_a_score_that_counts_for_nothing_lends_no_pictures() -> None:
    """At a price of 0, the joint score equals the gained score, including its interval and doubts."""

    def score(worth: Sequence[float]) -> ItemScore:
        n = len(worth)
        values, clusters = np.array(worth), np.arange(n)
        draws = drawn_means(values, clusters)
        return ItemScore(draws, np.full(n, 1 / n), values, clusters)

    few, others = score([1.0] * 8 + [0.0] * 2), score([1.0] * 3 + [0.0] * 7)
    many = score([1.0] * 500)
    alone = lead_variance([(1.0, few, others)])
    assert lead_variance([(1.0, few, others), (0.0, many, many)]) == alone
    assert doubt_of(alone) == "fewer than 25 images" and lead_variance([(0.0, few, others)]) is None
    # Losses count with the opposite sign, and twice at a price of 2.
    lost = lead_variance([(-2.0, few, others)])
    assert alone is not None and alone.interval is not None and lost is not None and lost.interval is not None
    # Five of the ten are answered differently.
    assert (alone.uneven, alone.interval) == (5, paired_score_interval(5, 0, 10))
    assert (lost.interval.low, lost.interval.high) == pytest.approx((-2 * alone.interval.high, -2 * alone.interval.low))
    assert lost.error == pytest.approx(2 * alone.error)


@pytest.mark.parametrize(("folder", "images", "times"), [("of its own", 80, 2**0.5), ("of both", 40, 2.0)])
def test_images_of_two_benchmarks_are_one_where_their_files_are(folder: str, images: int, times: float) -> None:
    """Composition of one and recognition of another: different benchmarks are resampled independently."""

    def drawn(name: str, part: str, verdict: str, *, right: int) -> ItemScore:
        place = name if folder == "of its own" else folder
        rows = [
            ItemVerdict(id=f"{name}/{part}/{number}", benchmark=name, part=part, image=f"{place}/{number}.jpg",
                        ok={verdict: float(number < right)}, ties={verdict: 0}, margin=None)
            for number in range(40)
        ]  # fmt: skip
        return drawn_values(BENCHMARKS.load(name).BENCHMARK, rows)[part, "accuracy"]

    parts = (("sugarcrepe", "swap_att", "text_ok"), ("cc_neg", "test", "text_ok"))
    one, other = ((1.0, drawn(*each, right=25), drawn(*each, right=0)) for each in parts)
    alone, both = lead_variance([one]), lead_variance([one, other])
    assert alone is not None and both is not None
    assert (both.images, both.uneven) == (images, images * 25 // 40)
    assert both.error == pytest.approx(times * alone.error, rel=0.1)


def test_a_family_that_is_a_column_is_left_out_of_the_benchmark_that_fills_it_alone() -> None:
    world = BENCHMARKS.load("world").BENCHMARK
    parts, averages = parts_of({"swap_words": None, "add_word": None}), (Average("swap.macro", of=("swap_words",)),)
    benchmarks = [
        replace(world, name=name, title=name.title(), parts=parts, averages=averages, headline={"swap": "swap.macro"})
        for name in ("first", "second")
    ]
    first, second = (draw_result("base", (0.5,) * 4, None, benchmark=each, n=4) for each in benchmarks)
    both = first.model_copy(update={"benchmarks": (*first.benchmarks, *second.benchmarks)})
    families, compositional = _families(both)
    assert families == {
        "First: add": ("first:add_word",),
        "Second: swap": ("second:swap_words",),
        "Second: add": ("second:add_word",),
    }
    assert len(compositional) == 4
    assert _families(first)[0] == {"add": ("add_word",)}


def test_a_column_of_which_less_is_better_is_none_of_a_study() -> None:
    """It has no gains, and ended the study in a traceback after its last run."""
    mistakes = BenchmarkPart("mistakes", "swap", metrics=(Metric("mistakes", "mistake.1", lower=True),))
    benchmark = replace(
        BENCHMARKS.load("world").BENCHMARK,
        parts=(BenchmarkPart("right", "swap"), mistakes),
        averages=(),
        headline={"composition": "right", "wrong": "mistakes"},
    )
    plan = Plan.model_validate({"world": {}, "arms": [{"recipe": "clip"}], "seeds": 1, "kept": "right"})
    assert _columns(draw_result("base", (0.5,) * 4, None, benchmark=benchmark, n=4), plan) == ["composition", "right"]
