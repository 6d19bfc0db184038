"""Results to one row a model: every score with its interval over seeds, what was gained and lost, the joint score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from degla.evaluation.results import TracedResult
from degla.evaluation.statistics import Spread, seed_spread
from degla.evaluation.terminal import named_scores
from degla.evaluation.trade_off import trade_off
from degla.records import Result
from degla.study.tuning import Cost

BASE = "base"


@dataclass(frozen=True)
class Standing:
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
    cost: Cost | None
    """Mean over seeds; None for the base."""
    best: bool = False
    """The highest joint score of its arm."""
    pareto: bool = False
    """No other model gains more and loses no more, or loses less and gains no less."""

    @property
    def values(self) -> Mapping[str, float]:
        """Means by name."""
        return {name: spread.mean for name, spread in self.scores.items()}


@dataclass
class Model:
    """Results of one model over seeds, as they come in."""

    label: str
    arm: str
    setting: tuple[tuple[str, Any], ...]
    share: float
    results: dict[int | None, TracedResult] = field(default_factory=dict)
    costs: list[Cost] = field(default_factory=list)
    replicates: dict[tuple[int, str], tuple[TracedResult, TracedResult]] = field(default_factory=dict)
    """(Training seed, replicate) to its result and that of its own base."""


@dataclass(frozen=True)
class Table:
    """All standings, the base first, and the names of the columns."""

    standings: tuple[Standing, ...]
    headline: tuple[str, ...]
    families: tuple[str, ...]
    counts: Mapping[str, int]
    """Questions behind each column."""

    @property
    def best(self) -> list[Standing]:
        """The base and the best of every arm."""
        return [row for row in self.standings if row.best or row.arm == BASE]


def tabulate(models: Sequence[Model], *, gain: str, kept: str, price: float) -> Table:
    """Standings of all models.

    Args:
        models: the base first; each with at least one result.
        gain: name of the score that is to rise.
        kept: name of the score that is to be kept.
        price: of a point lost, in points gained.
    """
    base = next(iter(models[0].results.values()))
    headline = list(dict.fromkeys(column for benchmark in base.benchmarks for column in benchmark.headline))
    headline += [name for name in (gain, kept) if name not in headline]
    families = family_scores(base)
    counts = {name: n for name, (_, n) in families.items()}
    counts |= {name: _count(base, name) for name in headline}
    start = named_scores(base)
    rows = []
    for model in models:
        found: dict[str, list[float]] = {}
        for result in model.results.values():
            own = named_scores(result)
            means = {name: mean for name, (mean, _) in family_scores(result).items()}
            for name in headline:
                found.setdefault(name, []).append(own[name])
            for name in families:
                found.setdefault(f"family:{name}", []).append(means[name])
        trades = [
            trade_off({gain: up, kept: down}, start, gain=gain, kept=kept, price=price)
            for up, down in zip(found[gain], found[kept], strict=True)
        ]
        rows.append(
            Standing(
                label=model.label,
                arm=model.arm,
                setting=model.setting,
                share=model.share,
                seeds=tuple(model.results),
                scores={name: seed_spread(values) for name, values in found.items()},
                gained=seed_spread([trade.gained for trade in trades]),
                lost=seed_spread([trade.lost for trade in trades]),
                joint=seed_spread([trade.joint for trade in trades]),
                cost=_mean_cost(model.costs),
            )
        )
    return Table(tuple(_marked(rows)), tuple(headline), tuple(families), counts)


def family_scores(result: Result) -> dict[str, tuple[float, int]]:
    """Mean of the first scores of the parts of each family, and their number of items.

    Parts whose names begin alike ("id/", "ood/") are a family of their own, where the beginning is not the family.
    """
    found: dict[str, list[tuple[float, int]]] = {}
    several = len(result.benchmarks) > 1
    for benchmark in result.benchmarks:
        for part in benchmark.parts:
            place, slash, _ = part.name.partition("/")
            name = f"{part.family} {place}" if slash and place != part.family else part.family
            name = f"{benchmark.title}: {name}" if several else name
            found.setdefault(name, []).append((part.scores[0].value, part.scores[0].n))
    return {name: (fmean(value for value, _ in rows), sum(n for _, n in rows)) for name, rows in found.items()}


def _count(result: Result, column: str) -> int:
    for benchmark in result.benchmarks:
        name = benchmark.headline.get(column, column)
        for score in [part.scores[0] for part in benchmark.parts] + list(benchmark.averages):
            if score.name == name:
                return score.n
    return 0


def _marked(rows: Sequence[Standing]) -> list[Standing]:
    best: dict[str, Standing] = {}
    for row in rows:
        if row.arm != BASE and (row.arm not in best or row.joint.mean > best[row.arm].joint.mean):
            best[row.arm] = row
    return [
        replace(row, best=row in best.values(), pareto=not any(_beats(other, row) for other in rows)) for row in rows
    ]


def _beats(one: Standing, other: Standing) -> bool:
    mine, yours = (one.gained.mean, -one.lost.mean), (other.gained.mean, -other.lost.mean)
    return mine != yours and mine[0] >= yours[0] and mine[1] >= yours[1]


def _mean_cost(costs: Sequence[Cost]) -> Cost | None:
    if not costs:
        return None
    return Cost(
        seconds=fmean(cost.seconds for cost in costs),
        pairs_per_second=fmean(cost.pairs_per_second for cost in costs),
        teacher=costs[0].teacher,
        negatives=costs[0].negatives,
    )
