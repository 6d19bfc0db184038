"""SHELF - draws: which K of a caption's negatives a row uses in an epoch.

Each file holds one function with the file's name. It takes an `Offer`, K and a generator that is fresh for every (seed,
epoch, index), and returns at most K distinct indices into the offer, in the order of the batch's columns. The result
depends on nothing else, so workers, processes and resumed runs agree. A file may also define `check`, which refuses
rows that it cannot draw from before the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from degla.data.table import PairTable
from degla.shelf import DRAWS


@dataclass(frozen=True)
class Offer:
    """The usable negatives of one caption, in the order of their file.

    Attributes:
        rules: name or number of the rule that made each.
        scores: `NegativeRecord.score` of each, in nats per token; None if the record has none.
    """

    rules: Sequence[str | int]
    scores: Sequence[float | None]

    def __len__(self) -> int:
        return len(self.rules)


Draw = Callable[[Offer, int, Random], Sequence[int]]


def open_draw(name: str, rows: PairTable) -> Draw:
    """Return the draw called `name` after it has checked the rows.

    Raises:
        InputError: there is no such draw, or it cannot draw from these rows.
    """
    member = DRAWS.load(name)
    if hasattr(member, "check"):
        member.check(rows)
    draw: Draw = DRAWS.member(name, name)
    return draw
