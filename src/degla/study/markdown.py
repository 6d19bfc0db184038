"""A study as Markdown: the same tables as the page, for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from degla.evaluation.markdown import table_line
from degla.study.chosen import is_choice
from degla.study.plan import Plan
from degla.study.significance import PairedTest
from degla.study.standings import Standing, Table
from degla.study.wording import interval, p_value, points, seconds, signed, spread


def render_markdown(
    plan: Plan, table: Table, tests: Sequence[PairedTest], warnings: Sequence[str], command: str
) -> str:
    """The study's tables and warnings as Markdown."""
    lines = [f"# {plan.title}", ""]
    lines += [plan.about, ""] if plan.about else []
    lines += ["```sh", command, "```", ""] if command else []
    for warning in warnings:
        lines += [f"> **Note.** {warning[:1].upper()}{warning[1:]}", ""]
    chosen = is_choice(plan, table)
    lines += [
        "## At a glance",
        "",
        *_glance(table.best, plan, table),
        "",
        f"{'Each arm at the setting with its best joint score. ' if chosen else ''}Percent; gained, lost and joint in "
        f"points against the base `{plan.base}`. ± is half of a 95 % t-interval of the mean over seeds. Joint: "
        f"{plan.gain} gained minus {plan.price:g} times {plan.kept} lost. P: no model of the study gains more without "
        "losing more.",
        "",
        "![Frontier](frontier.svg)",
        "",
        "## By family",
        "",
        *table_lines(
            ["model", *table.families],
            ([row.label, *(spread(row.scores[f"family:{name}"]) for name in table.families)] for row in table.best),
        ),
        "",
        "## Cost",
        "",
        *table_lines(["model", "training", "pairs/s", "teacher", "negatives"], (_cost(row) for row in table.best)),
        "",
        "Time in training steps of one process, without loading and evaluation, while others ran beside it.",
        "",
    ]
    if tests:
        lines += ["## Paired tests", "", *_tests(tests), ""]
        lines += [
            "First minus second, in points. Seeds: paired t-test over seeds. Questions: paired bootstrap over images "
            "of verdicts averaged over seeds, normal test by its standard error. p after Holm's correction over all "
            "tests of its kind. Yes: both below 0.05.",
            "",
        ]
    if chosen:
        lines += [
            "## All models",
            "",
            *_glance(table.standings, plan, table, bold=True),
            "",
            "Bold: the best of its arm.",
            "",
        ]
    return "\n".join(lines)


def _glance(rows: Iterable[Standing], plan: Plan, table: Table, *, bold: bool = False) -> Iterator[str]:
    heads = ["model", "seeds", *table.headline, f"{plan.gain} gained", f"{plan.kept} lost", "joint", ""]
    yield from table_lines(heads, (_line(row, table, bold=bold and row.best) for row in rows))


def _line(row: Standing, table: Table, *, bold: bool) -> list[str]:
    name = f"**{row.label}**" if bold else row.label
    scores = [spread(row.scores[column]) for column in table.headline]
    seeds = "–" if row.seeds == (None,) else str(len(row.seeds))
    return [name, seeds, *scores, points(row.gained), points(row.lost), points(row.joint), "P" if row.pareto else ""]


def _cost(row: Standing) -> list[str]:
    cost = row.cost
    if cost is None:
        return [row.label, "–", "–", "–", "–"]
    return [
        row.label, seconds(cost.seconds), f"{cost.pairs_per_second:.0f}", "yes" if cost.teacher else "no",
        str(cost.negatives),
    ]  # fmt: skip


def _tests(tests: Iterable[PairedTest]) -> Iterator[str]:
    rows = []
    for test in tests:
        rows.append(
            [
                test.first, test.second, test.score, f"{signed(test.over_seeds.value)} {interval(test.over_seeds)}",
                p_value(test.corrected_seeds), interval(test.over_questions), p_value(test.corrected_questions),
                "yes" if test.significant else "no",
            ]
        )  # fmt: skip
    heads = ["first", "second", "score", "difference, 95 % over seeds", "p seeds", "95 % over questions", "p questions",
             "differ"]  # fmt: skip
    yield from table_lines(heads, rows)


def table_lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield table_line(heads)
    yield table_line(["---"] * len(heads))
    for row in rows:
        yield table_line(row)
