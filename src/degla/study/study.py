"""A study as its pages show it, derived from its record only: table, tests, sources of variance, warnings.

Also builds the published tables that the plan names, complete, with the scores measured here below their rows, and the
plan of the best settings: chosen on validation scenes, reported on test scenes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import yaml

from degla.config.fields import path_fields
from degla.evaluation.in_print import PublishedTable, published_tables
from degla.evaluation.neutral import members_of
from degla.files import write_text
from degla.pages.page import Part, Section
from degla.pages.table import Column, Table, TableCell, TableRow
from degla.pages.words import counted, percent, points
from degla.remote import address_of
from degla.results import Result
from degla.shelf import BENCHMARKS
from degla.statistics.seeds import Overall, over_sources
from degla.study.plan import Plan, WorldData
from degla.study.record import RehearsalRecord, RehearsedKind, StudyRecord
from degla.study.standings import BASE, PairedTest, StudyTable, paired_tests, tabulate

_ENOUGH_SEEDS = 5
"""Fewest seeds to report; settings may be chosen with fewer."""
_ENOUGH_ITEMS = 1000
_SIZES = ("items_per_part", "images_per_class", "retrieval_images")
_MARKS: Final[Mapping[str, str]] = {"items": " °", "pictures": " °°", "made": " °°°"}
"""Marks of rehearsed cells by how their parts were rehearsed, from the best to the worst."""
_LEGEND: Final = (
    "Cells marked ° are rehearsed, not measured: ° a few of the benchmark's own questions on their own "
    "photographs, °° its own questions on drawn images, °°° generated questions on drawn images. A column of several "
    "parts has the mark of its worst part."
)
_HERE: Final = (
    "In percent. Published rows are as printed, with known errors corrected (marked *); rows "
    "“here” are this study's mean over seeds"
)


class Study:
    """Everything that the pages derive from a record."""

    def __init__(self, record: StudyRecord) -> None:
        self.record = record

    @property
    def plan(self) -> Plan:
        """The plan as it was run."""
        return self.record.plan

    @cached_property
    def table(self) -> StudyTable:
        """One row per model."""
        return tabulate(self.record)

    @cached_property
    def tests(self) -> list[PairedTest]:
        """Paired tests between the arms."""
        return paired_tests(self.record)

    @property
    def choice(self) -> bool:
        """Whether some arm shows the best of several settings."""
        arms = [row.arm for row in self.table.rows]
        return any(arms.count(arm.name) > 1 for arm in self.plan.arms)

    @property
    def replicates(self) -> dict[str, list[str]]:
        """What replicates change ("negatives", "scenes, questions, base"), mapped to the replicates' names."""
        by_source: dict[str, list[str]] = {}
        for replicate in self.plan.replicates:
            by_source.setdefault(", ".join(self.plan.sources_of(replicate)), []).append(replicate.title)
        return by_source

    @property
    def sources(self) -> list[str]:
        """Names of the sources of variance, if replicates were run."""
        names = [source.name for _, _, overall in self.variances for source in overall.sources]
        return list(dict.fromkeys(names))

    @cached_property
    def variances(self) -> list[tuple[str, str, Overall]]:
        """Model or pair, score, and its sources of variance, if replicates were run."""
        rows = []
        names = {"gained": f"{self.plan.gain} gained", "lost": f"{self.plan.kept} lost", "joint": "joint"}
        for row in self.table.best:
            for change, name in names.items():
                overall = over_sources(row.changes[change], self.replicates, row.questions.get(change))
                if row.arm != BASE and overall is not None:
                    rows.append((row.label, name, overall))
        for test in self.tests:
            overall = over_sources(test.gaps, self.replicates, test.questions)
            if overall is not None:
                rows.append((f"{test.first} \N{MINUS SIGN} {test.second}", test.score, overall))
        return rows

    @property
    def covered(self) -> str:
        """What ± covers and what it leaves out, in sentences."""
        counts = {len(row.seeds) for row in self.table.rows if row.arm != BASE}
        what = "over questions only" if counts == {1} else "over seeds and questions"
        if len(counts) > 1 and 1 in counts:
            what += " (with one seed, over questions only)"
        elif counts != {1}:
            what += " (for the base, over questions only)"
        missing = ["base model", "scenes" if self.plan.world else "training pairs", "seed of the negatives"]
        if counts == {1}:
            missing = ["training seed", *missing]
        text = f"± is half of a 95 % interval of the mean {what}; not covered: {', '.join(missing)}"
        varied = [name for name in self.sources if name != "training seed"]
        return f"{text}. The table of variances shows the effect of {' and '.join(varied)}." if varied else f"{text}."

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before trusting the numbers, in sentences."""
        return list(self._warnings())

    def _warnings(self) -> Iterator[str]:
        record, plan = self.record, self.plan
        if record.rehearsal is not None:
            rehearsal = record.rehearsal
            negatives = f", negatives {rehearsal.negatives}" if rehearsal.negatives else ""
            yield (
                f"a rehearsal: {rehearsal.steps} steps of {rehearsal.batch_size} pairs on the small model "
                f"`{plan.base}` instead of `{rehearsal.base}`, on {rehearsal.pairs}{negatives}, and a few questions of "
                "each part. It shows that the plan runs from end to end. None of its numbers is a measurement."
            )
        if record.failures:
            causes = "; ".join(f"{title} ({error})" for title, error in record.failures)
            yield f"{counted(len(record.failures), 'run')} failed (not shown): {causes}."
        yield from record.caveats
        fewest = min((len(row.seeds) for row in self.table.rows if row.arm != BASE), default=_ENOUGH_SEEDS)
        if fewest < _ENOUGH_SEEDS:
            yield (
                f"{counted(fewest, 'seed')} for at least one model: intervals over so few seeds are wide or do not "
                f"cover seeds. Use at least {_ENOUGH_SEEDS}."
            )
        least = min((record.counts[part] for part in record.compositional), default=_ENOUGH_ITEMS)
        if least < _ENOUGH_ITEMS:
            yield (
                f"the smallest compositional part has {counted(least, 'question')}; its standard error is up to "
                f"{50 / least**0.5:.1f} points."
            )
        if self.choice:
            test = plan.world is None or plan.world.split == "test"
            note = " and the test questions are no longer unseen" if test else ""
            then = "To report the chosen settings, run the plan chosen.yaml on other questions."
            if plan.world:
                then = "To report the chosen settings on test scenes, run the plan chosen.yaml."
            yield (
                "the best of several settings of an arm was chosen on the questions that it is reported on, so "
                f"its lead is inflated{note}. {then}"
            )
        edges = at_edges(self.table)
        if edges:
            settings = "; ".join(f"{arm} ({', '.join(where)})" for arm, where in edges.items())
            yield f"the best setting is at the edge of the values tried, so a better one may lie beyond it: {settings}."


def chosen_plan(plan: Plan, table: StudyTable, *, folder: Path) -> dict[str, Any]:
    """Return the plan with each arm at its best setting and share by joint score, on test scenes of the world.

    If the plan used few seeds or few world questions to choose, the new one has five seeds and the default sizes.

    Args:
        plan: as it was run.
        table: its results.
        folder: where the new plan will be; its paths are relative to it.
    """
    best = {row.arm: row for row in table.rows if row.best and row.arm != BASE}
    arms = []
    for arm in plan.arms:
        if arm.name not in best:
            continue
        row = best[arm.name]
        fields = {**arm.fields, **dict(row.setting)}
        own = arm.model_dump(mode="json", exclude={"fields", "average"}, exclude_defaults=True)
        arms.append({**own, **_from(folder, fields), "average": [row.share]})
    values = plan.model_dump(mode="json", exclude={"arms", "average"}, exclude_defaults=True)
    values["title"] = f"{plan.title}, chosen settings"
    labels = "; ".join(row.label for row in best.values())
    values["about"] = f"Each arm at the setting with its best joint score in “{plan.title}”: {labels}."
    # Fields that span a grid are in the arms, with one value each.
    values["set"] = _from(folder, {name: value for name, value in plan.set.items() if not isinstance(value, list)})
    # An arm without a finished run is left out everywhere.
    gone = {arm.name for arm in plan.arms} - best.keys()
    if plan.against in gone:
        del values["against"]
    for label in gone & plan.printed.keys():
        del values["printed"][label]
    for replicate in values.get("replicates", []):
        if "arms" in replicate:
            replicate["arms"] = [label for label in replicate["arms"] if label not in gone]
    if "replicates" in values:
        values["replicates"] = [replicate for replicate in values["replicates"] if replicate.get("arms") != []]
    more = (seed for seed in count() if seed not in plan.seeds)
    values["seeds"] = [*plan.seeds, *islice(more, max(0, _ENOUGH_SEEDS - len(plan.seeds)))]
    if plan.benchmarks is not None:
        values["benchmarks"]["root"] = os.path.relpath(plan.benchmarks.root, folder)
    if plan.world is not None:
        least = WorldData()
        sizes = {name: max(getattr(plan.world, name), getattr(least, name)) for name in _SIZES}
        values["world"] = {**plan.world.model_dump(mode="json", exclude_defaults=True), **sizes, "split": "test"}
    return {**values, "arms": arms}


def _from(folder: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    local = {name for name in path_fields() if fields.get(name) is not None and address_of(fields[name]) is None}
    return {name: os.path.relpath(value, folder) if name in local else value for name, value in fields.items()}


_MADE: Final = "# Made by degla study: each arm at its best setting by the joint score."


def write_chosen(plan: Plan, table: StudyTable, path: Path) -> None:
    """Write the plan that `chosen_plan` returns."""
    text = yaml.safe_dump(chosen_plan(plan, table, folder=path.parent), sort_keys=False, allow_unicode=True, width=110)
    write_text(path, f"{_MADE}\n{text}")


def drop_chosen(path: Path) -> None:
    """Delete such a plan; a file by anyone else stays."""
    with suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8").startswith(_MADE):
            path.unlink()


def at_edges(table: StudyTable) -> dict[str, list[str]]:
    """Return arms whose best setting is the smallest or largest value tried of a field, with those fields: a better
    value may lie beyond. A share of 1 is the tuned model and does not count."""
    edges: dict[str, list[str]] = {}
    for best in table.best:
        rows = [row for row in table.rows if row.arm == best.arm]
        values_by_field: dict[str, set[float]] = {}
        for row in rows:
            for name, value in (*row.setting, ("share", row.share)):
                if (number := _number(value)) is not None:
                    values_by_field.setdefault(name, set()).add(number)
        for name, value in (*best.setting, ("share", best.share)):
            number, values = _number(value), values_by_field.get(name, set())
            if number is None or len(values) < 2 or (name == "share" and number == 1):
                continue
            if number in (min(values), max(values)):
                end = "smallest" if number == min(values) else "largest"
                text = f"{value:g}" if isinstance(value, float) else str(value)
                edges.setdefault(best.arm, []).append(f"{name} {text}, the {end}")
    return edges


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def printed_scores(result: Result) -> dict[str, float]:
    """Return a result's score, 0 to 1, for every published column that it has, as "benchmark:column"."""
    by_column: dict[str, float] = {}
    for entry in result.benchmarks:
        columns = {
            column for table in published_tables() if table.benchmark == entry.name for column in _columns(table)
        }
        scores = [(score.name, score) for score in entry.averages]
        scores += [(part.name, score) for part in entry.parts for score in part.scores]
        own: dict[str, float] = {}
        for name, score in scores:
            # The first metric of a part is named by the part only.
            own.setdefault(name, score.value)
            own.setdefault(f"{name}:{score.metric}", score.value)
        by_column |= {f"{entry.name}:{column}": own[column] for column in columns & own.keys()}
    return by_column


def printed_section(study: Study) -> Iterator[Part]:
    """Yield a section with the published tables whose rows the plan names, if any."""
    record = study.record
    tables = list(_tables(record))
    if not tables:
        return
    how = f". {_LEGEND}" if record.rehearsal else ", with the difference to the published row in points."
    parts: list[Part | str] = [_HERE + how]
    for table in tables:
        parts += [f"**{table.title}**. {table.source}: {table.setting.rstrip('.')}.", _table(table, study)]
    yield Section("The published tables, rehearsed" if record.rehearsal else "The published tables", parts)


def _tables(record: StudyRecord) -> Iterator[PublishedTable]:
    models = {name for names in record.plan.printed.values() for name in names}
    benchmarks = {benchmark.name for benchmark in record.benchmarks}
    for table in published_tables():
        if table.benchmark in benchmarks and any(row.model in models for row in table.row):
            yield table


def _columns(table: PublishedTable) -> list[str]:
    return list(dict.fromkeys(column for row in table.row for column in row.percents))


def _table(table: PublishedTable, study: Study) -> Table:
    columns = _columns(table)
    rows: list[TableRow] = []
    own = {label: _means(study, label) for label in study.plan.printed}
    for row in table.row:
        note = "*" if row.remark else ""
        cells = [percent(row.percents[column] / 100) if column in row.percents else "" for column in columns]
        rows.append(TableRow([TableCell(row.model + note, hint=row.remark), *cells]))
        for label, names in study.plan.printed.items():
            if row.model in names and own[label]:
                values = own[label]
                here = [_cell(values, column, table.benchmark, row.percents, study) for column in columns]
                rows.append(TableRow([TableCell(f"here: {label}"), *here], kind="more"))
    return Table([Column("model"), *columns], rows)


def _means(study: Study, label: str) -> dict[str, float]:
    """Mean over seeds of every printed column; for an arm with several models, of the best."""
    best = next((row.label for row in study.table.best if row.arm == label), None)
    if best is None:
        return {}
    model = next(model for model in study.record.models if model.label == best)
    runs = [run.printed for run in model.runs if not run.replicate]
    return {name: fmean(run[name] for run in runs) for name in runs[0]}


def _cell(
    values: Mapping[str, float], column: str, benchmark: str, published: Mapping[str, float], study: Study
) -> TableCell:
    value = values.get(f"{benchmark}:{column}")
    if value is None:
        return TableCell(hint="not measured")
    kind = _kind(study.record.rehearsal, benchmark, column) if study.record.rehearsal else ""
    note = points(value - published[column] / 100) if column in published and not kind else ""
    return TableCell(percent(value), spread=_MARKS.get(kind, ""), note=note)


def _kind(rehearsal: RehearsalRecord, benchmark: str, column: str) -> RehearsedKind:
    """How the parts behind a column were rehearsed; the worst kind if they differ."""
    kinds = {part.part: part.kind for part in rehearsal.parts if part.benchmark == benchmark}
    about = BENCHMARKS.member(benchmark, "BENCHMARK")
    member_kinds = [kinds[part] for part in members_of(about, column.partition(":")[0], list(kinds))]
    return max(member_kinds or kinds.values(), key=list(_MARKS).index)
