"""K of a caption's negatives, redrawn in every epoch, without replacement."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from degla.data.draws import Offer


def random(offer: Offer, count: int, chance: Random) -> Sequence[int]:
    """Every choice and order of K negatives is equally likely."""
    return chance.sample(range(len(offer)), min(count, len(offer)))
