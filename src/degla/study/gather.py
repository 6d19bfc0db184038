"""Gather the results of a study's runs into its record: every value, and the variance of each score over questions.

That variance is computed from scores as sums over items.
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
from degla.evaluation.aggregate import ItemScore, weighted_sum
from degla.evaluation.caveats import doubt_about, floor_notes, missing_images, of_training, titled_notes
from degla.evaluation.item_difference import averaged_scores, lead_variance, question_variance
from degla.evaluation.results import AskedRecord, TracedResult, load_result
from degla.evaluation.terminal import named_scores
from degla.pages.words import counted
from degla.results import BenchmarkResult, PartResult, Result, Score
from degla.study.jobs import Cost
from degla.study.plan import Plan
from degla.study.record import ModelRecord, QuestionsRecord, RehearsalRecord, RunRecord, StudyRecord, TestRecord
from degla.study.standings import BASE, ScoreWeights, common_seeds, tabulate, test_names, tested_scores
from degla.study.study import printed_scores

log = logging.getLogger("degla.study")

Items = Mapping[str, ItemScore]
"""Scores by name, from verdicts averaged over seeds."""


@dataclass
class Model:
    """Result files of one model."""

    label: str
    arm: str
    setting: tuple[tuple[str, Any], ...]
    share: float
    files: dict[tuple[int | None, str], Path] = field(default_factory=dict)
    """File by (training seed, replicate); the replicate is "" for the plan itself."""
    costs: list[Cost] = field(default_factory=list)

    @property
    def own(self) -> dict[int | None, Path]:
        """Files of the plan itself, by seed."""
        return {seed: path for (seed, replicate), path in self.files.items() if not replicate}


def gather(
    plan: Plan, models: Sequence[Model], *, where: str, command: str, failures: Sequence[tuple[str, str]] = (),
    rehearsal: RehearsalRecord | None = None,
) -> StudyRecord:  # fmt: skip
    """Build the record of a study.

    Args:
        plan: the plan that was run.
        models: the base first, with seed None, once for the plan and once per replicate; each model needs at least
            one of the plan's own runs.
        where: the plan file.
        command: the command that reproduces it.
        failures: title of each failed run, and why it failed.
        rehearsal: set if the plan is only rehearsed.

    Raises:
        InputError: results have different items, or files are damaged.
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
        text_solvable=titled_notes(base.benchmarks, floor_notes),
        rehearsal=rehearsal,
    )
    return _with_questions(record, models)


def _model(model: Model, columns: Sequence[str], *, printed: bool) -> ModelRecord:
    runs = []
    for (seed, replicate), path in model.files.items():
        result = load_result(path)
        values, in_print = named_scores(result), printed_scores(result) if printed else {}
        scores = {name: values[name] for name in columns}
        parts = {key: part.scores[0].value for key, (_, part) in _parts(result).items()}
        runs.append(RunRecord(seed=seed, replicate=replicate, scores=scores, parts=parts, printed=in_print))
    return ModelRecord(
        label=model.label, arm=model.arm, setting=dict(model.setting), share=model.share, runs=tuple(runs),
        questions={}, cost=_mean_cost(model.costs),
    )  # fmt: skip


def _parts(result: Result) -> dict[str, tuple[str, PartResult]]:
    """Benchmark and part by the part's name, prefixed with the benchmark's name if there are several."""
    several = len(result.benchmarks) > 1
    return {
        f"{entry.name}:{part.name}" if several else part.name: (entry.name, part)
        for entry in result.benchmarks
        for part in entry.parts
    }


def _columns(base: Result, plan: Plan) -> list[str]:
    rising = named_scores(base)  # The page has gains, so no column of which less is better.
    headline = [column for benchmark in base.benchmarks for column in benchmark.headline if column in rising]
    return list(dict.fromkeys([*headline, plan.gain, plan.kept]))


def _families(base: Result) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Families of parts, and the parts that test composition.

    Parts whose names share a prefix ("id/", "ood/") form a separate family, unless the prefix is the family. A family
    that is a column of its benchmark is left out: its first scores may be of another metric than the column.
    """
    families: dict[str, list[str]] = {}
    compositional = []
    entries = {entry.name: entry for entry in base.benchmarks}
    for key, (benchmark, part) in _parts(base).items():
        if part.family not in ("recognition", "retrieval"):
            compositional.append(key)
        entry = entries[benchmark]
        place, slash, _ = part.name.partition("/")
        name = f"{part.family} {place}" if slash and place != part.family else part.family
        if name in entry.headline and benchmark_of(base, name) is entry:
            continue
        name = f"{entry.title}: {name}" if len(entries) > 1 else name
        families.setdefault(name, []).append(key)
    return {name: tuple(keys) for name, keys in families.items()}, tuple(compositional)


def _caveats(models: Sequence[Model]) -> list[str]:
    """Findings about the data, each once: missing images, leakage."""
    caveats: dict[str, None] = {}
    leaked: dict[str, tuple[TracedResult, dict[str, None]]] = {}
    for model in models:
        for path in model.files.values():
            result = load_result(path)
            caveats |= dict.fromkeys(sentence for entry in result.benchmarks for sentence in missing_images(entry))
            if result.leakage is not None:
                found = result.leakage.model_copy(update={"captions": (), "images": 0})
                _, labels = leaked.setdefault(str(found), (result, {}))
                labels[model.label] = None
    for result, labels in leaked.values():
        titles = {entry.name: entry.title for entry in result.benchmarks}
        caveats |= dict.fromkeys(of_training(", ".join(labels), result.leakage, titles))
    return list(caveats)


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
    log.info("computing the variance over questions of %s", counted(len(models), "model"))
    contenders = {row.label for row in table.best}
    items: dict[str, Items] = {}
    model_records = []
    for model, model_record in zip(models, record.models, strict=True):
        own = _items(list(model.own.values()), record, label=model.label)
        variances = {name: question_variance(score) for name, score in own[0].items()}
        if model.arm == BASE:
            base = own
        else:
            if own[1] != base[1]:
                raise InputError(
                    f"{model.label}: its results have other items than those of {BASE}, so they cannot be compared. "
                    "Measure both on the same questions."
                )
            variances |= {name: lead_variance(_leads(change, own[0], base[0])) for name, change in changes.items()}
        question_records = {name: QuestionsRecord.of(value) for name, value in variances.items() if value is not None}
        model_records.append(model_record.model_copy(update={"questions": question_records}))
        if model.label in contenders:
            items[model.label] = own[0]
    record = record.model_copy(update={"models": tuple(model_records)})

    by_label = {model.label: model for model in models}
    if len(table.best) > 2:  # The base and two arms.
        log.info("testing differences between %s", counted(len(table.best) - 1, "arm"))
    tests = []
    for score, first, second in test_names(table, weights, plan.against):
        common = common_seeds(table.of(first), table.of(second))
        one, other = (
            items[label]
            if len(common) in (0, 1, len(by_label[label].own))  # As `seed_difference` takes them.
            else _items([by_label[label].own[seed] for seed in common], record, label=label)[0]
            for label in (first, second)
        )
        questions = lead_variance(_leads(weights[score], one, other))
        results = [load_result(path) for label in (first, second) for path in by_label[label].own.values()]
        benchmarks = {benchmark_of(each, name).name for each in results for name in weights[score]}
        tests.append(TestRecord(
            first=first, second=second, score=score,
            questions=None if questions is None else QuestionsRecord.of(questions),
            doubt=doubt_about(questions, results, benchmarks),
        ))  # fmt: skip
    return record.model_copy(update={"tests": tuple(tests)})


def _leads(weights: ScoreWeights, first: Items, second: Items) -> list[tuple[float, ItemScore, ItemScore]]:
    return [(factor, first[name], second[name]) for name, factor in weights.items()]


def _items(paths: Sequence[Path], record: StudyRecord, *, label: str) -> tuple[Items, list[str]]:
    """Scores and families from results averaged over seeds, and the ids of their items."""
    results: list[TracedResult] = [load_result(path, items=True) for path in paths]
    by_name, scores = named_items(results, record.headline, where=label)
    parts = {
        key: scores[benchmark][part.name, part.scores[0].metric]
        for key, (benchmark, part) in _parts(results[0]).items()
    }
    for family, keys in record.families.items():
        by_name[f"family:{family}"] = weighted_sum([parts[key] for key in keys], np.full(len(keys), 1 / len(keys)))
    return by_name, [row.id for row in results[0].items]


def benchmark_of(result: Result, name: str) -> BenchmarkResult:
    """Return the benchmark of a score, as in `named_scores`: the first one that has it."""
    return next(entry for entry in result.benchmarks if name in entry.headline or name in entry.named)


def score_of(result: Result, name: str) -> Score:
    """Return the score with that name."""
    entry = benchmark_of(result, name)
    return entry.named[name if name in entry.named else entry.headline[name]]


def named_items(
    results: Sequence[Result], names: Iterable[str], *, where: str
) -> tuple[dict[str, ItemScore], dict[str, dict[tuple[str, str], ItemScore]]]:
    """Return scores by name, and all scores by benchmark, name and metric.

    Args:
        results: results of one model over seeds, with their items.
        names: headline columns, parts or named averages.
        where: names the model in messages.

    Raises:
        InputError: the results have different items.
    """
    scores = averaged_scores(results, where=where)
    by_name = {}
    for name in names:
        score = score_of(results[0], name)
        by_name[name] = scores[benchmark_of(results[0], name).name][score.name, score.metric]
    return by_name, scores
