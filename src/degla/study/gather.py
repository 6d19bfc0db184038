"""Results of a study's runs to its record: every value, and what other questions would do to each score.

What they would do is told from scores as sums over items.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from degla.errors import InputError
from degla.evaluation.aggregate import ItemScore, joined
from degla.evaluation.caveats import missing_images, spoiled, told_notes, trained_on
from degla.evaluation.item_difference import averaged_scores, questions_of, questions_of_lead
from degla.evaluation.results import AskedRecord, TracedResult, load_result
from degla.evaluation.terminal import named_scores
from degla.pages.words import counted
from degla.results import BenchmarkResult, PartResult, Result, Score
from degla.statistics.seeds import QuestionVariance, doubt_of
from degla.study.jobs import Cost
from degla.study.plan import Plan
from degla.study.record import (
    ModelRecord,
    QuestionsRecord,
    RehearsalRecord,
    RunRecord,
    StudyRecord,
    TestRecord,
)
from degla.study.standings import BASE, ScoreWeights, common_seeds, tabulate, test_names, tested_scores
from degla.study.study import printed_scores

log = logging.getLogger("degla.study")

Items = Mapping[str, ItemScore]
"""Scores by name, of verdicts averaged over seeds."""


@dataclass
class Model:
    """Files of one model's results, as they come in."""

    label: str
    arm: str
    setting: tuple[tuple[str, Any], ...]
    share: float
    files: dict[tuple[int | None, str], Path] = field(default_factory=dict)
    """(Training seed, replicate; "" for the plan as it is) to the file."""
    costs: list[Cost] = field(default_factory=list)

    @property
    def own(self) -> dict[int | None, Path]:
        """Of the plan as it is."""
        return {seed: path for (seed, replicate), path in self.files.items() if not replicate}


def gather(
    plan: Plan, models: Sequence[Model], *, where: str, command: str, failures: Sequence[tuple[str, str]] = (),
    rehearsal: RehearsalRecord | None = None,
) -> StudyRecord:  # fmt: skip
    """The record of a study.

    Args:
        plan: what was run.
        models: the base first, under seed None, once for the plan and once a replicate; each model of the plan's own
            runs at least once.
        where: the plan's file.
        command: how to make it again.
        failures: title of a run that came to nothing, and why.
        rehearsal: where the plan is only rehearsed.

    Raises:
        InputError: results do not hold the same items, or files are damaged.
    """
    base = load_result(models[0].own[None])
    columns = _columns(base, plan)
    families, compositional = _families(base)
    counts = {name: score_of(base, name).n for name in columns} | {
        key: part.scores[0].n for key, (_, part) in _parts(base).items()
    }
    record = StudyRecord(
        title=plan.title,
        plan=plan,
        where=where,
        command=command,
        base=base.model.fingerprint,
        versions=base.versions,
        benchmarks=tuple(
            AskedRecord(name=entry.name, title=entry.title, items_sha256=entry.items_sha256)
            for entry in base.benchmarks
        ),
        headline=tuple(columns),
        families=families,
        counts=counts,
        compositional=compositional,
        models=tuple(_model(model, columns, printed=bool(plan.printed)) for model in models),
        failures=tuple(failures),
        caveats=tuple(_caveats(models)),
        rehearsal=rehearsal,
    )
    return _with_questions(record, models)


def _model(model: Model, columns: Sequence[str], *, printed: bool) -> ModelRecord:
    runs = []
    for (seed, replicate), path in model.files.items():
        result = load_result(path)
        named = named_scores(result)
        parts = {key: part.scores[0].value for key, (_, part) in _parts(result).items()}
        runs.append(
            RunRecord(
                seed=seed, replicate=replicate, scores={name: named[name] for name in columns}, parts=parts,
                printed=printed_scores(result) if printed else {},
            )
        )  # fmt: skip
    return ModelRecord(
        label=model.label, arm=model.arm, setting=dict(model.setting), share=model.share, runs=tuple(runs),
        questions={}, cost=_mean_cost(model.costs),
    )  # fmt: skip


def _parts(result: Result) -> dict[str, tuple[str, PartResult]]:
    """Benchmark and part by the part's name; with the benchmark's name before it where there are several."""
    several = len(result.benchmarks) > 1
    return {
        f"{entry.name}:{part.name}" if several else part.name: (entry.name, part)
        for entry in result.benchmarks
        for part in entry.parts
    }


def _columns(base: Result, plan: Plan) -> list[str]:
    named = [column for benchmark in base.benchmarks for column in benchmark.headline]
    return list(dict.fromkeys([*named, plan.gain, plan.kept]))


def _families(base: Result) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Families of parts, and the parts that are about composition.

    Parts whose names begin alike ("id/", "ood/") are a family of their own, where the beginning is not the family.
    """
    found: dict[str, list[str]] = {}
    compositional = []
    titles = {entry.name: entry.title for entry in base.benchmarks}
    for key, (benchmark, part) in _parts(base).items():
        place, slash, _ = part.name.partition("/")
        name = f"{part.family} {place}" if slash and place != part.family else part.family
        name = f"{titles[benchmark]}: {name}" if len(titles) > 1 else name
        found.setdefault(name, []).append(key)
        if part.family not in ("recognition", "retrieval"):
            compositional.append(key)
    return {name: tuple(keys) for name, keys in found.items()}, tuple(compositional)


def _caveats(models: Sequence[Model]) -> list[str]:
    """What was found out about the data, each said once: parts that their texts tell, missing images, leakage."""
    start = load_result(models[0].own[None])
    found = dict.fromkeys(note for entry in start.benchmarks for note in told_notes(entry))
    leaked: dict[str, tuple[TracedResult, dict[str, None]]] = {}
    for model in models:
        for path in model.files.values():
            result = load_result(path)
            found |= dict.fromkeys(sentence for entry in result.benchmarks for sentence in missing_images(entry))
            if result.leakage is not None:
                _, labels = leaked.setdefault(str(result.leakage.overlaps), (result, {}))
                labels[model.label] = None
    for result, labels in leaked.values():
        titles = {entry.name: entry.title for entry in result.benchmarks}
        found |= dict.fromkeys(trained_on(", ".join(labels), result.leakage, titles))
    return list(found)


def _mean_cost(costs: Sequence[Cost]) -> Cost | None:
    if not costs:
        return None
    return Cost(
        seconds=round(fmean(cost.seconds for cost in costs), 2),
        pairs_per_second=round(fmean(cost.pairs_per_second for cost in costs), 1),
        teacher=costs[0].teacher,
        negatives=costs[0].negatives,
    )


def _with_questions(record: StudyRecord, models: Sequence[Model]) -> StudyRecord:
    table = tabulate(record)
    plan = record.plan
    weights = tested_scores(plan.gain, plan.kept, plan.price)
    changes = {"gained": {plan.gain: 1.0}, "lost": {plan.kept: -1.0}, "joint": weights["joint"]}
    log.info("what other questions would do to %s", counted(len(models), "model"))
    contenders = {row.label for row in table.best}
    items: dict[str, Items] = {}
    filled = []
    for model, made in zip(models, record.models, strict=True):
        own = _items(list(model.own.values()), record, label=model.label)
        found = {name: questions_of(score) for name, score in own[0].items()}
        if model.arm == BASE:
            base = own
        else:
            if own[1] != base[1]:
                raise InputError(
                    f"{model.label}: its results do not hold the same items as those of {BASE}, so no difference can "
                    "be told; measure both on the same questions."
                )
            found |= {name: questions_of_lead(_leads(change, own[0], base[0])) for name, change in changes.items()}
        kept = {name: QuestionsRecord.of(value) for name, value in found.items() if value is not None}
        filled.append(made.model_copy(update={"questions": kept}))
        if model.label in contenders:
            items[model.label] = own[0]
    record = record.model_copy(update={"models": tuple(filled)})

    by_label = {model.label: model for model in models}
    if len(table.best) > 2:  # The base and two arms.
        log.info("testing differences between %s", counted(len(table.best) - 1, "arm"))
    tests = []
    for score, first, second in test_names(table, weights, plan.against):
        common = common_seeds(table.of(first), table.of(second))
        one, other = (
            items[label]
            if len(common) == len(by_label[label].own)
            else _items([by_label[label].own[seed] for seed in common], record, label=label)[0]
            for label in (first, second)
        )
        questions = questions_of_lead(_leads(weights[score], one, other)) if common else None
        tests.append(TestRecord(
            first=first, second=second, score=score,
            questions=None if questions is None else QuestionsRecord.of(questions),
            doubt=_doubt(questions, [by_label[first], by_label[second]], weights[score]),
        ))  # fmt: skip
    return record.model_copy(update={"tests": tuple(tests)})


def _doubt(questions: QuestionVariance | None, models: Sequence[Model], weights: ScoreWeights) -> str:
    results = [load_result(path) for model in models for path in model.own.values()]
    asked = {benchmark_of(result, name).name for result in results for name in weights}
    leaked, missing = spoiled(results, asked)
    return doubt_of(questions, leaked=leaked, missing=missing)


def _leads(weights: ScoreWeights, first: Items, second: Items) -> list[tuple[float, ItemScore, ItemScore]]:
    return [(factor, first[name], second[name]) for name, factor in weights.items()]


def _items(paths: Sequence[Path], record: StudyRecord, *, label: str) -> tuple[Items, list[str]]:
    """Scores and families of results averaged over seeds, and the ids of their items."""
    results: list[TracedResult] = [load_result(path, items=True) for path in paths]
    found, scores = named_items(results, record.headline, where=label)
    parts = {
        key: scores[benchmark][part.name, part.scores[0].metric]
        for key, (benchmark, part) in _parts(results[0]).items()
    }
    for family, keys in record.families.items():
        found[f"family:{family}"] = joined([parts[key] for key in keys], np.full(len(keys), 1 / len(keys)))
    return found, [row.id for row in results[0].items]


def benchmark_of(result: Result, name: str) -> BenchmarkResult:
    """The benchmark that a score is of, as `named_scores` has it: the first that knows it."""
    return next(entry for entry in result.benchmarks if name in entry.headline or name in entry.named)


def score_of(result: Result, name: str) -> Score:
    """The score of that name."""
    entry = benchmark_of(result, name)
    return entry.named[name if name in entry.named else entry.headline[name]]


def named_items(
    results: Sequence[Result], names: Iterable[str], *, where: str
) -> tuple[dict[str, ItemScore], dict[str, dict[tuple[str, str], ItemScore]]]:
    """Scores by name, and all of them by benchmark, name and metric.

    Args:
        results: of one model over seeds, with their items.
        names: headline columns, parts or named averages.
        where: names the model in messages.

    Raises:
        InputError: the results do not hold the same items.
    """
    scores = averaged_scores(results, where=where)
    found = {}
    for name in names:
        score = score_of(results[0], name)
        found[name] = scores[benchmark_of(results[0], name).name][score.name, score.metric]
    return found, scores
