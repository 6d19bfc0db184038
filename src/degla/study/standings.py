"""Turn a study's record into one row per model, and into paired tests between arms, over seeds and over questions.

A row has every score with its interval, what was gained and lost, and the joint score. There are two kinds of tests:

Over seeds: a paired t-test of the differences seed by seed. Over questions: a normal test with the standard error of
the verdicts averaged over the seeds that both have, or over all seeds of each if they share fewer than two, with images
resampled. A difference counts if both p-values are below 0.05 after Holm's correction over all tests of their kind, its
interval over both sources excludes 0, and there is no doubt (`statistics.seeds.doubt_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import fsum
from typing import Any

from degla.evaluation.choice import trade_off
from degla.statistics.seeds import (
    LEVEL,
    Difference,
    QuestionVariance,
    RunValues,
    Spread,
    holm,
    p_over_questions,
    p_over_seeds,
    seed_difference,
    seed_spread,
)
from degla.study.jobs import Cost
from degla.study.record import ModelRecord, RunRecord, StudyRecord, TestRecord

BASE = "base"


@dataclass(frozen=True)
class StudyRow:
    """One model of the study: an arm at one setting and one share of averaging, over its seeds.

    All scores are 0 to 1; differences are relative to the base.
    """

    label: str
    arm: str
    setting: tuple[tuple[str, Any], ...]
    share: float
    seeds: tuple[int | None, ...]
    scores: Mapping[str, Spread]
    """By name: headline columns, families, and the plan's `gain` and `kept` scores."""
    gained: Spread
    """The score to improve, minus the base's."""
    lost: Spread
    """The base's score to preserve minus this model's; below 0 if it rose."""
    joint: Spread
    """Gained minus price times lost."""
    changes: Mapping[str, RunValues]
    """"gained", "lost" and "joint" of every run, relative to its own base."""
    questions: Mapping[str, QuestionVariance]
    """Variance over questions, of scores and of the three changes."""
    cost: Cost | None
    """Mean over seeds; None for the base."""
    best: bool = False
    """Whether it has the highest joint score of its arm."""
    pareto: bool = False
    """Whether no other model gains more and loses no more, or loses less and gains no less."""


@dataclass(frozen=True)
class StudyTable:
    """One row per model, the base first, and the names of the columns."""

    rows: tuple[StudyRow, ...]
    headline: tuple[str, ...]
    families: tuple[str, ...]
    counts: Mapping[str, int]
    """Number of questions per column."""

    @property
    def best(self) -> list[StudyRow]:
        """The base and the best model of every arm."""
        return [row for row in self.rows if row.best or row.arm == BASE]

    @property
    def leader(self) -> StudyRow | None:
        """The model with the best joint score; None if there is only the base."""
        return max((row for row in self.rows if row.arm != BASE), key=lambda row: row.joint.mean, default=None)

    def of(self, label: str) -> StudyRow:
        """Return the model with that label."""
        return next(row for row in self.rows if row.label == label)


def tabulate(record: StudyRecord) -> StudyTable:
    """Build the table of all models from a record."""
    bases = {run.replicate: run for run in record.models[0].runs}
    rows = [_row(model, record, bases) for model in record.models]
    counts = dict(record.counts) | {
        family: sum(record.counts[part] for part in parts) for family, parts in record.families.items()
    }
    # A family with the name of a column would be a second number of that name: the column may cover fewer parts.
    families = tuple(name for name in record.families if name not in record.headline)
    return StudyTable(tuple(_mark_best(rows)), record.headline, families, counts)


def _row(model: ModelRecord, record: StudyRecord, bases: Mapping[str, RunRecord]) -> StudyRow:
    plan = record.plan
    own = [run for run in model.runs if not run.replicate]
    questions = {name: each.questions for name, each in model.questions.items()}
    scores = {name: [run.scores[name] for run in own] for name in own[0].scores}
    for family, parts in record.families.items():
        scores[f"family:{family}"] = [fsum(run.parts[part] for part in parts) / len(parts) for run in own]
    changes: dict[str, dict[tuple[int | None, str], float]] = {"gained": {}, "lost": {}, "joint": {}}
    for run in model.runs:
        trade = trade_off(run.scores, bases[run.replicate].scores, gain=plan.gain, kept=plan.kept, price=plan.price)
        for name, values in changes.items():
            values[run.seed, run.replicate] = getattr(trade, name)
    spreads = {
        name: seed_spread([value for (_, replicate), value in values.items() if not replicate], questions.get(name))
        for name, values in changes.items()
    }
    return StudyRow(
        label=model.label,
        arm=model.arm,
        setting=tuple(model.setting.items()),
        share=model.share,
        seeds=tuple(run.seed for run in own),
        scores={name: seed_spread(values, questions.get(name)) for name, values in scores.items()},
        changes=changes,
        questions=questions,
        cost=model.cost,
        gained=spreads["gained"],
        lost=spreads["lost"],
        joint=spreads["joint"],
    )


def _mark_best(rows: Sequence[StudyRow]) -> list[StudyRow]:
    best: dict[str, StudyRow] = {}
    for row in rows:
        if row.arm != BASE and (row.arm not in best or row.joint.mean > best[row.arm].joint.mean):
            best[row.arm] = row
    labels = {row.label for row in best.values()}
    return [
        replace(row, best=row.label in labels, pareto=not any(_beats(other, row) for other in rows)) for row in rows
    ]


def _beats(one: StudyRow, other: StudyRow) -> bool:
    mine, yours = (one.gained.mean, -one.lost.mean), (other.gained.mean, -other.lost.mean)
    return mine != yours and mine[0] >= yours[0] and mine[1] >= yours[1]


ScoreWeights = Mapping[str, float]
"""A score that is a weighted sum of scores: factor by name."""


@dataclass(frozen=True)
class PairedTest:
    """The first model minus the second in one score, 0 to 1."""

    first: str
    second: str
    score: str
    difference: Difference
    """With an interval over seeds and questions; with one seed, over questions only."""
    questions: QuestionVariance | None
    gaps: RunValues
    """First minus second, for every run that both have."""
    p_seeds: float | None
    p_questions: float | None
    corrected_seeds: float | None = None
    corrected_questions: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0 and both corrected p-values (with one seed, one) are below 0.05.

        Each test leaves the other's source out, so both together are below 0.05 too often: with five to ten seeds, for
        up to 11 % of equal models (simulated).
        """
        p_values = [p for p in (self.corrected_seeds, self.corrected_questions) if p is not None]
        return self.difference.significant and bool(p_values) and all(p < LEVEL for p in p_values)


def tested_scores(gain: str, kept: str, price: float) -> dict[str, ScoreWeights]:
    """Return the scores to test, by name."""
    return {gain: {gain: 1.0}, kept: {kept: 1.0}, "joint": {gain: 1.0, kept: price}}


def common_seeds(*rows: StudyRow) -> list[int | None]:
    """Return the training seeds of the plan's own runs that all models share."""
    return sorted(set.intersection(*(set(row.seeds) for row in rows)), key=str)


def paired_tests(record: StudyRecord) -> list[PairedTest]:
    """Return the tests of a study, with corrected p-values."""
    values = {model.label: {(run.seed, run.replicate): run.scores for run in model.runs} for model in record.models}
    scores = tested_scores(record.plan.gain, record.plan.kept, record.plan.price)
    tests = [_test(row, values[row.first], values[row.second], scores[row.score]) for row in record.tests]
    by_seeds = holm([test.p_seeds for test in tests])
    by_questions = holm([test.p_questions for test in tests])
    return [
        replace(test, corrected_seeds=one, corrected_questions=other)
        for test, one, other in zip(tests, by_seeds, by_questions, strict=True)
    ]


def _test(
    row: TestRecord,
    first: Mapping[tuple[int | None, str], Mapping[str, float]],
    second: Mapping[tuple[int | None, str], Mapping[str, float]],
    weights: ScoreWeights,
) -> PairedTest:
    one, other = (
        {run: sum(factor * scores[name] for name, factor in weights.items()) for run, scores in runs.items()}
        for runs in (first, second)
    )
    own, others = ({seed: value for (seed, replicate), value in runs.items() if not replicate} for runs in (one, other))
    questions = row.questions.questions if row.questions else None
    difference = seed_difference(own, others, questions, doubt=row.doubt)
    gaps = {run: value - other[run] for run, value in one.items() if run in other}
    common = [gap for (_, replicate), gap in gaps.items() if not replicate]
    return PairedTest(
        first=row.first,
        second=row.second,
        score=row.score,
        difference=difference,
        questions=questions,
        gaps=gaps,
        p_seeds=p_over_seeds(common),
        p_questions=p_over_questions(difference.value, questions),
    )


def test_names(table: StudyTable, scores: Iterable[str], against: str | None) -> list[tuple[str, str, str]]:
    """Return score, first and second label of every test, in the order of the page.

    The best models of all arms are tested against each other, or against that of the arm `against`.
    """
    labels = {row.arm: row.label for row in table.best if row.arm != BASE}
    pairs = list(combinations(labels.values(), 2))
    if against in labels:
        pairs = [(label, labels[against]) for label in labels.values() if label != labels[against]]
    return [(score, first, second) for score, (first, second) in product(scores, pairs)]
