"""Compare result files of several methods and seeds: rows with spreads, gains and warnings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean

from degla.errors import InputError
from degla.evaluation.caveats import caveats_of, doubt_about, floor_notes, probe_notes, titled_notes
from degla.evaluation.cells import Cell, Method, Row, benchmark_sources, entries_of, ordered_results
from degla.evaluation.item_difference import ScoreName, item_score, lead_over, question_variance
from degla.evaluation.results import load_result
from degla.results import Result, Score, ScoreKey
from degla.shelf import did_you_mean
from degla.statistics.seeds import Difference, seed_difference, seed_spread

BySeed = Mapping[int | None, float]
"""Training seed to value."""


@dataclass(frozen=True)
class JointScore:
    """Sum of gain and loss of every method except the baseline.

    Attributes:
        gained: the composition row.
        kept: the recognition row, or the retrieval row if there is none.
        methods: label to the sum of both differences to the baseline, as shares (0.01 is a point).
    """

    gained: Row
    kept: Row
    methods: Mapping[str, Difference]


@dataclass(frozen=True)
class Comparison:
    """Everything that a report shows.

    Attributes:
        methods: in the order of the rows, the baseline first.
        baseline: label that gains are measured against; None: no gains.
        headline: one row per column of the first table.
        rows: every part and every average, benchmark by benchmark.
        warnings: sentences.
        floors: models that cannot know the answer, shown beside chance and not among the methods.
        text_solvable: one sentence per benchmark that names the parts which can be solved from the texts only.
        probes: sentences on what linear probes were fitted on.
        joint: composition gained minus recognition lost; None without a baseline or without one of the two.
    """

    methods: tuple[Method, ...]
    baseline: str | None
    headline: tuple[Row, ...]
    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()
    floors: tuple[Method, ...] = ()
    text_solvable: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    joint: JointScore | None = None

    @cached_property
    def titles(self) -> dict[str, str]:
        """Name of each benchmark to its published title."""
        return {name: data["title"] for name, data in benchmark_sources(self.methods).items()}


def compare(
    paths: Sequence[Path], *, baseline: str | None = None, names: Mapping[Path, str] | None = None
) -> Comparison:
    """Read results and compare them.

    Args:
        paths: result files; files with the same label are one method and must differ in their training seed.
        baseline: label that gains and losses are measured against.
        names: of files that messages should not call by their paths.

    Raises:
        InputError: no file, an invalid file, two results with the same label and seed, or an unknown baseline.
    """
    if not paths:
        raise InputError("no results given. Make one with `degla evaluate MODEL --out results.json`.")
    methods = _group(paths, names or {})
    if baseline is not None:
        if baseline not in methods:
            raise InputError(
                f"no result has the baseline's label {baseline!r}.{did_you_mean(baseline, methods)} "
                f"Labels: {', '.join(methods)}."
            )
        methods = {baseline: methods[baseline], **methods}
    ordered, floors = _split_floors(methods, baseline)
    rows: list[Row] = []
    headline: list[Row] = []
    for name in dict.fromkeys(entry.name for entry in entries_of(ordered)):
        benchmark_rows = _rows(name, ordered, baseline, floors)
        rows += benchmark_rows
        headline += _headline(name, ordered, benchmark_rows)
    warnings = tuple(caveats_of(ordered_results(ordered), floors=ordered_results(floors), baseline=baseline))
    joint = None
    if baseline is not None and (pairs := weighed_rows(headline)):
        joint = joint_score(*pairs[0], {method.label: method for method in ordered}, baseline=baseline)
    text_solvable, probes = (titled_notes(entries_of(ordered), notes) for notes in (floor_notes, probe_notes))
    return Comparison(ordered, baseline, tuple(headline), tuple(rows), warnings, floors, text_solvable, probes, joint)


def weighed_rows(headline: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Pair each composition column with recognition, preferably of its own benchmark; else with retrieval."""
    others = [row for row in headline if row.title == "recognition"]
    others = others or [row for row in headline if row.title == "retrieval"]
    return [
        (row, next((other for other in others if other.benchmark == row.benchmark), others[0]))
        for row in headline
        if row.title == "composition" and others
    ]


def joint_score(gained: Row, kept: Row, methods: Mapping[str, Method], *, baseline: str) -> JointScore | None:
    """Add both differences to the baseline, seed by seed; the interval covers the questions of both scores.

    Args:
        gained: the score that should rise.
        kept: the score that should not fall.
        methods: by label, including the baseline.
        baseline: label.

    Returns:
        None if a row cannot be compared, or no method has both.
    """
    rows = (gained, kept)
    scores = [(row.benchmark, (row.name, row.metric)) for row in rows]

    def values(label: str) -> BySeed:
        cells = [row.cells[label].values for row in rows if label in row.cells]
        names = {seed: _seed_name(seed) for seed in methods[label].results}
        by_seed = {seed: [own[name] for own in cells if name in own] for seed, name in names.items()}
        return {seed: sum(own) for seed, own in by_seed.items() if len(own) == len(rows)}

    # One seed may have only one of the scores, and another seed only the other.
    sums = {label: both for label in methods if (both := values(label))}
    if not all(row.comparable for row in rows) or baseline not in sums:
        return None
    differences = {
        label: _difference(scores, (methods[label], methods[baseline]), (own, sums[baseline]))
        for label, own in sums.items()
        if label != baseline
    }
    return JointScore(gained, kept, differences) if differences else None


def _difference(
    scores: Sequence[tuple[str, ScoreName]], pair: Sequence[Method], values: tuple[BySeed, BySeed]
) -> Difference:
    """The first method's score, or sum of scores, minus the second's; `values` are of each, by training seed."""
    common = values[0].keys() & values[1].keys()
    seeds = [common if len(common) > 1 else own for own in values]  # As `seed_difference` takes them.
    paths = [[path for seed, path in each.paths.items() if seed in own] for each, own in zip(pair, seeds, strict=True)]
    questions = lead_over(scores, *paths)
    results = [result for method in pair for result in method.results.values()]
    doubt = doubt_about(questions, results, {benchmark for benchmark, _ in scores})
    return seed_difference(values[0], values[1], questions, doubt=doubt)


def _seed_name(seed: int | None) -> str:
    return "-" if seed is None else str(seed)


def _group(paths: Sequence[Path], names: Mapping[Path, str]) -> dict[str, Method]:
    methods: dict[str, Method] = {}
    for path in paths:
        result = load_result(path)
        label, seed = result.model.label, result.training_seed
        method = methods.get(label, Method(label, {}, {}))
        if seed in method.paths:
            one, other = ({entry.name for entry in each.benchmarks} for each in (result, method.results[seed]))
            advice = (
                "Give each run its own seed, or each method its own label, when you evaluate."
                if one & other
                else "To report several benchmarks of one model, name all of them in one degla evaluate call; "
                "cached embeddings are reused."
            )
            here, there = (names.get(each, each) for each in (path, method.paths[seed]))
            raise InputError(f"{here}: label {label!r} with training seed {seed} is already in {there}. {advice}")
        if method.paths and None in {seed, *method.paths}:  # A base and its run would be averaged.
            taken, there = next(iter(method.paths.items()))
            raise InputError(
                f"{names.get(path, path)}: label {label!r} of {result.model.name} is already that of "
                f"{method.results[taken].model.name} in {names.get(there, there)}, and only one of them has a training "
                "seed. Give each method its own label when you evaluate."
            )
        methods[label] = Method(label, {**method.results, seed: result}, {**method.paths, seed: path})
    return methods


def _split_floors(methods: Mapping[str, Method], baseline: str | None) -> tuple[tuple[Method, ...], tuple[Method, ...]]:
    """Separate methods from floors; a floor that is the baseline, or floors without any other model, are methods."""
    low = [
        method
        for label, method in methods.items()
        if label != baseline and all(result.model.floor for result in method.results.values())
    ]
    high = [method for method in methods.values() if method not in low]
    return (tuple(high), tuple(low)) if high else (tuple(low), ())


def _rows(name: str, methods: Sequence[Method], baseline: str | None, floors: Sequence[Method]) -> list[Row]:
    scores: dict[ScoreKey, dict[str, dict[int | None, Score]]] = {}
    questions: set[str] = set()
    rules: dict[str, set[str]] = {}
    for method in methods:
        for seed, result in method.results.items():
            for benchmark in (entry for entry in result.benchmarks if entry.name == name):
                questions.add(benchmark.items_sha256)
                for part in benchmark.parts:
                    rules.setdefault(part.name, set()).add(part.tie)
                for key, score in benchmark.keyed_scores:
                    scores.setdefault(key, {}).setdefault(method.label, {})[seed] = score
    beside = floor_values({floor.label: list(floor.results.values()) for floor in floors}, name, questions=questions)
    one_rule = all(len(rule) == 1 for rule in rules.values())
    comparable = len(questions) == 1 and one_rule
    rows = []
    for key, by_label in scores.items():
        kind, title, metric, family, tie = key
        first = next(iter(next(iter(by_label.values())).values()))
        ranked = comparable and not first.lower
        rows.append(
            Row(
                title=title,
                benchmark=name,
                name=title,
                metric=metric,
                kind=kind,
                family=family,
                tie=tie,
                n=first.n,
                chance=first.chance,
                comparable=comparable,
                cells=_cells(name, (title, metric), by_label, methods, baseline if ranked else None, ranked),
                lower=first.lower,
                ceiling=first.ceiling if kind == "part" or one_rule else None,
                floors=first.floors | beside.get(key, {}),
            )
        )
    # A part's tie rule is part of its key, so two rules give two rows; parts come before averages.
    return sorted(rows, key=lambda row: row.kind != "part")


def _cells(
    benchmark: str,
    key: tuple[str, str],
    scores: Mapping[str, Mapping[int | None, Score]],
    methods: Sequence[Method],
    baseline: str | None,
    ranked: bool,
) -> dict[str, Cell]:
    by_label = {method.label: method for method in methods}
    values = {label: {seed: score.value for seed, score in seeds.items()} for label, seeds in scores.items()}

    def difference(first: str, second: str) -> Difference:
        return _difference([(benchmark, key)], (by_label[first], by_label[second]), (values[first], values[second]))

    leader = max(values, key=lambda label: seed_spread(list(values[label].values())).mean)
    rivals = [label for label in values if label != leader]

    def is_behind(rival: str) -> bool:
        gap = difference(leader, rival)
        return gap.significant and gap.value > 0

    leads = ranked and bool(rivals) and all(map(is_behind, rivals))
    cells = {}
    for label, seeds in scores.items():
        items = item_score(benchmark, key, [by_label[label].paths[seed] for seed in seeds]) if len(seeds) > 1 else None
        spread = seed_spread(list(values[label].values()), question_variance(items[1]) if items else None)
        gain = (
            difference(label, baseline) if baseline is not None and baseline in values and label != baseline else None
        )
        cells[label] = Cell(
            mean=spread.mean,
            deviation=spread.deviation,
            interval=spread.interval if spread.n > 1 else next(iter(seeds.values())).interval,
            values={_seed_name(seed): value for seed, value in values[label].items()},
            ties=max(score.ties for score in seeds.values()),
            n=next(iter(seeds.values())).n,
            gain=gain,
            best=leads and label == leader,
        )
    return cells


def _headline(name: str, methods: Sequence[Method], rows: Sequence[Row]) -> list[Row]:
    sources: dict[str, tuple[str, ...]] = {}
    for entry in entries_of(methods, name):
        own = {column: (*sources.get(column, ()), source) for column, source in entry.headline.items()}
        sources = own | {column: names for column, names in sources.items() if column not in own}
    firsts = {row.name: row for row in reversed(rows)}
    candidates = {column: [firsts[name] for name in names if name in firsts] for column, names in sources.items()}
    # Results of another version may fill a column from an average that the others lack.
    most = {column: max(own, key=lambda row: len(row.cells)) for column, own in candidates.items() if own}
    return [replace(row, title=column) for column, row in most.items()]


def floor_values(
    floors: Mapping[str, Sequence[Result]], name: str, *, questions: Collection[str]
) -> dict[ScoreKey, dict[str, float]]:
    """Return the mean score of each floor over its seeds, 0 to 1.

    Args:
        floors: label to results.
        name: of the benchmark.
        questions: `items_sha256` of the methods' questions; results on other questions are ignored.
    """
    scores: dict[ScoreKey, dict[str, list[float]]] = {}
    for label, results in floors.items():
        for entry in (entry for result in results for entry in result.benchmarks):
            if entry.name == name and entry.items_sha256 in questions:
                for key, score in entry.keyed_scores:
                    scores.setdefault(key, {}).setdefault(label, []).append(score.value)
    return {key: {label: fmean(values) for label, values in by_label.items()} for key, by_label in scores.items()}
