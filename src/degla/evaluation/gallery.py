"""Items that changed between two methods, to look through: by benchmark, and by whether they were fixed or broken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, get_args

from degla.errors import InputError
from degla.evaluation.changes import ItemAnswers, ItemChange, illustrated, moved_items
from degla.evaluation.comparison import compare
from degla.evaluation.results import load_result
from degla.evaluation.sources import titles_of

Direction = Literal["fixed", "broken", "all"]
"""Wrong before and right after, right before and wrong after, or all whose margin moved."""
DIRECTIONS: Final = get_args(Direction)


class Gallery:
    """The items of results that moved from a baseline to each other method.

    Args:
        results: files of `degla evaluate`.
        baseline: label of the method that the others are compared with; None: that of the first file.
        root: folder of the benchmarks' files, for texts and pictures; None: neither is shown.

    Attributes:
        baseline: its label.
        labels: of the other methods, as far as they answered the same items.
        benchmarks: name to title.

    Raises:
        InputError: see `compare` and `moved_items`; there is no result, or only one method.
    """

    def __init__(self, results: Sequence[Path], *, baseline: str | None = None, root: Path | None = None) -> None:
        if not results:
            raise InputError("no result was found. Make some with `degla evaluate BASE TUNED --out results.json`.")
        self.baseline = baseline or load_result(results[0]).model.label
        self.root = root
        comparison = compare(results, baseline=self.baseline)
        self._moved = moved_items(comparison)
        if not self._moved:
            raise InputError(
                f"no item of these results has another margin than with {self.baseline!r}. Give results of two models "
                "on the same questions, with the .items.jsonl files beside them."
            )
        self.labels = tuple(self._moved)
        there = {change.benchmark for changes in self._moved.values() for change in changes}
        self.benchmarks = {name: title for name, title in titles_of(comparison).items() if name in there}

    def items(
        self, label: str, *, benchmark: str | None = None, direction: Direction = "all", count: int, side: int
    ) -> tuple[tuple[ItemChange, ...], int]:
        """The items whose margin moved most, with texts and pictures, and how many there are in all.

        Args:
            label: of the method.
            benchmark: name; None: all.
            direction: which of them.
            count: items, at most.
            side: pixels of a picture's longer side, at most.
        """
        chosen = [
            change
            for change in self._moved[label]
            if benchmark in (None, change.benchmark) and direction in ("all", _direction(change))
        ]
        first = chosen[:count]
        shown = tuple(first) if self.root is None else illustrated({"": first}, self.root, side=side)[""]
        return shown, len(chosen)


def _direction(change: ItemChange) -> Direction:
    before, after = _is_right(change.before), _is_right(change.after)
    return "all" if before == after else "fixed" if after else "broken"


def _is_right(answers: ItemAnswers) -> bool:
    """Whether more than half of the seeds are right."""
    return 2 * answers.right > answers.seeds
