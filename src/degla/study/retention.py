"""What a sequence of tasks left: scores of every task after every task, and what sums them up."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from degla.statistics.seeds import Spread, seed_spread

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
        seconds: spent in training steps, the mean over seeds of the sum over tasks; None where it is not known.
    """

    arm: str
    seeds: tuple[int, ...]
    matrices: tuple[Matrix, ...]
    also: dict[str, tuple[tuple[float, ...], ...]]
    seconds: float | None = None

    def cell(self, row: int, task: int) -> Spread:
        """Score of a task after the first `row` tasks, over seeds."""
        return seed_spread([matrix[row][task] for matrix in self.matrices])

    def beside(self, name: str, row: int) -> Spread:
        """One of the further scores after the first `row` tasks, over seeds."""
        return seed_spread([values[row] for values in self.also[name]])

    @property
    def summaries(self) -> dict[str, Spread]:
        """`SUMMARIES` over seeds."""
        return {name: seed_spread([sums(matrix) for matrix in self.matrices]) for name, sums in SUMMARIES.items()}
