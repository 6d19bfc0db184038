"""The first K of a caption's negatives in the order of their file, the same in every epoch (DeGLA's released code)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from degla.data.draws import Offer


def first(offer: Offer, count: int, chance: Random) -> Sequence[int]:
    """D-6 in docs/decisions: the released code reads only the first four texts of a row.

    Use when: a run must repeat the released DeGLA code, or the order of the file is a ranking of your own.
    """
    return range(min(count, len(offer)))
