"""Every figure of the committed study pages, their plots and the README's table follows from the committed data."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml

from degla.evaluation.run import Evaluation
from degla.model.load import load_encoder
from degla.pages import plot
from degla.pages.plot import standalone_picture
from degla.pages.words import duration, p_value
from degla.statistics.seeds import QuestionVariance, holm
from degla.study.page import frontier_svg, latex_of, page_of
from degla.study.record import load_study
from degla.study.retention import SUMMARIES, Retention
from degla.study.study import Study
from degla.world.draw import draw_benchmark
from tests.study.committed import (
    ROOT,
    STUDIES,
    Committed,
    axes_of,
    cell,
    check_sums,
    marks_of,
    read,
    score_cells,
    tables,
)

CONTINUAL = ROOT / "docs" / "studies" / "continual"
README_NAMES = {
    "swapped words": "swap", "word order": "order", "recognition kept": "recognition", "retrieval kept": "retrieval",
}  # fmt: skip


def _name(path: Path) -> str:
    return path.parent.relative_to(ROOT / "docs" / "studies").as_posix()


def _wrong(study: Committed, text: str) -> list[str]:
    """Return lines of a study.md that do not follow from its study.json."""
    if not study.is_old:
        return [] if _page(study.folder / "study.json") == text else ["another page"]
    problems = []
    data, plan = study.data, study.data["plan"]
    costs = {model["label"]: model["cost"] for model in data["models"]}
    for heading, heads, rows in tables(text):
        tests = iter(data["tests"])
        for row in rows:
            label = row[0].strip("*")
            if heading != "Paired tests" and label not in study.rows:
                problems.append(f"{heading}: no model {label}")
                continue
            if heading == "Paired tests":
                wanted = _test(next(tests), heads)
            elif heading == "Cost":
                wanted = [label, *_cost(costs[label], rate=row[2])]
            elif heading == "By family":
                families = {head: f"family:{head}" for head in heads}
                wanted = [label, *score_cells(heads[1:], study.rows[label], plan, families)]
            else:
                entry = next(model for model in data["models"] if model["label"] == label)
                count = "–" if entry["seeds"] == [None] else str(study.rows[label].seeds)
                middle = score_cells(heads[2:-1], study.rows[label], plan, {})
                wanted = [label, count, *middle, "P" if entry["pareto"] else ""]
            if [label, *row[1:]] != wanted:
                problems.append(f"{heading}: {row} should be {wanted}")
    # Figures outside tables must be in the file or in the fixed text of every page.
    sources = " ".join([data["title"], plan["about"], data["command"], *data["warnings"], f"{plan['price']:g} times"])
    sources += " 95 % 0.05 "
    for line in text.splitlines():
        if not line.startswith("|"):
            problems += [line for figure in re.findall(r"\d[\d.,]*", line) if figure.strip(".,") not in sources]
    return problems


@cache
def _page(path: Path) -> str:
    return page_of(Study(load_study(path))).markdown()


def test_a_page_explains_the_columns_that_it_has_in_each_form() -> None:
    """The HTML page explained a column "P", which only the Markdown had, without a title."""
    page = page_of(Study(load_study(str(ROOT / "docs/studies/headline/study.json"))))
    for text in (page.html(), page.markdown()):
        assert (
            "whether or not its lead is significant. Frontier: no model of the study gains" in text
            and not re.search(r"\bP\b", text)
        )
    assert '<span class="tag">frontier</span>' in page.html() and "| frontier |\n" in page.markdown()
    assert re.findall(r"<table[^>]*>", page.html()) == ['<table class="stacked">'] * 5, "all fit a phone"


@pytest.mark.parametrize(("name", "bold"), [("headline", True), ("one_way", False)])
def test_a_joint_score_below_the_base_is_not_bold(name: str, bold: bool) -> None:
    study = Study(load_study(ROOT / "docs/studies" / name / "study.json"))
    glance = page_of(study).markdown().partition("## At a glance")[2].partition("\n## ")[0]
    assert ("**" in glance) == ("Bold: the best joint score" in glance) == ("\\textbf" in latex_of(study)) == bold
    assert ("No model's joint score is above the base's." in glance) != bold


def test_names_in_the_picture_keep_off_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_off: list[Any] = []
    monkeypatch.setattr(plot, "label_points", lambda *arguments: kept_off.extend(arguments[-1]))
    study = Study(load_study(ROOT / "docs/studies/headline/study.json"))
    frontier_svg(study)
    row = next(row for row in study.table.best if row.arm == "clip")
    x, y, half = 100 * row.lost.mean, 100 * row.gained.mean, 100 * (row.lost.half_width or 0)
    assert ((x - half, y), (x, y)) in kept_off


def _cost(cost: dict[str, Any] | None, *, rate: str) -> list[str]:
    if cost is None:
        return ["–"] * 4
    # The file rounds the rate to one digit; the page was made from the exact value.
    near = rate.isdecimal() and abs(int(rate) - cost["pairs_per_second"]) <= 0.55
    teacher = "yes" if cost["teacher"] else "no"
    return [duration(cost["seconds"]), rate if near else "another rate", teacher, str(cost["negatives"])]


def _test(test: dict[str, Any], heads: list[str]) -> list[str]:
    def ends(difference: dict[str, Any]) -> str:
        interval = difference["interval"]
        if interval is None:
            return "–"
        return f"[{cell((interval['low'], None), signed=True)}, {cell((interval['high'], None), signed=True)}]"

    value = cell((test["over_seeds"]["value"], None), signed=True)
    cells = {
        "first": test["first"],
        "second": test["second"],
        "score": test["score"],
        "difference, 95 % over seeds": f"{value} {ends(test['over_seeds'])}",
        "p seeds": p_value(test["corrected_seeds"]),
        "95 % over questions": ends(test["over_questions"]),
        "p questions": p_value(test["corrected_questions"]),
        "differ": "yes" if test["significant"] else "no",
    }
    return [cells[head] for head in heads]


@pytest.mark.parametrize("path", STUDIES, ids=_name)
def test_every_figure_of_a_page_follows_from_its_file(path: Path) -> None:
    study = read(path)
    check_sums(study)
    assert _wrong(study, (path.parent / "study.md").read_text(encoding="utf-8")) == []
    if study.is_old:
        tests = study.data["tests"]
        for kind in ("seeds", "questions"):
            corrected = [test[f"corrected_{kind}"] for test in tests]
            assert corrected == pytest.approx(holm([test[f"p_{kind}"] for test in tests]))
        for test in tests:
            p_values = [p for p in (test["corrected_seeds"], test["corrected_questions"]) if p is not None]
            assert test["significant"] is all(p < 0.05 for p in p_values)
            means = [_score(study, test[end], test["score"]) for end in ("first", "second")]
            assert test["over_seeds"]["value"] == pytest.approx(means[0] - means[1], abs=1e-9)


def _score(study: Committed, label: str, score: str) -> float:
    return study.rows[label].scores[score][0]


@pytest.mark.parametrize("path", STUDIES, ids=_name)
def test_every_mark_of_a_picture_follows_from_its_file(path: Path) -> None:
    study = read(path)
    picture = (path.parent / "frontier.svg").read_text(encoding="utf-8")
    if not study.is_old:
        drawing = standalone_picture(frontier_svg(Study(load_study(path)))) + "\n"
        flat = [[number for mark in sorted(marks_of(each)) for number in mark] for each in (drawing, picture)]
        assert flat[0] == pytest.approx(flat[1])
    assert picture.startswith('<svg style="background:#ffffff" '), "dark ink on whatever page it is shown"
    across, up = axes_of(picture)
    places = [(across(100 * row.scores["lost"][0]), up(100 * row.scores["gained"][0])) for row in study.rows.values()]
    marks = marks_of(picture)
    assert len(marks) >= min(len(places), 3)
    for x, y in marks:
        assert any(abs(x - a) < 0.02 and abs(y - b) < 0.02 for a, b in places), (x, y)
    ends = [across(number) for number in (-200, 200)]
    for a, b in places:
        inside = min(ends) < a < max(x for x, _ in marks) and b > 0
        assert not inside or any(abs(x - a) < 0.02 and abs(y - b) < 0.02 for x, y in marks), (a, b)


@pytest.mark.parametrize("path", [path for path in STUDIES if _name(path) in ("methods", "rules")], ids=_name)
def test_a_figure_that_is_changed_by_hand_is_found(path: Path) -> None:
    study = read(path)
    text = (path.parent / "study.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    places = [number for number, line in enumerate(lines) if line.startswith("| ") and re.search(r"\d\.\d", line)]
    for number in places[:: max(1, len(places) // 12)]:
        for figure in list(re.finditer(r"\d\.\d", lines[number]))[::3]:
            other = str((int(figure[0][0]) + 1) % 10) + figure[0][1:]
            changed = lines[number][: figure.start()] + other + lines[number][figure.end() :]
            altered = [*lines[:number], changed, *lines[number + 1 :], ""]
            assert _wrong(study, "\n".join(altered)), changed


@pytest.mark.parametrize(
    ("page", "head", "name", "least"),
    [
        ("README.md", "method", "methods", 8),
        ("docs/results.md", "method", "methods", 18),
        ("docs/photographs.md", "method", "photographs", 18),
        ("docs/photographs.md", "sigmoid", "photographs_sigmoid", 5),
        ("docs/photographs.md", "objective", "photographs_degla", 9),
        ("docs/photographs.md", "image tower trained", "photographs_image", 5),
        ("docs/results.md", "standardised", "methods_standardised", 8),
        ("docs/results.md", "rival", "rivals", 9),
        ("docs/results.md", "sigmoid", "sigmoid", 6),
        ("docs/results.md", "one way", "one_way", 4),
        ("docs/systems.md", "method", "clip_forms", 7),
        ("docs/systems.md", "on degla", "clip_forms_degla", 6),
    ],
)
def test_the_tables_of_methods_follow_from_their_study(page: str, head: str, name: str, least: int) -> None:
    study = read(ROOT / "docs" / "studies" / name / "study.json")
    entries = [entry for entry in tables((ROOT / page).read_text(encoding="utf-8")) if entry[1][0] == head]
    assert entries, f"{page} has no table whose first column is {head}"
    for _, heads, rows in entries:
        assert len(rows) >= least and "joint" in heads
        for row in rows:
            expected = score_cells(heads[1:], study.rows[row[0].strip("*")], study.data["plan"], README_NAMES)
            # The base gains nothing by definition, and a sign before 0.0 is meaningless.
            cells = [re.sub(r"^[+−]?0(\.0)?(?= |$)", "0", entry) for entry in row[1:]]
            assert cells == [re.sub(r"^[+−]?0\.0(?= |$)", "0", entry) for entry in expected], row[0]


@pytest.mark.parametrize(
    ("head", "name", "least"),
    [
        ("trained on", "photographs_balance", 7),
        ("tested on half-truths", "photographs_truths", 12),
        ("image tower trained, balanced negatives", "photographs_image_balanced", 5),
        ("`degla_plus` trained on", "photographs_image_balance", 3),
    ],
)
def test_tables_of_balanced_negatives_follow_from_their_studies(head: str, name: str, least: int) -> None:
    study = read(ROOT / "docs" / "studies" / name / "study.json")
    names = {"hard positives": "family:Own captions: own changed", "retrieval kept": "retrieval",
             "half-truths": "family:Half-truths: half-truth", "NegBench": "family:NegBench: negation mcq"}  # fmt: skip
    page = tables((ROOT / "docs" / "photographs.md").read_text(encoding="utf-8"))
    (table,) = [(heads, rows) for _, heads, rows in page if heads[0] == head]
    assert len(table[1]) >= least
    for row in table[1]:
        assert row[1:] == score_cells(table[0][1:], study.rows[row[0]], study.data["plan"], names), row[0]


@pytest.mark.parametrize(
    ("head", "names"),
    [
        (
            "composition after",
            {
                "trained pairs": "photographs_fit_pairs",
                "other captions of these photographs": "photographs_fit_photographs",
                "new photographs": "photographs_fit",
            },
        ),
        (
            "composition, all captions",
            {
                "second half": "photographs_balanced_second_half",
                "first half of dev": "photographs_balanced_first_half",
                "second half, standardised": "photographs_balanced_second_half_standardised",
                "first half, standardised": "photographs_balanced_first_half_standardised",
            },
        ),
        (
            "composition, image tower trained",
            {
                "second half": "photographs_image_second_half",
                "first half of dev": "photographs_image_first_half",
                "second half, standardised": "photographs_image_second_half_standardised",
                "first half, standardised": "photographs_image_first_half_standardised",
            },
        ),
        (
            "composition, more captions",
            {
                "trained pairs": "photographs_more_pairs",
                "new photographs": "photographs_more",
                "first half of dev": "photographs_more_first_half",
                "retrieval kept": "photographs_more",
            },
        ),
        (
            "composition, pre-trained text tower",
            {
                "trained pairs": "photographs_minilm_pairs",
                "new photographs": "photographs_minilm",
                "retrieval kept": "photographs_minilm",
            },
        ),
        (
            "composition, pre-trained text tower, 1,000 steps",
            {
                "trained pairs": "photographs_minilm_long_pairs",
                "new photographs": "photographs_minilm_long",
                "first half of dev": "photographs_minilm_long_first_half",
                "retrieval kept": "photographs_minilm_long",
            },
        ),
    ],
)
def test_what_is_learnt_follows_from_its_studies(head: str, names: dict[str, str]) -> None:
    page = tables((ROOT / "docs" / "photographs.md").read_text(encoding="utf-8"))
    (table,) = [(heads, rows) for _, heads, rows in page if heads[0] == head]
    assert table[0][1:] == list(names)
    for place, (column, name) in enumerate(names.items(), 1):
        study = read(ROOT / "docs" / "studies" / name / "study.json")
        score = "retrieval" if column == "retrieval kept" else "composition"
        assert {row[0] for row in table[1]} == set(study.rows)
        for row in table[1]:
            assert [row[place]] == score_cells([score], study.rows[row[0]], study.data["plan"], {}), row[0]


def test_tasks_in_sequence_follow_from_their_file() -> None:
    data = json.loads((CONTINUAL / "continual.json").read_text(encoding="utf-8"))
    text = (CONTINUAL / "continual.md").read_text(encoding="utf-8")
    plan = yaml.safe_load((CONTINUAL / "plan.yaml").read_text(encoding="utf-8"))
    arms = {
        arm["arm"]: Retention(
            arm["arm"],
            tuple(arm["seeds"]),
            tuple(tuple(tuple(row) for row in matrix) for matrix in arm["matrices"]),
            {name: tuple(tuple(row) for row in rows) for name, rows in arm["also"].items()},
            arm["training_seconds"],
            {
                name: QuestionVariance(value["error"], value["images"], value["images"], None)
                for name, value in arm.get("questions", {}).items()
            },
        )
        for arm in data["arms"]
    }
    tasks = [task["name"] for task in data["tasks"]]
    also = list(plan.get("also", []))
    for heading, heads, rows in tables(text):
        for number, row in enumerate(rows):
            if heads[0] == "arm":
                arm = arms[row[0]]
                values = [arm.summaries[name] for name in SUMMARIES] + [arm.beside(name, len(tasks)) for name in also]
                wanted = [row[0], str(len(arm.seeds)), *(cell((one.mean, one.half_width)) for one in values)]
                assert row == [*wanted, duration(arm.seconds or 0)], heads
            else:
                arm = arms[heading]
                values = [arm.cell(number, task) for task in range(len(tasks))]
                values += [arm.beside(name, number) for name in also]
                cells = [entry.strip("*") for entry in row[1:]]
                assert cells == [cell((one.mean, one.half_width)) for one in values], (heading, row)
    for arm in data["arms"]:
        for name, value in arms[arm["arm"]].summaries.items():
            assert value.mean == pytest.approx(arm["summaries"][name]["mean"])


def test_what_the_page_says_of_other_draws_follows_from_the_study_of_methods() -> None:
    study = Study(load_study(ROOT / "docs" / "studies" / "methods" / "study.json"))
    page = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    deviations: dict[str, list[float]] = {}
    for label, score, overall in study.variances:
        if score == "joint" and "\N{MINUS SIGN}" not in label:
            for source in overall.sources:
                deviations.setdefault(source.name, []).append(100 * source.deviation)
    ranges = {name: f"{min(values):.1f} to {max(values):.1f}" for name, values in deviations.items()}
    assert set(ranges) == {"training seed", "negatives"}
    assert f"other draws of negatives {ranges['negatives']}, other training seeds {ranges['training seed']}" in page


def test_what_the_page_says_of_three_worlds_follows_from_their_study() -> None:
    study = Study(load_study(ROOT / "docs" / "studies" / "headline" / "study.json"))
    data = json.loads((ROOT / "docs" / "studies" / "headline" / "study.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    (rows,) = [rows for _, heads, rows in tables(text) if heads[:2] == ["recipe", "the shipped world"]]

    def mean(label: str, world: str, score: str) -> float:
        model = next(entry for entry in data["models"] if entry["label"] == label)
        return fmean(run["scores"][score] for run in model["runs"] if run["replicate"] == world)

    orders = set()
    for world, column in (("", 1), ("world 1", 2), ("world 2", 3)):
        joint = {}
        for row in rows:
            gained = mean(row[0], world, "composition") - mean("base", world, "composition")
            lost = mean("base", world, "recognition") - mean(row[0], world, "recognition")
            joint[row[0]] = gained - lost
            cells = [cell((value, None), signed=True) for value in (gained - lost, gained, lost)]
            assert row[column] == f"{cells[0]} ({cells[1]}, {cells[2]})", (row[0], world)
        orders.add(tuple(sorted(joint, key=lambda label: -joint[label])))
    assert orders == {tuple(row[0] for row in rows)}
    named = ", ".join(f"`{row[0]}`" for row in rows[:-1]) + f" and `{rows[-1][0]}` rank in the same order"
    assert named in (ROOT / "README.md").read_text(encoding="utf-8")

    variances = {(label, score): overall for label, score, overall in study.variances}
    between = [
        100 * source.deviation
        for (label, score), overall in variances.items()
        for source in overall.sources
        if score == "joint" and source.name != "training seed" and label in {row[0] for row in rows}
    ]
    page = " ".join(text.split())
    assert f"standard deviation of {min(between):.1f} to {max(between):.1f} points" in page
    differences = {
        label.split(" ")[0]: cell((overall.value, overall.half_width), signed=True)
        for (label, score), overall in variances.items()
        if score == "joint" and "\N{MINUS SIGN}" in label
    }
    for label in ("con_clip", "negclip", "clip", "ce_clip"):
        assert f"{differences[label]} for `{label}`" in page
    assert f"two are too few ({differences['degla_plus']})" in page


def test_what_the_page_says_of_the_kind_that_the_text_tells_follows_from_the_study_of_methods() -> None:
    rows = read(ROOT / "docs" / "studies" / "methods" / "study.json").rows
    page = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    values = {label: 100 * row.scores["solvable from text alone"][0] for label, row in rows.items()}
    base = values.pop("base")
    assert f"(from {base:.1f} to between {min(values.values()):.1f} and {max(values.values()):.1f}," in page
    former = read(ROOT / "docs" / "studies" / "frontier_chosen" / "study.json").rows["base"].scores["composition"][0]
    assert f"has {100 * former:.1f}, not {100 * rows['base'].scores['composition'][0]:.1f})" in page


def test_the_bases_scores_of_a_committed_study_follow_from_the_code(tmp_path: Path) -> None:
    """One item a part may differ: processors round differently, and scores that agree to seven digits change order."""
    data = json.loads((ROOT / "docs" / "studies" / "clip_search" / "study.json").read_text(encoding="utf-8"))
    world, (run,) = data["plan"]["world"], data["models"][0]["runs"]
    root = draw_benchmark(
        tmp_path, split=world["split"], items_per_part=world["items_per_part"], images_per_class=1, retrieval_images=2,
        seed=world["questions_seed"],
    )  # fmt: skip
    encoder = load_encoder("world")
    assert encoder.fingerprint == data["base"]
    (result,) = Evaluation(("world",), root, progress=False).score(encoder).benchmarks
    parts = {part.name: part.scores[0] for part in result.parts}
    for name in data["compositional"]:
        assert parts[name].n == data["counts"][name], name
        assert parts[name].value == pytest.approx(run["parts"][name], abs=1.01 / parts[name].n), name
    assert len(data["compositional"]) == 16
