"""SHELF - draws: which K of a caption's negatives a row brings into an epoch.

Each file holds one function of the file's name: `Offer`, K and a generator that is fresh for every (seed, epoch, index)
go in; at most K different places of the offer come out, in the order of the batch's columns. What it returns depends on
nothing else, so that workers, processes and resumed runs agree. A file may also hold `check`, which refuses, before the
first step, rows that it cannot draw from.
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
        rules: what tells which rule made each.
        scores: `NegativeRecord.score` of each, nats a token; None where the record has none.
    """

    rules: Sequence[str | int]
    scores: Sequence[float | None]

    def __len__(self) -> int:
        return len(self.rules)


Draw = Callable[[Offer, int, Random], Sequence[int]]


def open_draw(name: str, rows: PairTable) -> Draw:
    """The member called `name`, after it has looked at the rows.

    Raises:
        InputError: there is no such draw, or it cannot draw from these rows.
    """
    member = DRAWS.load(name)
    if hasattr(member, "check"):
        member.check(rows)
    draw: Draw = DRAWS.member(name, name)
    return draw
