"""Tasks in sequence as a page, on the terminal, as JSON and as a picture: what every arm knew after every task."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from degla.pages import plot as svg
from degla.pages.page import Code, Figure, Page, Paragraph, Part, Section
from degla.pages.table import Table, TableCell, TableRow
from degla.pages.words import UNKNOWN, duration
from degla.statistics.seeds import Spread
from degla.study.page import score
from degla.study.retention import SUMMARIES, Retention, Sequences
from degla.study.sequence_plan import SequencePlan

if TYPE_CHECKING:
    from rich.console import Group

_HOW_TO_READ = (
    "Percent; ± is half of a 95 % interval of the mean over seeds and questions (one seed: over questions alone). It "
    "leaves out the base model and the training pictures. Zero-shot: the base, over all tasks but the "
    "first. Transfer: the same tasks, each after every task that was learnt before it. Average: all tasks after each "
    "task. Last: all tasks after the last. Forgetting: the best that a task was since it was learnt, minus its end; "
    "in points, over all tasks but the last. Training: time in steps, while others ran beside it. Bold: the task has "
    "just been learnt."
)
_PICTURE = (
    "Bands: 95 % intervals over seeds and questions. Dashed: where the panel's own task was learnt; further scores "
    "belong to no task."
)
_PANELS_A_ROW = 3
_FILE_INCHES = 7.9


def render_terminal(found: Sequences) -> Group:
    """The summary of all arms, then the matrix of each."""
    from rich.console import Group

    plan, arms = found.plan, found.arms
    # The summaries are rows here: more of them would not fit side by side.
    heads, *rows = zip(_glance_heads(plan), *(_glance(plan, arm) for arm in arms), strict=True)
    tables = [Table([str(head) for head in heads], rows).terminal(title=plan.title)]
    tables += [_matrix(plan, arm).terminal(title=f"{arm.arm}: score of each task") for arm in arms]
    return Group(*tables)


def page_of(found: Sequences, *, command: str) -> Page:
    """The page."""
    plan, arms = found.plan, found.arms
    lead: list[Part | str] = [Paragraph(plan.about, quiet=False)] if plan.about else []
    lead += [Code(command, "sh")] if command else []
    warnings = [f"{title} failed: {error}" for title, error in found.failures]
    if any(len(arm.seeds) == 1 for arm in arms):
        warnings.append("One seed: intervals are over questions alone, and another seed may say otherwise.")
    picture = Figure(partial(draw_sequence, found), _PICTURE, file="continual.svg")
    glance = Table(_glance_heads(plan), [_glance(plan, arm) for arm in arms])
    return Page(
        plan.title, [glance, _HOW_TO_READ, picture, *(Section(arm.arm, [_matrix(plan, arm)]) for arm in arms)],
        lead=lead, warnings=warnings, tab=f"degla continual: {plan.title}",
    )  # fmt: skip


def as_data(found: Sequences, *, command: str) -> dict[str, Any]:
    """Everything as JSON values; scores are 0 to 1."""
    return {
        "title": found.plan.title,
        "command": command,
        "tasks": [{"name": task.name, "score": task.measure} for task in found.plan.tasks],
        "arms": [
            {
                "arm": arm.arm,
                "seeds": list(arm.seeds),
                "matrices": [[list(row) for row in matrix] for matrix in arm.matrices],
                "also": {name: [list(row) for row in rows] for name, rows in arm.also.items()},
                "questions": {
                    name: {"error": each.error, "images": each.images} for name, each in arm.questions.items()
                },
                "summaries": {name: _as_values(value) for name, value in arm.summaries.items()},
                "training_seconds": arm.seconds,
            }
            for arm in found.arms
        ],
        "failures": [{"sequence": title, "error": error} for title, error in found.failures],
    }


@svg.styled
def draw_sequence(found: Sequences, width: float = _FILE_INCHES) -> str:
    """An SVG element for a page, `width` inches wide: a panel a task, a line an arm, from the base to the last task."""
    plan, arms = found.plan, found.arms
    names = _columns(plan)
    across = min(len(names), _PANELS_A_ROW if width > svg.PHONE else 2)
    down = -(-len(names) // across)
    # As many names side by side as surely fit: some 0.09 inches a letter, and a line and room for each.
    columns = max(1, min(len(arms), int(width / (0.09 * max(len(arm.arm) for arm in arms) + 0.6))))
    key = 0.3 + 0.22 * (-(-len(arms) // columns) - 1)
    height = 2.6 * down + 0.2 + key
    figure, first = svg.new_figure(width, height)
    first.remove()
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    marks = svg.marks_of((arm.arm for arm in arms), baseline=None)
    for number, (name, axes) in enumerate(zip(names, panels, strict=False)):
        for arm in arms:
            colour = marks[arm.arm].colour
            steps = range(len(plan.tasks) + 1)
            values = [arm.cell(row, number) if number < len(plan.tasks) else arm.beside(name, row) for row in steps]
            means = [100 * value.mean for value in values]
            axes.plot(steps, means, color=colour, marker="o", markersize=4, linewidth=1.6, label=arm.arm)
            widths = [100 * (value.half_width or 0.0) for value in values]
            low = [max(0.0, mean - width) for mean, width in zip(means, widths, strict=True)]
            high = [min(100.0, mean + width) for mean, width in zip(means, widths, strict=True)]
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        if number < len(plan.tasks):
            axes.axvline(number + 1, color=svg.SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        axes.set_title(name, fontsize=svg.FONT)
        axes.set_xticks(range(len(plan.tasks) + 1), ["base", *(str(row + 1) for row in range(len(plan.tasks)))])
        svg.dress(axes)
        if number % across == 0:
            axes.set_ylabel("score (%)")
        if number >= len(names) - across:
            axes.set_xlabel("tasks learnt")
    for axes in panels[len(names) :]:
        axes.remove()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0, 1, 1 - key / height))
    figure.legend(handles, labels, loc="upper left", ncols=columns, frameon=False, fontsize=svg.FONT)
    return svg.to_svg(figure, "continual")


def _as_values(value: Spread) -> dict[str, float | int | None]:
    return {"mean": value.mean, "deviation": value.deviation, "half_width": value.half_width, "n": value.n}


def _columns(plan: SequencePlan) -> tuple[str, ...]:
    return (*(task.name for task in plan.tasks), *plan.also)


def _glance_heads(plan: SequencePlan) -> list[str]:
    return ["arm", "seeds", *SUMMARIES, *(f"{name} at the end" for name in plan.also), "training"]


def _glance(plan: SequencePlan, arm: Retention) -> list[TableCell | str]:
    cells = [score(value) for value in arm.summaries.values()]
    cells += [score(arm.beside(name, len(plan.tasks))) for name in plan.also]
    return [arm.arm, str(len(arm.seeds)), *cells, UNKNOWN if arm.seconds is None else duration(arm.seconds)]


def _matrix(plan: SequencePlan, arm: Retention) -> Table:
    rows = []
    for number, name in enumerate(("(base)", *(task.name for task in plan.tasks))):
        cells = [score(arm.cell(number, task)) for task in range(len(plan.tasks))]
        if number:
            cells[number - 1] = replace(cells[number - 1], bold=True)
        rows.append(TableRow([name, *cells, *(score(arm.beside(each, number)) for each in plan.also)]))
    return Table(["after", *_columns(plan)], rows)
