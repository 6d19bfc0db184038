"""A study's record to one row a model: every score with its interval, what was gained and lost, the joint score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

from degla.evaluation.choice import trade_off
from degla.statistics.seeds import QuestionVariance, RunValues, Spread, seed_spread
from degla.study.jobs import Cost
from degla.study.record import ModelRecord, RunRecord, StudyRecord

BASE = "base"


@dataclass(frozen=True)
class StudyRow:
    """One model of the study: an arm at one setting and one share of averaging, over its seeds.

    All scores are 0 to 1; differences are to the base.
    """

    label: str
    arm: str
    setting: tuple[tuple[str, Any], ...]
    share: float
    seeds: tuple[int | None, ...]
    scores: Mapping[str, Spread]
    """Headline columns, families, and the gained and kept score by name."""
    gained: Spread
    """Score that is to rise, minus the base's."""
    lost: Spread
    """Score that is to be kept: the base's minus this one's; below 0 where it rose."""
    joint: Spread
    """Gained minus price times lost."""
    changes: Mapping[str, RunValues]
    """"gained", "lost" and "joint" of every run, each against its own base."""
    questions: Mapping[str, QuestionVariance]
    """Of scores and of the three changes."""
    cost: Cost | None
    """Mean over seeds; None for the base."""
    best: bool = False
    """The highest joint score of its arm."""
    pareto: bool = False
    """No other model gains more and loses no more, or loses less and gains no less."""


@dataclass(frozen=True)
class StudyTable:
    """All standings, the base first, and the names of the columns."""

    standings: tuple[StudyRow, ...]
    headline: tuple[str, ...]
    families: tuple[str, ...]
    counts: Mapping[str, int]
    """Questions behind each column."""

    @property
    def best(self) -> list[StudyRow]:
        """The base and the best of every arm."""
        return [row for row in self.standings if row.best or row.arm == BASE]

    def of(self, label: str) -> StudyRow:
        """The model of that label."""
        return next(row for row in self.standings if row.label == label)


def tabulate(record: StudyRecord) -> StudyTable:
    """Standings of all models."""
    bases = {run.replicate: run for run in record.models[0].runs}
    rows = [_standing(model, record, bases) for model in record.models]
    counts = dict(record.counts) | {
        family: sum(record.counts[part] for part in parts) for family, parts in record.families.items()
    }
    # A family named as a column would be a second number of that name: the column may be of some of its parts only.
    families = tuple(name for name in record.families if name not in record.headline)
    return StudyTable(tuple(_marked(rows)), record.headline, families, counts)


def _standing(model: ModelRecord, record: StudyRecord, bases: Mapping[str, RunRecord]) -> StudyRow:
    plan = record.plan
    own = [run for run in model.runs if not run.replicate]
    questions = {name: found.questions for name, found in model.questions.items()}
    found = {name: [run.scores[name] for run in own] for name in own[0].scores}
    for family, parts in record.families.items():
        found[f"family:{family}"] = [fsum(run.parts[part] for part in parts) / len(parts) for run in own]
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
        scores={name: seed_spread(values, questions.get(name)) for name, values in found.items()},
        changes=changes,
        questions=questions,
        cost=model.cost,
        gained=spreads["gained"],
        lost=spreads["lost"],
        joint=spreads["joint"],
    )


def _marked(rows: Sequence[StudyRow]) -> list[StudyRow]:
    best: dict[str, StudyRow] = {}
    for row in rows:
        if row.arm != BASE and (row.arm not in best or row.joint.mean > best[row.arm].joint.mean):
            best[row.arm] = row
    chosen = {row.label for row in best.values()}
    return [
        replace(row, best=row.label in chosen, pareto=not any(_beats(other, row) for other in rows)) for row in rows
    ]


def _beats(one: StudyRow, other: StudyRow) -> bool:
    mine, yours = (one.gained.mean, -one.lost.mean), (other.gained.mean, -other.lost.mean)
    return mine != yours and mine[0] >= yours[0] and mine[1] >= yours[1]
