"""One negative of each rule in turn, until there are K; the order of rules and the negatives of each are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from degla.data.draws import Offer


def by_rule(offer: Offer, count: int, chance: Random) -> Sequence[int]:
    """The numbers of negatives of two rules differ by at most one, unless a rule has no more to give."""
    places: dict[str | int, list[int]] = {}
    for place in chance.sample(range(len(offer)), len(offer)):
        places.setdefault(offer.rules[place], []).append(place)
    # Sorted by round; within a round the rules stand as they first came up, which is in random order.
    turns = [(turn, place) for own in places.values() for turn, place in enumerate(own)]
    return [place for _, place in sorted(turns, key=lambda each: each[0])][:count]
