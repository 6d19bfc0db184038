"""Results of a sequence of tasks: scores of every task after every task, their summaries, and their page.

Also available on the terminal, as JSON and as a plot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from degla.evaluation.item_difference import question_variance
from degla.pages import plot as svg
from degla.pages.page import Code, Figure, Page, Paragraph, Part, Section
from degla.pages.table import Table, TableCell, TableRow
from degla.pages.words import UNKNOWN, duration
from degla.statistics.proportions import FEW
from degla.statistics.seeds import QuestionVariance, Spread, seed_spread
from degla.study.gather import Items
from degla.study.page import score_cell
from degla.study.sequence_plan import SequencePlan

if TYPE_CHECKING:
    from rich.console import Group

_HOW_TO_READ = (
    "In percent; ± is half of a 95 % interval of the mean over seeds and questions (one seed: over questions only). It "
    "does not cover the base model or the training images. Zero-shot: the base, over all tasks but the first. "
    "Transfer: the same tasks, each after every task learnt before it. Average: all tasks after each task. "
    "Last: all tasks after the last. Forgetting: a task's best score since it was learnt minus its final score, "
    "in points, over all tasks but the last. Training: time in steps, while others ran in parallel. Bold: the task "
    "just learnt."
)
_CAPTION = (
    "Bands: 95 % intervals over seeds and questions. Dashed: where the panel's own task was learnt; the additional "
    "scores belong to no task."
)
_PANELS_A_ROW = 3
_FILE_INCHES = 7.9

Matrix = tuple[tuple[float, ...], ...]
"""`matrix[i][j]`: score of task j, 0 to 1, after learning the first i tasks; row 0 is the base."""


def transfer(matrix: Matrix) -> float:
    """Zero-shot ability that remains while other tasks are learnt.

    The mean, over all tasks but the first, of a task's scores after each task learnt before it (MTIL,
    arXiv 2303.06628). Compare it with `zero_shot`.
    """
    tasks = len(matrix) - 1
    return fmean(fmean(matrix[row][task] for row in range(1, task + 1)) for task in range(1, tasks))


def zero_shot(matrix: Matrix) -> float:
    """Mean score of the base over the tasks that `transfer` covers."""
    return fmean(matrix[0][1:])


def average(matrix: Matrix) -> float:
    """Mean of all tasks after each task (MTIL's Average)."""
    return fmean(fmean(row) for row in matrix[1:])


def last(matrix: Matrix) -> float:
    """Mean of all tasks after the last (MTIL's Last)."""
    return fmean(matrix[-1])


def forgetting(matrix: Matrix) -> float:
    """Loss on the tasks learnt before the last: a task's best score since it was learnt minus its final score.

    The mean over all tasks but the last (arXiv 1801.10112).
    """
    tasks = len(matrix) - 1
    best = [max(matrix[row][task] for row in range(task + 1, tasks)) for task in range(tasks - 1)]
    return fmean(before - after for before, after in zip(best, matrix[-1], strict=False))


SUMMARIES = {"zero-shot": zero_shot, "Transfer": transfer, "Average": average, "Last": last, "forgetting": forgetting}
"""Summaries of a matrix, in the order of the tables; higher is better, except for forgetting."""


def cells_read(summary: str, tasks: int) -> dict[int, range]:
    """Return the rows of a matrix that a summary reads, by task."""
    return {
        "zero-shot": {task: range(1) for task in range(1, tasks)},
        "Transfer": {task: range(1, task + 1) for task in range(1, tasks)},
        "Average": {task: range(1, tasks + 1) for task in range(tasks)},
        "Last": {task: range(tasks, tasks + 1) for task in range(tasks)},
        "forgetting": {task: range(task + 1, tasks + 1) for task in range(tasks - 1)},
    }[summary]


@dataclass(frozen=True)
class Retention:
    """One arm: the matrices of its seeds, and the additional scores.

    Attributes:
        arm: label of the arm.
        seeds: seeds of the matrices.
        matrices: one per seed.
        also: values of additional scores by name: one row per seed, one value before the first task and after each.
        questions: variance over questions of a cell (`cell_name`) or summary; empty if unknown.
        seconds: time in training steps, the mean over seeds of the sum over tasks; None if unknown.
    """

    arm: str
    seeds: tuple[int, ...]
    matrices: tuple[Matrix, ...]
    also: dict[str, tuple[tuple[float, ...], ...]]
    seconds: float | None = None
    questions: Mapping[str, QuestionVariance] = field(default_factory=dict)

    def cell(self, row: int, task: int) -> Spread:
        """Return the score of a task after the first `row` tasks."""
        return seed_spread([matrix[row][task] for matrix in self.matrices], self.questions.get(cell_name(row, task)))

    def beside(self, name: str, row: int) -> Spread:
        """Return an additional score after the first `row` tasks."""
        return seed_spread([values[row] for values in self.also[name]], self.questions.get(cell_name(row, name)))

    @property
    def summaries(self) -> dict[str, Spread]:
        """`SUMMARIES` of the matrices."""
        return {
            name: seed_spread([sums(matrix) for matrix in self.matrices], self.questions.get(name))
            for name, sums in SUMMARIES.items()
        }


@dataclass(frozen=True)
class Sequences:
    """The results of a plan of tasks."""

    plan: SequencePlan
    arms: tuple[Retention, ...]
    failures: tuple[tuple[str, str], ...]
    """Title of each failed arm and seed, and why it failed."""
    caveats: tuple[str, ...] = ()
    """Sentences that name benchmark images which were trained on."""


def cell_name(row: int, of: int | str) -> str:
    """Name a cell in `Retention.questions`: after how many tasks, and of which task or additional score."""
    return f"{row}:{of}"


def retention_questions(
    stages: Sequence[Items], tasks: Sequence[str], also: Sequence[str]
) -> dict[str, QuestionVariance]:
    """Compute the variance over questions of every cell and summary.

    Args:
        stages: scores by name before the first task and after each, from verdicts averaged over seeds.
        tasks: name of each task's score.
        also: names of the additional scores.
    """
    variances: dict[str, QuestionVariance | None] = {}
    columns: list[tuple[int | str, str]] = [*enumerate(tasks), *zip(also, also, strict=True)]
    for row, scores in enumerate(stages):
        variances |= {cell_name(row, of): question_variance(scores[name]) for of, name in columns}
    draws = np.array([[scores[name].draws for name in tasks] for scores in stages])
    for summary, sums in SUMMARIES.items():
        rows_of = cells_read(summary, len(tasks))
        cells = [[variances[cell_name(row, task)] for row in rows] for task, rows in rows_of.items()]
        # If the bootstrap of a cell is not reliable, neither is that of the summary: make it at least as wide as a mean
        # over the tasks that it reads, each as uncertain as the worst of the stages that it reads.
        worst = [max((each.error for each in task if each is not None), default=0.0) for task in cells]
        few = any(each is not None and each.uneven < FEW for task in cells for each in task)
        least = math.hypot(*worst) / len(worst) if few else 0.0
        images = len(np.unique(np.concatenate([stages[0][tasks[task]].clusters for task in rows_of])))
        values = [sums(tuple(map(tuple, draws[:, :, draw].tolist()))) for draw in range(draws.shape[2])]
        # A draw without any image of a task has no value (NaN) and is skipped, as for a cell.
        variances[summary] = QuestionVariance(max(least, float(np.nanstd(values, ddof=1))), images, images, None)
    return {name: value for name, value in variances.items() if value is not None}


def render_terminal(sequences: Sequences) -> Group:
    """Render the summary of all arms, then the matrix of each."""
    from rich.console import Group

    plan, arms = sequences.plan, sequences.arms
    # Summaries are rows here, because they would not fit side by side.
    heads, *rows = zip(_glance_heads(plan), *(_glance(plan, arm) for arm in arms), strict=True)
    tables = [Table([str(head) for head in heads], rows).terminal(title=plan.title)]
    tables += [_matrix(plan, arm).terminal(title=f"{arm.arm}: score of each task") for arm in arms]
    return Group(*tables)


def page_of(sequences: Sequences, *, command: str) -> Page:
    """Build the page."""
    plan, arms = sequences.plan, sequences.arms
    lead: list[Part | str] = [Paragraph(plan.about, quiet=False)] if plan.about else []
    lead += [Code(command, "sh")] if command else []
    warnings = [*sequences.caveats, *(f"{title} failed: {error}" for title, error in sequences.failures)]
    if any(len(arm.seeds) == 1 for arm in arms):
        warnings.append("One seed: intervals are over questions only, and another seed may give other results.")
    figure = Figure(partial(draw_sequence, sequences), _CAPTION, file="continual.svg")
    glance = Table(_glance_heads(plan), [_glance(plan, arm) for arm in arms], stacked=True)
    return Page(
        plan.title, [glance, _HOW_TO_READ, figure, *(Section(arm.arm, [_matrix(plan, arm)]) for arm in arms)],
        lead=lead, warnings=warnings, tab=f"degla continual: {plan.title}",
    )  # fmt: skip


def as_data(sequences: Sequences, *, command: str) -> dict[str, Any]:
    """Return everything as JSON values; scores are 0 to 1."""
    return {
        "title": sequences.plan.title,
        "command": command,
        "tasks": [{"name": task.name, "score": task.measure} for task in sequences.plan.tasks],
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
            for arm in sequences.arms
        ],
        "failures": [{"sequence": title, "error": error} for title, error in sequences.failures],
        "caveats": list(sequences.caveats),
    }


@svg.styled
def draw_sequence(sequences: Sequences, width: float = _FILE_INCHES) -> str:
    """Draw an SVG element, `width` inches wide: a panel per task, and a line per arm from the base to the last task."""
    plan, arms = sequences.plan, sequences.arms
    names = _columns(plan)
    across = min(len(names), _PANELS_A_ROW if width > svg.PHONE else 2)
    down = -(-len(names) // across)
    # As many names side by side as surely fit: about 0.09 inches per letter, plus a line and space for each.
    columns = max(1, min(len(arms), int(width / (0.09 * max(len(arm.arm) for arm in arms) + 0.6))))
    labels = [fill(arm.arm, int((width - 0.6) / 0.09)) for arm in arms]
    titles = [fill(name, int((width / across - 0.3) / 0.09)) for name in names]
    key = 0.3 + 0.22 * (-(-sum(label.count("\n") + 1 for label in labels) // columns) - 1)
    height = (2.6 + 0.2 * max(title.count("\n") for title in titles)) * down + 0.2 + key
    figure, first = svg.new_figure(width, height)
    first.remove()
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    marks = svg.marks_of((arm.arm for arm in arms), baseline=None)
    for number, (name, axes) in enumerate(zip(names, panels, strict=False)):
        for arm, label in zip(arms, labels, strict=True):
            colour = marks[arm.arm].colour
            steps = range(len(plan.tasks) + 1)
            values = [arm.cell(row, number) if number < len(plan.tasks) else arm.beside(name, row) for row in steps]
            means = [100 * value.mean for value in values]
            axes.plot(steps, means, color=colour, marker="o", markersize=4, linewidth=1.6, label=label)
            widths = [100 * (value.half_width or 0.0) for value in values]
            low = [max(0.0, mean - width) for mean, width in zip(means, widths, strict=True)]
            high = [min(100.0, mean + width) for mean, width in zip(means, widths, strict=True)]
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        if number < len(plan.tasks):
            axes.axvline(number + 1, color=svg.SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        axes.set_title(titles[number], fontsize=svg.FONT)
        axes.set_xticks(range(len(plan.tasks) + 1), ["base", *(str(row + 1) for row in range(len(plan.tasks)))])
        svg.dress(axes)
        if number % across == 0:
            axes.set_ylabel("score (%)")
        if number >= len(names) - across:
            axes.set_xlabel("tasks learnt")
    for axes in panels[len(names) :]:
        axes.remove()
    handles, _ = panels[0].get_legend_handles_labels()
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
    cells = [score_cell(value) for value in arm.summaries.values()]
    cells += [score_cell(arm.beside(name, len(plan.tasks))) for name in plan.also]
    return [arm.arm, str(len(arm.seeds)), *cells, UNKNOWN if arm.seconds is None else duration(arm.seconds)]


def _matrix(plan: SequencePlan, arm: Retention) -> Table:
    rows = []
    for number, name in enumerate(("(base)", *(task.name for task in plan.tasks))):
        cells = [score_cell(arm.cell(number, task)) for task in range(len(plan.tasks))]
        if number:
            cells[number - 1] = replace(cells[number - 1], bold=True)
        rows.append(TableRow([name, *cells, *(score_cell(arm.beside(each, number)) for each in plan.also)]))
    return Table(["after", *_columns(plan)], rows, stacked=True)
