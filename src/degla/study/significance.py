"""Paired tests between arms, each over seeds and over questions; a difference counts where both find it.

Over seeds: a paired t-test of the differences seed by seed. Over questions: a normal test by the standard error of the
verdicts averaged over the seeds that both have, images drawn. A difference counts where both are below 0.05 after
Holm's correction over all tests of that kind, and nothing speaks against it (`statistics.seeds.doubt_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product

from degla.statistics.seeds import (
    LEVEL,
    Difference,
    QuestionVariance,
    RunValues,
    holm,
    p_over_questions,
    p_over_seeds,
    seed_difference,
)
from degla.study.record import StudyRecord, TestRecord
from degla.study.standings import BASE, StudyRow, StudyTable

ScoreWeights = Mapping[str, float]
"""A score that is a weighted sum of scores: name to factor."""


@dataclass(frozen=True)
class PairedTest:
    """The first model minus the second in one score, 0 to 1."""

    first: str
    second: str
    score: str
    difference: Difference
    """With an interval over seeds and questions; with one seed, over questions alone."""
    questions: QuestionVariance | None
    gaps: RunValues
    """Of every run that both have."""
    p_seeds: float | None
    p_questions: float | None
    corrected_seeds: float | None = None
    corrected_questions: float | None = None

    @property
    def significant(self) -> bool:
        """Below 0.05 after correction over seeds and over questions, without a doubt; with one seed, over questions."""
        known = [p for p in (self.corrected_seeds, self.corrected_questions) if p is not None]
        return not self.difference.doubt and bool(known) and all(p < LEVEL for p in known)


def tested_scores(gain: str, kept: str, price: float) -> dict[str, ScoreWeights]:
    """What is tested, by name."""
    return {gain: {gain: 1.0}, kept: {kept: 1.0}, "joint": {gain: 1.0, kept: price}}


def common_seeds(*rows: StudyRow) -> list[int | None]:
    """Training seeds of the plan's own runs that all models have."""
    return sorted(set.intersection(*(set(row.seeds) for row in rows)), key=str)


def paired_tests(record: StudyRecord, table: StudyTable) -> list[PairedTest]:
    """The tests of a study, corrected."""
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
    """Score, first and second label of every test, in the order of the page.

    The best of each arm is tested against each other, or against that of one arm.
    """
    labels = {row.arm: row.label for row in table.best if row.arm != BASE}
    pairs = list(combinations(labels.values(), 2))
    if against in labels:
        pairs = [(label, labels[against]) for label in labels.values() if label != labels[against]]
    return [(score, first, second) for score, (first, second) in product(scores, pairs)]
