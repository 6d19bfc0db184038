"""A study as Markdown: the same tables as the page, for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from degla.evaluation.markdown import table_line
from degla.study.standings import StudyRow, StudyTable
from degla.study.study import Study, spread_over
from degla.study.wording import deviation, interval, overall, p_value, points, seconds, signed, spread


def render_markdown(study: Study) -> str:
    """The study's tables and warnings as Markdown, made from its record alone."""
    plan, table, chosen = study.plan, study.table, study.choice
    lines = [f"# {plan.title}", ""]
    lines += [plan.about, ""] if plan.about else []
    lines += ["```sh", study.record.command, "```", ""] if study.record.command else []
    for warning in study.warnings:
        lines += [f"> **Note.** {warning[:1].upper()}{warning[1:]}", ""]
    lines += [
        "## At a glance",
        "",
        *_glance(table.best, study),
        "",
        f"{'Each arm at the setting with its best joint score. ' if chosen else ''}Percent; gained, lost and joint in "
        f"points against the base `{plan.base}`. {study.covered} Joint: "
        f"{plan.gain} gained minus {plan.price:g} times {plan.kept} lost. P: no model of the study gains more without "
        "losing more.",
        "",
        "![Frontier](frontier.svg)",
        "",
        *_families(table),
        "## Cost",
        "",
        *table_lines(["model", "training", "pairs/s", "teacher", "negatives"], (_cost(row) for row in table.best)),
        "",
        "Time in training steps of one process, without loading and evaluation, while others ran beside it.",
        "",
    ]
    if study.variances:
        lines += ["## Where the variance comes from", "", *_variances(study), "", VARIANCES, ""]
    if study.tests:
        lines += ["## Paired tests", "", *_tests(study), "", TESTS, ""]
        lines += [line for doubt in doubts_of(study) for line in (doubt, "")]
    if chosen:
        lines += [
            "## All models",
            "",
            *_glance(table.standings, study, bold=True),
            "",
            "Bold: the best of its arm.",
            "",
        ]
    return "\n".join(lines)


TESTS = (
    "First minus second, in points, with an interval over seeds and questions (one seed: over questions alone). "
    "Seeds: paired t-test over seeds. Questions: normal test of the verdicts averaged over seeds, images drawn. p "
    "after Holm's correction over all tests of its kind. Yes: both below 0.05, with enough images, none of them "
    "trained on or missing."
)
VARIANCES = (
    "Standard deviations in points, each with its 95 % interval and the number of levels n: of single runs over "
    "training seeds; of means over the training seeds in common where only the named thing is drawn anew, the plan's "
    "own draw included. Over all: the value at a mean seed and a mean draw of each, effects taken to add up; its 95 % "
    "interval covers these sources and the questions."
)


def _glance(rows: Iterable[StudyRow], study: Study, *, bold: bool = False) -> Iterator[str]:
    plan, table = study.plan, study.table
    heads = ["model", "seeds", *table.headline, f"{plan.gain} gained", f"{plan.kept} lost", "joint", ""]
    yield from table_lines(heads, (_line(row, table, bold=bold and row.best) for row in rows))


def _line(row: StudyRow, table: StudyTable, *, bold: bool) -> list[str]:
    name = f"**{row.label}**" if bold else row.label
    scores = [spread(row.scores[column]) for column in table.headline]
    seeds = "–" if row.seeds == (None,) else str(len(row.seeds))
    return [name, seeds, *scores, points(row.gained), points(row.lost), points(row.joint), "P" if row.pareto else ""]


def _cost(row: StudyRow) -> list[str]:
    cost = row.cost
    if cost is None:
        return [row.label, "–", "–", "–", "–"]
    return [
        row.label, seconds(cost.seconds), f"{cost.pairs_per_second:.0f}", "yes" if cost.teacher else "no",
        str(cost.negatives),
    ]  # fmt: skip


def _variances(study: Study) -> Iterator[str]:
    names = study.sources
    rows = (
        [label, score, *(deviation(spread_over(found, name)) for name in names), overall(found)]
        for label, score, found in study.variances
    )
    yield from table_lines(["model", "score", *names, "over all"], rows)


def _tests(study: Study) -> Iterator[str]:
    rows = (
        [
            test.first, test.second, test.score, f"{signed(test.difference.value)} {interval(test.difference)}",
            p_value(test.corrected_seeds), p_value(test.corrected_questions), "yes" if test.significant else "no",
        ]
        for test in study.tests
    )  # fmt: skip
    heads = ["first", "second", "score", "difference, 95 %", "p seeds", "p questions", "differ"]
    yield from table_lines(heads, rows)


def _families(table: StudyTable) -> list[str]:
    if not table.families:
        return []
    rows = ([row.label, *(spread(row.scores[f"family:{name}"]) for name in table.families)] for row in table.best)
    return ["## By family", "", *table_lines(["model", *table.families], rows), ""]


def doubts_of(study: Study) -> Iterator[str]:
    """Why tests may not be called a difference, each reason once."""
    for doubt in dict.fromkeys(test.difference.doubt for test in study.tests if test.difference.doubt):
        tests = [test for test in study.tests if test.difference.doubt == doubt]
        told = "all tests" if len(tests) == len(study.tests) else f"{len(tests)} of {len(study.tests)} tests"
        yield f"No difference is called one in {told}: {doubt}."


def table_lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield table_line(heads)
    yield table_line(["---"] * len(heads))
    for row in rows:
        yield table_line(row)
