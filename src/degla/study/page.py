"""Write a study's findings: a self-contained HTML page, Markdown, JSON and the frontier plot.

The plot shows what was gained against what was lost, one line per arm. If an arm has few models, the line joins its
settings or averages; if it has many, the line is the arm's own frontier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from degla.evaluation.models import SCORES_ARE
from degla.files import write_text
from degla.pages import plot as svg
from degla.pages.page import Code, Facts, Figure, Fold, Page, PageOnly, Paragraph, Part, Section
from degla.pages.table import Column, Table, TableCell, TableRow, Tone
from degla.pages.words import UNKNOWN, capitalized, counted, duration, interval, p_value, percent, points, rate
from degla.remote import in_addresses
from degla.statistics.seeds import Source, Spread
from degla.study.plan import Plan
from degla.study.record import dump_study, load_study
from degla.study.standings import BASE, PairedTest, StudyRow, StudyTable
from degla.study.study import Study, printed_section

_HOW_TO_READ = (
    "Joint: {gain} gained minus {price:g} times {kept} lost, in points relative to the base `{base}`; scores in "
    "percent. {bold} Frontier: no model of the study gains more without losing more."
)
_BOLD = "Bold: the best joint score, whether or not its lead is significant."
_NONE_BOLD = "No model's joint score is above the base's."
_FRONTIER = (
    "Every model of the study, mean over seeds. Large marks: the best model of each arm, with its 95 % intervals, "
    "clipped at the frame. {lines} Rings: models on the frontier. Dotted line: the same joint score as the best model. "
    "Up and to the left is better."
)
_LINES = "Lines join the weight averages of one run with the base, or the settings of one arm."
_LINES_OF_MANY = (
    "Each line is an arm's own frontier: its models that gain more than all others of the arm that lose no more. Small "
    "dots are the arm's other models. Models outside the frame are in the table of all models."
)
_FAMILIES = (
    "Mean over the parts of each family, using each part's first score. A family that is a column of the first table "
    "is shown only there."
)
_COST = (
    "Time in training steps, without loading and evaluation, in one process while others ran in parallel: compare "
    "arms, not machines. A weight average costs as much as its run."
)
_TESTS = (
    "First minus second, in points, with an interval over seeds and questions (one seed: over questions only). p "
    "seeds: paired t-test over seeds. p questions: normal test of verdicts averaged over seeds, with images "
    "resampled. Both with Holm's correction over all tests of their kind. Yes: both below 0.05 and an interval without "
    "0, with enough images, none of them trained on or missing."
)
_VARIANCES = (
    "Standard deviations in points, each with its 95 % interval and the number of levels n. Training seed: of single "
    "runs. Other sources: of means over the shared training seeds when only that source is redrawn, including the "
    "plan's own draw. Overall: the value at a mean seed and a mean draw of each source, assuming additive effects; its "
    "95 % interval covers these sources and the questions."
)
_LEAST_RANGE = 2.0
"""Smallest range of an axis in points, so that noise is not magnified."""

_UNCROWDED = 7
"""Arms that fit the small plot; it grows with more."""

_MANY = 6
"""Most models per arm whose lines stay distinguishable; with more, only the arm's own frontier is drawn as a line."""

_FRAME = 3.0
"""With many models, the frame ends at this multiple of the largest loss among the arms' best models."""


PAGES = ("study.html", "study.md", "study.tex", "frontier.svg")
"""What `write_all` writes beside ``study.json``."""


def write_all(study: Study, out: Path) -> None:
    """Write ``study.json`` and, from it, ``study.html``, ``.md``, ``.tex`` and ``frontier.svg``, without passwords.

    Raises:
        InputError: the folder cannot be written.
    """
    write_text(out / "study.json", in_addresses(dump_study(study.record)))
    study = Study(load_study(out / "study.json"))
    page_of(study).write(out / "study.html")
    write_text(out / "study.tex", latex_of(study))
    write_text(out / "frontier.svg", svg.standalone_picture(frontier_svg(study)) + "\n")


def latex_of(study: Study) -> str:
    """Return the first table and the paired tests for LaTeX."""
    name = partial(_name, marks=arm_marks(study.table), seeds=len(study.plan.seeds))
    tables = {"At a glance": _glance(study, study.table.best, name=name, best=_winner(study.table))}
    if study.tests:
        tables["Paired tests"] = _paired_tests(study)
    texts = (f"% {title}\n{table.latex()}\n" for title, table in tables.items())
    scores = " Standardised scores." if study.plan.scorer == "standardised" else ""
    return "\n".join(
        [f"% Needs the package booktabs. Percent and points; ± half of the 95 % interval.{scores}\n", *texts]
    )


def frontier_svg(study: Study, width: float | None = None) -> str:
    """Return the frontier as SVG, `width` inches wide; None: the width of the separate file."""
    plan = study.plan
    return frontier(study.table, gain=plan.gain, kept=plan.kept, price=plan.price, width=width)


def page_of(study: Study) -> Page:
    """Build the page from the study's record only."""
    plan, record, table = study.plan, study.record, study.table
    models = counted(len(table.rows) - 1, "model")
    if plan.world:
        questions = f"{counted(plan.world.scenes, 'scene')} of the embedded world, {plan.world.split} questions"
    else:
        questions = ", ".join(benchmark.title for benchmark in record.benchmarks)
    if plan.scorer != "cosine":
        questions += f"; {SCORES_ARE[plan.scorer]}"
    lead: list[Part | str] = [Paragraph(plan.about, quiet=False)] if plan.about else []
    lead.append(
        f"{counted(len(plan.arms), 'arm')}, {models}, seeds {', '.join(map(str, plan.seeds))}; base `{plan.base}`; "
        f"{questions}. {study.covered}"
    )
    lead += [Code(record.command, "sh")] if record.command else []
    return Page(
        plan.title, [*_parts(study), _provenance(study)], lead=lead, warnings=list(map(capitalized, study.warnings)),
        tab=f"degla study: {plan.title}",
        foot="running the plan again on the same kind of machine reproduces the scores, but not the times",
    )  # fmt: skip


def _parts(study: Study) -> Iterator[Part]:
    plan, table = study.plan, study.table
    name = partial(_name, marks=arm_marks(table), seeds=len(plan.seeds))
    note = "Each arm at the setting with its best joint score. " if study.choice else ""
    winner = _winner(table)
    bold = _BOLD if winner else _NONE_BOLD
    how = note + _HOW_TO_READ.format(gain=plan.gain, price=plan.price, kept=plan.kept, base=plan.base, bold=bold)
    glance = _glance(study, table.best, name=name, best=winner)
    yield Section("At a glance", [glance, how, *study.record.text_solvable])
    yield from printed_section(study)
    caption = _FRONTIER.format(lines=_LINES_OF_MANY if has_many(table) else _LINES)
    figure = Figure(partial(frontier_svg, study), caption, file="frontier.svg")
    yield Section("What was gained, what was lost", [figure])
    if table.families:
        heads = [Column("model"), *(_counted_column(family, study) for family in table.families)]
        families = [
            [name(row), *(score_cell(row.scores[f"family:{each}"]) for each in table.families)] for row in table.best
        ]
        yield Section("By family", [Table(heads, families, stacked=True), _FAMILIES])
    costs = [TableRow([name(row), *_cost(row)]) for row in table.best if row.cost is not None]
    heads = [Column(head) for head in ("model", "training", "pairs/s", "teacher", "negatives per caption")]
    yield Section("Cost", [Table(heads, costs, stacked=True), _COST])
    if study.variances:
        sources = []
        for label, what, overall in study.variances:
            by_name = {source.name: _deviation(source) for source in overall.sources}
            whole = f"{points(overall.value)} ± {percent(overall.half_width)}"
            sources.append([label, what, *(by_name.get(name, UNKNOWN) for name in study.sources), whole])
        heads = [Column("model"), Column("score", align="left"), *map(Column, study.sources), Column("overall")]
        yield Section("Where the variance comes from", [Table(heads, sources, stacked=True), _VARIANCES])
    if study.tests:
        yield Section("Paired tests", [_paired_tests(study), _TESTS, *_doubts(study.tests)])
    if study.choice:
        best = [row for row in table.rows if row.best]
        every = _glance(study, table.rows, name=lambda row: replace(name(row), bold=row.best), best=best)
        title = counted(len(table.rows) - 1, "model")
        yield Section("All models", [Fold(title, [every, "Bold: the best model of each arm."])])


def score_cell(value: Spread) -> TableCell:
    """Return a table cell with a score in percent and the half-width of its interval."""
    return TableCell(percent(value.mean), spread=_half(value))


def _change_cell(value: Spread) -> TableCell:
    return TableCell(points(value.mean), spread=_half(value))


def _half(value: Spread) -> str:
    return "" if value.half_width is None else f" ± {percent(value.half_width)}"


def _name(row: StudyRow, *, marks: Mapping[str, svg.Mark], seeds: int) -> TableCell:
    tags = ["baseline"] if row.arm == BASE else []
    tags += [counted(len(row.seeds), "seed")] if row.arm != BASE and len(row.seeds) != seeds else []
    tags += ["frontier"] if row.pareto else []
    return TableCell(row.label, mark=marks[row.arm], tags=tuple(tags))


def _winner(table: StudyTable) -> list[StudyRow]:
    """The model with the best joint score, if that is above the base's."""
    return [row for row in (table.leader,) if row is not None and row.joint.mean > 0]


def _glance(
    study: Study, rows: Iterable[StudyRow], *, name: Callable[[StudyRow], TableCell], best: Sequence[StudyRow]
) -> Table:
    plan, table = study.plan, study.table
    columns = [
        Column("model"), Column("seeds", where="text"), Column("joint"), Column(f"{plan.gain} gained"),
        Column(f"{plan.kept} lost"), *(_counted_column(column, study) for column in table.headline),
        Column("frontier", where="text"),
    ]  # fmt: skip
    lines = []
    for row in rows:
        changes = [_change_cell(value) for value in (row.joint, row.gained, row.lost)]
        changes[0] = replace(changes[0], bold=row in best)
        seeds = UNKNOWN if row.arm == BASE else str(len(row.seeds))
        changes = [TableCell()] * 3 if row.arm == BASE else changes
        scores = [score_cell(row.scores[column]) for column in table.headline]
        lines.append([name(row), seeds, *changes, *scores, "yes" if row.pareto else ""])
    return Table(columns, lines, stacked=True)


def _counted_column(title: str, study: Study) -> Column:
    return Column(title, notes=(f"n {study.table.counts[title]:,}",))


def _cost(row: StudyRow) -> list[str]:
    cost = row.cost
    assert cost is not None
    pairs, teacher = cost.pairs_per_second, "yes" if cost.teacher else "no"
    return [duration(cost.seconds), f"{pairs:.0f}" if pairs >= 1 else rate(pairs), teacher, str(cost.negatives)]


def _deviation(value: Source) -> str:
    return f"{percent(value.deviation)} {interval(value.low, value.high)} ({value.n})"


def _paired_tests(study: Study) -> Table:
    heads = [Column("first minus second"), Column("score", align="left")]
    heads += map(Column, ("difference", "95 %", "p seeds", "p questions", "differ"))
    return Table(heads, [_test(test) for test in study.tests], stacked=True)


def _test(test: PairedTest) -> list[TableCell | str]:
    difference = test.difference
    ends = difference.interval
    tone: Tone = "" if not test.significant else "up" if difference.value > 0 else "down"
    return [
        f"{test.first} \N{MINUS SIGN} {test.second}", test.score, TableCell(points(difference.value), tone=tone),
        UNKNOWN if ends is None else interval(ends.low, ends.high, points), p_value(test.corrected_seeds),
        p_value(test.corrected_questions), TableCell("yes" if test.significant else "no", hint=difference.doubt),
    ]  # fmt: skip


def _doubts(tests: Sequence[PairedTest]) -> Iterator[str]:
    """Yield each reason why a test cannot count as a difference once."""
    for doubt in dict.fromkeys(test.difference.doubt for test in tests if test.difference.doubt):
        count = sum(test.difference.doubt == doubt for test in tests)
        which = "all tests" if count == len(tests) else f"{count} of {counted(len(tests), 'test')}"
        yield f"No difference is reported for {which}: {doubt}."


def _provenance(study: Study) -> Part:
    record = study.record
    facts = [("plan", record.where), ("base", f"{study.plan.base}, weights `{record.base[:12]}`")]
    facts += [("questions", f"{result.title} `{result.items_sha256[:12]}`") for result in record.benchmarks]
    facts += [("versions", ", ".join(f"{package} {number}" for package, number in record.versions.items()))]
    facts += [("degla", record.degla)]
    text = yaml.safe_dump(_plan_text(study.plan), sort_keys=False, allow_unicode=True, width=100)
    return Section("Where the numbers come from", [Facts(facts), PageOnly(Fold("The plan", [Code(text)]))])


def _plan_text(plan: Plan) -> Mapping[str, Any]:
    values = plan.model_dump(mode="json", exclude_defaults=True)
    values["seeds"] = list(plan.seeds)
    values["arms"] = [
        {**{name: value for name, value in arm.items() if name != "fields"}, **arm.get("fields", {})}
        for arm in values["arms"]
    ]
    return values


def arm_marks(table: StudyTable) -> dict[str, svg.Mark]:
    """Return the mark of every arm, shared by the plot and the tables."""
    return svg.marks_of((row.arm for row in table.rows), baseline=BASE)


@svg.styled
def frontier(table: StudyTable, *, gain: str, kept: str, price: float, width: float | None = None) -> str:
    """Return the frontier as an SVG element: x is what was lost, y what was gained, in points; rings mark the frontier.

    Args:
        table: models to draw.
        gain: name of the score to improve.
        kept: name of the score to preserve.
        price: weight of the loss in the joint score.
        width: of the plot, in inches; None: wider with more arms, for a separate file.
    """
    marks = arm_marks(table)
    crowd = min(max(0, len(marks) - _UNCROWDED), 10)
    figure, axes = svg.new_figure(width or 6.2 + 0.15 * crowd, min(width or 9.0, 5.2) + 0.1 * crowd)
    base = table.rows[0]
    points: dict[str, tuple[float, float]] = {}
    bars = []
    lines = _lines(table)
    marked = {row.label for row in table.best} | {row.label for arm in lines.values() for line in arm for row in line}
    for arm, of_arm in lines.items():
        for line in of_arm:
            xs, ys = [_x(row) for row in line], [_y(row) for row in line]
            axes.plot(xs, ys, color=marks[arm].colour, linewidth=1.2, alpha=0.75, zorder=2)
            bars += list(zip(zip(xs, ys, strict=True), zip(xs[1:], ys[1:], strict=False), strict=False))
    for row in table.rows:
        x, y, colour = _x(row), _y(row), marks[row.arm].colour
        marker = marks[row.arm].marker
        if row.label not in marked:
            axes.plot(x, y, marker, color=colour, markersize=2.5, alpha=0.5, zorder=1)
            continue
        axes.plot(x, y, marker, color=colour, markersize=7 if row.best or row.arm == BASE else 4.5, zorder=5)
        if row.pareto:
            axes.plot(x, y, "o", markerfacecolor="none", markeredgecolor=svg.INK, markersize=11, zorder=4)
        if row.best and row.gained.half_width is not None and row.lost.half_width is not None:
            wide, high = 100 * row.lost.half_width, 100 * row.gained.half_width
            axes.plot((x - wide, x + wide), (y, y), color=colour, linewidth=1.4, alpha=0.55, zorder=3)
            axes.plot((x, x), (y - high, y + high), color=colour, linewidth=1.4, alpha=0.55, zorder=3)
            bars += [((x - wide, y), (x, y)), ((x + wide, y), (x, y)), ((x, y - high), (x, y)), ((x, y + high), (x, y))]
        if row.best or row.arm == BASE:
            points[row.arm] = (x, y)
    axes.axhline(_y(base), color=svg.SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.axvline(_x(base), color=svg.SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlabel(f"{kept} lost (points)  →  more forgotten")
    axes.set_ylabel(f"{gain} gained (points)")
    framed = list(table.rows)
    if has_many(table):
        framed = [row for row in framed if _x(row) <= _FRAME * max(_x(best) for best in table.best)]
    axes.set_xlim(*_limits([_x(row) for row in framed]))
    axes.set_ylim(*_limits([_y(row) for row in framed]))
    _draw_price(axes, table, price)
    svg.dress(axes)
    figure.tight_layout()
    svg.label_points(figure, axes, points, marks, bars)
    return svg.to_svg(figure, "study-frontier")


def has_many(table: StudyTable) -> bool:
    """Return whether an arm has more than `_MANY` models; each arm then gets its own frontier."""
    arms = [row.arm for row in table.rows]
    return max(map(arms.count, set(arms))) > _MANY


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis: all means with room for labels. Longer bars, as with few seeds, are clipped."""
    low, high = min(values), max(values)
    room = max(0.16 * (high - low), (_LEAST_RANGE - (high - low)) / 2)
    return low - room, high + room


def _draw_price(axes: Any, table: StudyTable, price: float) -> None:
    """Draw the line of equal joint score through the best model; models above it would be better."""
    if (best := table.leader) is None:
        return
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    ys = [_y(best) + price * (x - _x(best)) for x in (left, right)]
    axes.plot((left, right), ys, color=svg.SOFT, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def _lines(table: StudyTable) -> dict[str, list[list[StudyRow]]]:
    """Lines by arm: with many models per arm, its own frontier; with averages, one line per setting, from the base over
    its shares; otherwise one line over the settings."""
    base = table.rows[0]
    many = has_many(table)
    lines: dict[str, list[list[StudyRow]]] = {}
    for arm in dict.fromkeys(row.arm for row in table.rows if row.arm != BASE):
        rows = [row for row in table.rows if row.arm == arm]
        if many:
            lines[arm] = [_undominated([base, *rows])]
            continue
        settings = list(dict.fromkeys(row.setting for row in rows))
        by_share = sorted(rows, key=lambda row: row.share)
        by_setting = [[row for row in by_share if row.setting == setting] for setting in settings]
        if any(len(line) > 1 for line in by_setting):
            lines[arm] = [[base, *line] for line in by_setting]
        else:
            lines[arm] = [sorted(rows, key=_x)]
    return lines


def _undominated(rows: Sequence[StudyRow]) -> list[StudyRow]:
    """Rows that gain more than all rows that lose no more, by increasing loss."""
    front: list[StudyRow] = []
    for row in sorted(rows, key=lambda row: (row.lost.mean, -row.gained.mean)):
        if not front or row.gained.mean > front[-1].gained.mean:
            front.append(row)
    return front


def _x(row: StudyRow) -> float:
    return 100 * row.lost.mean


def _y(row: StudyRow) -> float:
    return 100 * row.gained.mean
