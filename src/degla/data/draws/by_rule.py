"""One negative of each rule in turn, up to K; the order of rules and of each rule's negatives is random."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from degla.data.draws import Offer


def by_rule(offer: Offer, count: int, chance: Random) -> Sequence[int]:
    """Counts of any two rules differ by at most one, unless a rule runs out of negatives.

    Use when: rules have very different numbers of negatives, and each should count alike in training.
    """
    places: dict[str | int, list[int]] = {}
    for place in chance.sample(range(len(offer)), len(offer)):
        places.setdefault(offer.rules[place], []).append(place)
    # Sorted by round; within a round rules keep the order in which they first came up, which is random.
    turns = [(turn, place) for own in places.values() for turn, place in enumerate(own)]
    return [place for _, place in sorted(turns, key=lambda each: each[0])][:count]
