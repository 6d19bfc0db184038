"""K of a caption's negatives, redrawn in every epoch, without replacement."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from degla.data.draws import Offer


def random(offer: Offer, count: int, chance: Random) -> Sequence[int]:
    """Every choice and order of K negatives is equally likely.

    Use when: captions have more negatives than a step reads, and no rule or text is preferred. It is the default.
    """
    return chance.sample(range(len(offer)), min(count, len(offer)))
