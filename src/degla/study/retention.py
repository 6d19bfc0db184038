"""What a sequence of tasks left: scores of every task after every task, and what sums them up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from degla.evaluation.item_difference import questions_of
from degla.statistics.proportions import FEW
from degla.statistics.seeds import QuestionVariance, Spread, seed_spread
from degla.study.gather import Items
from degla.study.sequence_plan import SequencePlan

Matrix = tuple[tuple[float, ...], ...]
"""`matrix[i][j]`: score of task j, 0 to 1, after the first i tasks were learnt; row 0 is the base."""


def transfer(matrix: Matrix) -> float:
    """What is left of zero-shot ability while other tasks are learnt.

    The mean, over all tasks but the first, of a task's scores after each task that was learnt before it (MTIL,
    arXiv 2303.06628). To be compared with `zero_shot`.
    """
    tasks = len(matrix) - 1
    return fmean(fmean(matrix[row][task] for row in range(1, task + 1)) for task in range(1, tasks))


def zero_shot(matrix: Matrix) -> float:
    """The base's score, the mean over the tasks that `transfer` covers."""
    return fmean(matrix[0][1:])


def average(matrix: Matrix) -> float:
    """The mean of all tasks after each task (MTIL's Average)."""
    return fmean(fmean(row) for row in matrix[1:])


def last(matrix: Matrix) -> float:
    """The mean of all tasks after the last (MTIL's Last)."""
    return fmean(matrix[-1])


def forgetting(matrix: Matrix) -> float:
    """What was lost of the tasks learnt before the last: the best that a task was since it was learnt, minus its end.

    The mean over all tasks but the last (arXiv 1801.10112).
    """
    tasks = len(matrix) - 1
    best = [max(matrix[row][task] for row in range(task + 1, tasks)) for task in range(tasks - 1)]
    return fmean(before - after for before, after in zip(best, matrix[-1], strict=False))


SUMMARIES = {"zero-shot": zero_shot, "Transfer": transfer, "Average": average, "Last": last, "forgetting": forgetting}
"""What a matrix is summed up by, in the order of tables; all are better higher but forgetting."""


@dataclass(frozen=True)
class Retention:
    """One arm: matrices of its seeds, and what was asked beside the tasks.

    Attributes:
        arm: its label.
        seeds: of the matrices.
        matrices: one a seed.
        also: name of a score to its values, one row a seed, one value before the first task and after each.
        questions: what other questions would do to a cell (`cell_name`) or a summary; empty where that is not known.
        seconds: spent in training steps, the mean over seeds of the sum over tasks; None where it is not known.
    """

    arm: str
    seeds: tuple[int, ...]
    matrices: tuple[Matrix, ...]
    also: dict[str, tuple[tuple[float, ...], ...]]
    seconds: float | None = None
    questions: Mapping[str, QuestionVariance] = field(default_factory=dict)

    def cell(self, row: int, task: int) -> Spread:
        """Score of a task after the first `row` tasks."""
        return seed_spread([matrix[row][task] for matrix in self.matrices], self.questions.get(cell_name(row, task)))

    def beside(self, name: str, row: int) -> Spread:
        """One of the further scores after the first `row` tasks."""
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
    """What came of a plan of tasks."""

    plan: SequencePlan
    arms: tuple[Retention, ...]
    failures: tuple[tuple[str, str], ...]
    """Title of each arm and seed that came to nothing, and why."""


def cell_name(row: int, of: int | str) -> str:
    """Name of a cell in `Retention.questions`: after how many tasks, of which task or further score."""
    return f"{row}:{of}"


def retention_questions(
    stages: Sequence[Items], tasks: Sequence[str], also: Sequence[str]
) -> dict[str, QuestionVariance]:
    """What other questions would do to every cell and summary.

    Args:
        stages: scores by name before the first task and after each, of verdicts averaged over seeds.
        tasks: name of each task's score.
        also: names of the further scores.
    """
    found: dict[str, QuestionVariance | None] = {}
    for row, scores in enumerate(stages):
        for number, name in enumerate(tasks):
            found[cell_name(row, number)] = questions_of(scores[name])
        for name in also:
            found[cell_name(row, name)] = questions_of(scores[name])
    drawn = np.array([[scores[name].draws for name in tasks] for scores in stages])
    images = len(np.unique(np.concatenate([stages[0][name].clusters for name in tasks])))
    # Where a bootstrap of a cell is not trusted, neither is that of a summary: then at least as wide as a mean over
    # tasks whose cells are each as uncertain as the worst of its stages.
    cells = [[found[cell_name(row, number)] for row in range(len(stages))] for number in range(len(tasks))]
    worst = [max((each.error for each in task if each is not None), default=0.0) for task in cells]
    few = any(each is not None and each.uneven < FEW for task in cells for each in task)
    least = math.hypot(*worst) / len(tasks) if few else 0.0
    for summary, sums in SUMMARIES.items():
        values = [sums(tuple(map(tuple, drawn[:, :, draw].tolist()))) for draw in range(drawn.shape[2])]
        found[summary] = QuestionVariance(max(least, float(np.std(values, ddof=1))), images, images, None)
    return {name: value for name, value in found.items() if value is not None}
