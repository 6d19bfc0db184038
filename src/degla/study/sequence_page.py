"""Tasks in sequence on the terminal, as Markdown and as JSON: what every arm knew after every task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from degla.study.markdown import table_lines
from degla.study.retention import SUMMARIES, Retention
from degla.study.sequence_plan import SequencePlan
from degla.study.wording import as_values, seconds, spread

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

_HOW_TO_READ = (
    "Percent; ± is half of a 95 % interval of the mean over seeds and questions (one seed: over questions alone). It "
    "leaves out the base model and the training pictures. Zero-shot: the base, over all tasks but the "
    "first. Transfer: the same tasks, each after every task that was learnt before it. Average: all tasks after each "
    "task. Last: all tasks after the last. Forgetting: the best that a task was since it was learnt, minus its end; "
    "in points, over all tasks but the last. Training: time in steps, while others ran beside it. Bold: the task has "
    "just been learnt."
)


def render_terminal(plan: SequencePlan, arms: Sequence[Retention]) -> Group:
    """The summary of all arms, then the matrix of each."""
    from rich.console import Group

    heads, *rows = zip(_glance_heads(plan), *(_glance(plan, arm) for arm in arms), strict=True)
    tables = [_rich(plan.title, heads, rows)]
    for arm in arms:
        tables.append(_rich(f"{arm.arm}: score of each task", ("after", *_columns(plan)), _matrix(plan, arm)))
    return Group(*tables)


def _rich(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> RichTable:
    """A table for 80 columns: long names are broken, numbers never."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", overflow="fold")
    for cells in rows:
        table.add_row(*(cell.replace(" ± ", "±") for cell in cells))
    return table


def render_markdown(
    plan: SequencePlan, arms: Sequence[Retention], failures: Sequence[tuple[str, str]], *, command: str
) -> str:
    """The same as Markdown."""
    lines = [f"# {plan.title}", ""]
    lines += [plan.about, ""] if plan.about else []
    lines += ["```sh", command, "```", ""] if command else []
    notes = [f"{title} failed: {error}" for title, error in failures]
    if any(len(arm.seeds) == 1 for arm in arms):
        notes.append("One seed: intervals are over questions alone, and another seed may say otherwise.")
    lines += [line for note in notes for line in (f"> **Note.** {note}", "")]
    lines += table_lines(_glance_heads(plan), [_glance(plan, arm) for arm in arms])
    lines += ["", _HOW_TO_READ, "", "![Scores after each task](continual.svg)", ""]
    for arm in arms:
        lines += [f"## {arm.arm}", "", *table_lines(("after", *_columns(plan)), _matrix(plan, arm, bold="**")), ""]
    return "\n".join(lines)


def as_data(
    plan: SequencePlan, arms: Sequence[Retention], failures: Sequence[tuple[str, str]], *, command: str
) -> dict[str, Any]:
    """Everything as JSON values; scores are 0 to 1."""
    return {
        "title": plan.title,
        "command": command,
        "tasks": [{"name": task.name, "score": task.measure} for task in plan.tasks],
        "arms": [
            {
                "arm": arm.arm,
                "seeds": list(arm.seeds),
                "matrices": [[list(row) for row in matrix] for matrix in arm.matrices],
                "also": {name: [list(row) for row in rows] for name, rows in arm.also.items()},
                "questions": {
                    name: {"error": each.error, "images": each.images} for name, each in arm.questions.items()
                },
                "summaries": {name: as_values(value) for name, value in arm.summaries.items()},
                "training_seconds": arm.seconds,
            }
            for arm in arms
        ],
        "failures": [{"sequence": title, "error": error} for title, error in failures],
    }


def _columns(plan: SequencePlan) -> tuple[str, ...]:
    return (*(task.name for task in plan.tasks), *plan.also)


def _glance_heads(plan: SequencePlan) -> tuple[str, ...]:
    return ("arm", "seeds", *SUMMARIES, *(f"{name} at the end" for name in plan.also), "training")


def _glance(plan: SequencePlan, arm: Retention) -> list[str]:
    end = len(plan.tasks)
    cells = [arm.arm, str(len(arm.seeds)), *(spread(value) for value in arm.summaries.values())]
    cells += [spread(arm.beside(name, end)) for name in plan.also]
    return [*cells, "–" if arm.seconds is None else seconds(arm.seconds)]


def _matrix(plan: SequencePlan, arm: Retention, *, bold: str = "") -> list[list[str]]:
    rows = []
    for number, name in enumerate(("(base)", *(task.name for task in plan.tasks))):
        cells = [spread(arm.cell(number, task)) for task in range(len(plan.tasks))]
        if number:
            cells[number - 1] = f"{bold}{cells[number - 1]}{bold}"
        rows.append([name, *cells, *(spread(arm.beside(each, number)) for each in plan.also)])
    return rows
