"""Sentences of the README and the documentation: each figure of a study in them follows from the committed data.

`sentences.toml` lists, by page and study, sentences with figures in braces. They must stand on the page, apart from
line breaks and plus signs:

    {label}, {label: score}         the joint score, or another, with half of its interval; with ~ at the end the mean
    {one > other: score}            difference of the means, of composition without a score
    {one | other: score}            the same with its interval
    {study/...}                     of another study

The score `joint at P` has the price P of a lost point in place of the plan's.

What the words say is listed beside them: `first` and `last` labels by score, all those with an interval `above` or
`below` 0, pairs that `differ` significantly or not (`alike`), and of which one is `more`.
"""

from __future__ import annotations

import math
import re
import tomllib
from functools import cache
from statistics import fmean
from typing import Any

import pytest
from scipy.special import stdtrit
from scipy.stats import spearmanr

from degla.statistics.seeds import holm, p_over_questions, p_over_seeds
from degla.study.record import load_study
from degla.study.study import Study
from tests.study.committed import ROOT, Committed, cell, read

CLAIMS = tomllib.loads((ROOT / "tests/study/sentences.toml").read_text(encoding="utf-8"))["claim"]
KEYS = {"page", "study", "text", "first", "last", "above", "below", "differ", "alike", "more"}


@cache
def of(name: str) -> Committed:
    return read(ROOT / "docs" / "studies" / name / "study.json")


def value(study: str, label: str, score: str) -> float:
    scores = of(study).rows[label].scores
    if score.startswith("joint at "):
        return scores["gained"][0] - float(score.removeprefix("joint at ")) * scores["lost"][0]
    return scores[score][0]


def points(number: float) -> str:
    """Format a difference or a share, 0 to 1, in points or percent."""
    return cell((number, None))


@cache
def differences(study: str) -> dict[tuple[str, str, str], tuple[float, float, bool]]:
    """Return the interval (over seeds only in the first format) of each tested pair, and whether it differs."""
    if of(study).is_old:
        rows = [(row, row["over_seeds"]["interval"]) for row in of(study).data["tests"]]
        ends = {(row["first"], row["second"], row["score"]): (end["low"], end["high"], row["significant"])
                for row, end in rows}  # fmt: skip
    else:
        tests = Study(load_study(of(study).folder / "study.json")).tests
        ends = {(test.first, test.second, test.score): (end.low, end.high, test.significant)
                for test in tests if (end := test.difference.interval)}  # fmt: skip
    return ends | {(two, one, score): (-high, -low, differ) for (one, two, score), (low, high, differ) in ends.items()}


def interval(study: str, one: str, two: str, score: str) -> tuple[float, float]:
    """Return the ends of a difference; of a pair that a study in the first format did not test, by Welch's t."""
    if (one, two, score) in differences(study):
        return differences(study)[one, two, score][:2]
    sides = [model["scores"][score] for label in (one, two) for model in of(study).data["models"]
             if model["label"] == label]  # fmt: skip
    parts = [side["deviation"] ** 2 / side["n"] for side in sides]
    freedom = sum(parts) ** 2 / sum(part**2 / (side["n"] - 1) for part, side in zip(parts, sides, strict=True))
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(sum(parts))
    middle = sides[0]["mean"] - sides[1]["mean"]
    return middle - half, middle + half


def parsed(text: str, study: str) -> tuple[str, list[str], str, str]:
    """Return study, one or two labels, score and the mark between or after them: ">", "|", "~" or ""."""
    if "/" in text:
        study, text = text.split("/")
    body, mean, _ = text.partition(" ~")
    labels, _, score = body.partition(": ")
    for mark in (" > ", " | "):
        if mark in labels:
            return study, labels.split(mark), score or "composition", mark.strip()
    return study, [labels], score or "joint", mean.strip()


def figure(text: str, study: str) -> str:
    """Format the figure in a pair of braces."""
    study, labels, score, mark = parsed(text, study)
    if mark == "":
        return cell(of(study).rows[labels[0]].scores[score])
    values = [value(study, label, score) for label in labels]
    if mark == "~":
        return points(values[0])
    ends = " [{}, {}]".format(*map(points, interval(study, *labels, score))) if mark == "|" else ""
    return points(values[0] - values[1]) + ends


def order(study: str, score: str) -> list[str]:
    """Return all labels but the base, the highest score first."""
    return sorted(of(study).rows.keys() - {"base"}, key=lambda label: -value(study, label, score))


def beyond(study: str, score: str, sign: int) -> set[str]:
    """Return the labels whose interval is above (1) or below (-1) 0."""
    scores = {label: of(study).rows[label].scores[score] for label in order(study, score)}
    return {label for label, (mean, half) in scores.items() if sign * mean > (half or 0)}


def plain(text: str) -> str:
    return re.sub(r"\+(?=\d)", "", " ".join(text.split()))


@pytest.mark.parametrize("claim", CLAIMS, ids=[f"{claim['page']}-{claim['study']}" for claim in CLAIMS])
def test_sentences_follow_from_their_study(claim: dict[str, Any]) -> None:
    assert claim.keys() <= KEYS, "a key that is mistyped would be checked by nothing"
    study = claim["study"]
    page = plain(" ".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob(claim["page"]))))
    filled = [re.sub(r"\{(.+?)\}", lambda found: figure(found[1], study), text) for text in claim["text"]]
    assert [text for text in filled if plain(text) not in page] == []
    for score, labels in claim.get("first", {}).items():
        assert order(study, score)[: len(labels)] == labels
    for score, labels in claim.get("last", {}).items():
        assert order(study, score)[-len(labels) :] == labels
    for key, sign in (("above", 1), ("below", -1)):
        for score, labels in claim.get(key, {}).items():
            assert beyond(study, score, sign) == set(labels)
    for key in ("differ", "alike"):
        for pair in claim.get(key, []):
            where, labels, score, _ = parsed(pair, study)
            assert differences(where)[labels[0], labels[1], score][2] is (key == "differ"), pair
    for pair in claim.get("more", []):
        where, labels, score, _ = parsed(pair, study)
        assert value(where, labels[0], score) > value(where, labels[1], score), pair


def test_a_figure_that_is_changed_by_hand_is_noticed() -> None:
    claim = next(claim for claim in CLAIMS if claim["page"] == "docs/choosing.md" and claim["study"] == "sigmoid")
    with pytest.raises(AssertionError):
        test_sentences_follow_from_their_study({**claim, "text": [claim["text"][0].replace("{degla}", "−11.1 ± 2.3")]})
    for key, wrong in (("first", {"joint": ["negclip"]}), ("frist", {})):
        with pytest.raises(AssertionError):
            test_sentences_follow_from_their_study({**claim, key: wrong})


def test_words_about_all_methods_hold() -> None:
    own, other = (
        {label: value("methods", label, score) - value("methods", "base", score) for label in order("methods", score)}
        for score in ("composition", "other words")
    )
    assert all(other[label] < own[label] for label in own), "with other words every method gains less"

    study = "photographs_balanced_questions"
    gained = order(study, "gained")
    tops = {label: sum(of(study).rows[label].scores["gained"]) for label in gained}  # type: ignore[arg-type]
    top = max(gained, key=lambda label: tops[label])
    joint = [value(study, label, "joint") for label in gained]
    lost = spearmanr([-value(study, label, "lost") for label in gained], joint).statistic
    above = spearmanr([value("photographs", label, "joint") for label in gained], joint).statistic
    page = plain((ROOT / "docs" / "photographs.md").read_text("utf-8"))
    assert f"The intervals reach {points(tops[top])} (`{top}`)" in page and tops[top] < 0.05
    assert f"(rank correlation {lost:.2f}; with the order of the first table −{-above:.2f})" in page
    assert not any(differences(study)[label, "clip", "composition"][2] for label in gained if label != "clip")
    assert len({label.partition(",")[0] for label in gained}) == 16, "sixteen methods"

    for rule, ends in (("swap_nouns", "+{:.0f} to +{:.0f} for"), ("swap_phrases", "(+{:.0f} to +{:.0f};")):
        few = ("negclip", "structure_clip", "structure_clip, adapters", "tsvlc")
        changes = [100 * (value(study, label, f"part:own:{rule}") - value(study, "base", f"part:own:{rule}"))
                   for label in few]  # fmt: skip
        assert plain(ends.format(min(changes), max(changes))) in page
    p_values = {(test.first, test.second, test.score): (test.corrected_seeds, test.corrected_questions)
                for name in ("photographs", "photographs_balance")
                for test in Study(load_study(of(name).folder / "study.json")).tests}  # fmt: skip
    assert f"p {p_values['tsvlc', 'clip', 'composition'][0]:.2f} over seeds)" in page
    over = "p {:.3f} over seeds and {:.3f} over questions".format(
        *p_values["negclip, plain", "negclip, balanced", "retrieval"]
    )
    assert over in page
    for label in ("hard_positives", "ce_clip", "negclip", "degla_plus"):
        assert interval("photographs", label, "clip", "composition")[0] > 0, "have intervals above 0"
    seconds = {model["label"]: model["cost"]["seconds"] for model in of("clip_forms").data["models"] if model["cost"]}
    point, graph, context, evidence = (
        f"{seconds[f'{name}_clip'] / seconds['negclip']:.1f}" for name in ("pointacl", "ugcl", "context", "excon")
    )
    cost = f"takes {point} of `negclip`'s time, `ugcl_clip` {graph}, `context_clip` {context}, `excon_clip` {evidence}."
    assert cost in plain((ROOT / "docs" / "systems.md").read_text(encoding="utf-8"))
    harm = [value("clip_search", "negclip", "joint") - value("clip_search", f"pointacl_clip left_out {share}", "joint")
            for share in (0.2, 0.4)]  # fmt: skip
    assert [round(100 * each) for each in harm] == [8, 22], "3 and 6 of 16 patches"
    share = value("photographs", "ce_clip", "retrieval") / value("photographs", "base", "retrieval")
    assert share == pytest.approx(0.8, abs=0.02), "loses a fifth"
    kept = [value("methods", label, "recognition") - value("methods", "negclip", "recognition")
            for label in ("negclip averaged 0.7", "negclip, last image block")]  # fmt: skip
    recipe = plain((ROOT / "src/degla/recipes/negclip.py").read_text(encoding="utf-8"))
    assert f"kept {100 * kept[0]:.0f} to {100 * kept[1]:.0f} points more recognition" in recipe


def test_what_the_page_says_of_other_units_and_of_retrieval_lost() -> None:
    page = plain((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))
    price = (value("methods", "base", "composition") - 0.5) / (value("methods", "base", "recognition") - 0.079)
    labels = order("methods", "joint")
    joint, other = ([value("methods", label, score) for label in labels] for score in ("joint", f"joint at {price}"))
    same = spearmanr(joint, other).statistic
    assert f"(a price of {price:.2f}) it is first, too" in page
    assert f"the rank correlation with the order above is {same:.2f}." in page

    kept = {
        label: value("methods", label, "gained") + value("methods", label, "retrieval") for label in [*labels, "base"]
    }
    above = sorted(((kept[label] - kept["base"], label) for label in labels), reverse=True)
    assert [label for _, label in above[:3]] == ["con_clip", "degla averaged 0.7", "tsvlc"]
    gaps = [points(gap) for gap, _ in above[:4]]
    said = "`con_clip` ({}), averaged `degla` ({}) and `tsvlc` ({}) lead; all others gain at most {} points more than"
    assert said.format(*gaps) in page


def test_what_the_page_says_of_the_first_three_on_photographs() -> None:
    page = plain((ROOT / "docs" / "photographs.md").read_text(encoding="utf-8"))
    study = Study(load_study(of("photographs").folder / "study.json"))
    kinds = ("replace_adjectives", "reshuffle_order", "swap_nouns", "swap_adjectives", "swap_phrases")
    counts = [study.table.counts[f"own:{kind}"] for kind in kinds]
    said = [
        f"`{kind}` ({count}{' questions' * (not place)})"
        for place, (kind, count) in enumerate(zip(kinds, counts, strict=True))
    ]
    assert f"{', '.join(said[:-1])} and {said[-1]}." in page

    def gains(name: str, label: str) -> list[float]:
        return [value(name, label, f"part:own:{kind}") - value(name, "base", f"part:own:{kind}") for kind in kinds]

    first = ["structure_clip, adapters", "tsvlc", "structure_clip"]
    assert order("photographs", "joint")[:3] == first
    mean = fmean(value("photographs", "base", f"part:own:{kind}") for kind in kinds)
    assert mean == pytest.approx(value("photographs", "base", "composition"))
    weighted = {
        label: sum(map(math.prod, zip(counts, gains("photographs", label), strict=True))) / sum(counts)
        - row.scores["lost"][0]
        for label, row in of("photographs").rows.items()
    }
    assert sorted(weighted, key=lambda label: -weighted[label])[:3] == first
    assert (
        "all questions weighted equally ({}, {} and {}).".format(*(points(weighted[label]) for label in first)) in page
    )
    adjectives, order_of_words, nouns, *_ = zip(*(gains("photographs", label) for label in first), strict=True)
    assert "gain {:.0f} to {:.0f} points on `swap_nouns`".format(*(100 * end(nouns) for end in (min, max))) in page
    words = "{:.0f} to {:.0f} on `reshuffle_order`, but".format(*(100 * end(order_of_words) for end in (min, max)))
    assert f"{words} {points(min(adjectives))} to {points(max(adjectives))} on `replace_adjectives`" in page
    ends = [
        points(end(fmean(gains(name, label)) for label in first))
        for name in ("photographs_balanced_questions", "photographs")
        for end in (min, max)
    ]
    assert "gain {} to {} points, in place of {} to {} (without".format(*ends) in page

    rows = [row for row in study.table.rows if row.arm != "base"]
    by_seeds = holm([p_over_seeds(list(row.changes["joint"].values())) for row in rows])
    by_questions = holm([p_over_questions(row.joint.mean, row.questions.get("joint")) for row in rows])
    p_values = {row.label: pair for row, *pair in zip(rows, by_seeds, by_questions, strict=True)}
    sure = {label for label, pair in p_values.items() if all(p is not None and p < 0.05 for p in pair)}
    assert sure == set(first[:2]) and len(rows) == 17, "corrected for seventeen comparisons"
    assert f"plain `structure_clip` is not (p {p_values['structure_clip'][1]:.2f} over questions)" in page


def test_what_the_page_says_of_other_words_in_three_worlds() -> None:
    kinds = ("replace_noun", "replace_adjective", "replace_relation", "swap_noun", "swap_adjective", "swap_phrase")
    page, pairs = plain((ROOT / "docs" / "results.md").read_text(encoding="utf-8")), []
    for name in ("", "world 1", "world 2"):
        sums = {}
        for model in of("headline").data["models"]:
            runs = [run for run in model["runs"] if run["replicate"] == name]
            composition = fmean(run["parts"][f"ood/{kind}"] for run in runs for kind in kinds)
            sums[model["label"]] = composition + fmean(run["scores"]["recognition"] for run in runs)
        joint = {label: points(total - sums["base"]) for label, total in sums.items()}
        ranked = sorted(sums.keys() - {"base"}, key=lambda label: -sums[label])
        assert (ranked[0], ranked[-1]) == ("con_clip", "ce_clip") and sums["clip"] > sums["negclip"]
        pairs.append(f"{joint['clip']} and {joint['negclip']}")
    assert f"`clip` is above `negclip` in all three ({', '.join(pairs)})" in page
    assert f"in world 2 `degla` ({joint['degla']}) above `degla_plus` ({joint['degla_plus']})" in page


def test_two_gains_of_40_trainings_on_photographs_are_above_zero() -> None:
    names = []
    for path in sorted((ROOT / "docs" / "studies").glob("photographs*/study.json")):
        plan = load_study(path).plan
        if len(plan.seeds) >= 5 and str(plan.benchmarks.root).endswith("/balance"):
            names.append(path.parent.name)
    assert sum(len(order(name, "gained")) for name in names) == 40
    above = {(name, label) for name in names for label in beyond(name, "gained", 1)}
    assert above == {("photographs_minilm_long", label) for label in ("negclip", "negclip, 30,000 captions")}
    page = plain((ROOT / "docs" / "photographs.md").read_text(encoding="utf-8"))
    asked = [of(f"photographs_minilm_long{end}").data["counts"]["composition"] for end in ("", "_first_half")]
    assert "the {:,} questions of the other studies; 0.2 ± 1.2 and 0.4 ± 0.9 on the {:,} about".format(*asked) in page
