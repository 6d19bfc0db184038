"""Chooses among candidates so that the signs of the chosen ones are 0 on average: greedy herding, pass by pass.

Signs are what a caption and its negative show to somebody who sees no image, as numbers. Each is a difference, the
caption's less the negative's: counts of words and of pairs of words, length in words and letters, log-likelihood. Where
the mean of every sign over the pairs is 0, no linear classifier of pairs (report/blind.py) has anything to learn.

The sum of all chosen pairs' signs is kept. One group of candidates (of one caption and rule) after the other gives up
its choice and takes the one, or none, that makes the squared length of the sum least, less a reward for having one
(moment matching; Welling 2009, "Herding dynamical weights"). Each step lowers the same value, so that passes end. The
reward trades coverage against balance. Memory: the signs of one block of groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from degla.negatives.grammar import words
from degla.negatives.report.blind import CaptionNegative

SIGNS: Final = 2**18
"""Places for signs; names are hashed into them."""
_CUE: Final = 3.0
"""How much more one sign of length or likelihood counts than one word: every pair has them."""
_RARE: Final = 20.0
"""A sign in so many pairs counts half as much as it would: what is rare cannot be learnt, nor balanced."""
_PASSES: Final = 6
"""Passes over a block at most."""
_SETTLED: Final = 0.005
"""Share of groups that change their choice in a pass after which no further pass is made."""


def signs(pair: CaptionNegative) -> dict[int, float]:
    """The signs of one pair that are not 0, by their places."""
    counts = Counter(_counts(pair.caption))
    counts.subtract(_counts(pair.negative))
    found = {name: float(times) for name, times in counts.items() if times}
    size, other = len(words.content(pair.caption)), len(words.content(pair.negative))
    whole = pair.caption_likely * (size + 1) - pair.negative_likely * (other + 1)
    measured = ((float(size - other), 3.0), (float(pair.longer), 10.0), (pair.likelier, 1.0), (whole, 5.0))
    for number, (value, scale) in enumerate(measured):
        # The direction alone tells a pair; the size tells it in a sum with other signs.
        for kind, cue in (
            ("direction", float((value > 0) - (value < 0))),
            ("size", max(-1.0, min(1.0, value / scale))),
        ):
            if cue:
                found[_place(f"#{number} {kind}")] = _CUE * cue
    return found


@lru_cache(maxsize=4_096)
def _counts(text: str) -> Counter[int]:
    pieces = ["<", *(piece for piece, _ in words.split(text.lower())), ">"]
    return Counter([*map(_place, pieces), *(_place(f"{one} {other}") for one, other in pairwise(pieces))])


@lru_cache(maxsize=65_536)
def _place(name: str) -> int:
    return crc32(name.encode()) % SIGNS


@dataclass
class Groups:
    """Candidates in groups, their signs in one row after the other.

    Attributes:
        first: where the candidates of each group begin, and where the last ends, [groups + 1].
        start: where the signs of each candidate begin, and where the last end, [candidates + 1].
        place: of every sign, [signs].
        value: of every sign, [signs].
    """

    first: NDArray[np.int64]
    start: NDArray[np.int64]
    place: NDArray[np.int32]
    value: NDArray[np.float32]

    @classmethod
    def of(cls, groups: Sequence[Sequence[Mapping[int, float]]]) -> Groups:
        """From the signs of every candidate of every group."""
        rows = [row for group in groups for row in group]
        return cls(
            np.cumsum([0, *map(len, groups)]),
            np.cumsum([0, *map(len, rows)]),
            np.array([place for row in rows for place in row], dtype=np.int32),
            np.array([value for row in rows for value in row.values()], dtype=np.float32),
        )

    def __len__(self) -> int:
        return len(self.first) - 1


@dataclass
class Chooser:
    """Chooses for one rule, block after block of groups.

    Attributes:
        seed: of the order in which groups choose.
        per_group: candidates that a group may have, at most.
        reward: what a choice is worth in squared length.
    """

    seed: str
    per_group: int = 1
    reward: float = 1.0
    _sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(SIGNS))
    _weight: NDArray[np.float64] | None = None

    def choose(self, groups: Groups, chosen: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """The candidates of each group, [groups, per_group], -1 for none.

        Args:
            groups: a block.
            chosen: what an earlier call chose for this block, to go on from; with it the sum holds these already.
        """
        weight = self._weights(groups)
        weighted = weight[groups.place] * groups.value
        norms = _sums(weighted * groups.value, groups.start)
        picks = np.full((len(groups), self.per_group), -1) if chosen is None else chosen.copy()
        order = np.arange(len(groups))
        draw = np.random.default_rng(Random(f"{self.seed} {len(groups)}").getrandbits(64))
        for _ in range(_PASSES):
            draw.shuffle(order)
            changed = sum(self._choose_one(groups, int(group), picks[group], weighted, norms) for group in order)
            if changed < _SETTLED * len(groups):
                break
        return picks

    def _choose_one(self, groups: Groups, group: int, picks: NDArray[np.int64], weighted: Any, norms: Any) -> bool:
        first, last = groups.first[group], groups.first[group + 1]
        if first == last:
            return False
        before = picks.copy()
        start, end = groups.start[first], groups.start[last]
        places = groups.place[start:end]
        for slot in range(len(picks)):
            self._add(groups, picks[slot], -1.0)
            picks[slot] = -1
            cost = 2 * _sums(self._sum[places] * weighted[start:end], groups.start[first : last + 1] - start)
            cost += norms[first:last] - self.reward
            cost[[pick - first for pick in picks if pick >= 0]] = np.inf
            best = int(cost.argmin())
            if cost[best] < 0:
                picks[slot] = first + best
                self._add(groups, picks[slot], 1.0)
        return bool((picks != before).any())

    def _add(self, groups: Groups, candidate: int, times: float) -> None:
        if candidate >= 0:
            span = slice(groups.start[candidate], groups.start[candidate + 1])
            self._sum[groups.place[span]] += times * groups.value[span]

    def _weights(self, groups: Groups) -> NDArray[np.float64]:
        """How much an unbalanced sign costs: less the more pairs have it; by the first block."""
        if self._weight is None:
            shares = 1 / np.repeat(np.diff(groups.first), np.diff(groups.first))
            share = np.repeat(shares, np.diff(groups.start))
            self._weight = 1 / (np.bincount(groups.place, weights=share, minlength=SIGNS) + _RARE)
        return self._weight


def _sums(values: NDArray[Any], start: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sums of stretches of values; empty stretches give 0."""
    total: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    sums: NDArray[np.float64] = total[start[1:]] - total[start[:-1]]
    return sums
