"""Select among the candidates in a file of negatives, so that they cannot be told apart from captions by text only.

A file is read twice: once to choose, block by block, and once to write. Images are split into two halves by id, each
balanced separately, so that a classifier trained on one half can be tested on the other.

Signs are text features of a pair, the caption's value minus the negative's: counts of words and word pairs, length in
words and letters, log-likelihood. If the mean of every sign over the pairs is 0, a linear classifier of pairs
(report/blind.py) has nothing to learn.

The sum of all chosen pairs' signs is maintained. In turn, each group of candidates (of one caption and rule) gives up
its choice and takes the one, or none, that minimises the squared norm of the sum minus a reward for having a choice
(moment matching by greedy herding, in passes; Welling, "Herding Dynamical Weights to Learn", ICML 2009). Each step
lowers the same objective, so the passes converge. The reward trades coverage against balance. Memory: the signs of one
block of groups.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby, pairwise
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from degla.errors import InputError
from degla.negatives.balance.outcome import (
    Balance,
    BalanceSettings,
    Halves,
    RuleBalance,
    accuracy_by_words,
    measure_text_accuracy,
)
from degla.negatives.files.caption_index import CaptionIndex, IndexedCaption
from degla.negatives.grammar import words
from degla.negatives.report.blind import FEWEST, CaptionNegative, Likelihoods, half_of
from degla.negatives.report.counts import Reservoir
from degla.progress import TaskProgress
from degla.records import NegativeRecord, write_jsonl

REWARDS: Final = (2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.15)
"""Candidate rewards for keeping a negative, from most coverage to best balance; the first that passes is used."""

_BLOCK: Final = 300_000
"""Candidates in memory at once; with the signs of one rule at a time about 300 MB, or 400 MB if all are of one rule."""
_TRIED: Final = 2_000
"""Maximum pairs per half in the test of one reward."""
_TESTED: Final = 4_000
"""Maximum pairs per half, of one rule or of all rules, in the tests of the output."""

SIGNS: Final = 2**18
"""Number of hash buckets for signs."""
_CUE: Final = 3.0
"""Weight of a length or likelihood sign relative to a word, as every pair has them."""
_RARE: Final = 20.0
"""Number of pairs with a sign at which its weight is halved; rare signs can neither be learnt nor balanced."""
_PASSES: Final = 6
"""Maximum passes over a block."""
_SETTLED: Final = 0.005
"""Share of groups that change their choice in a pass, below which passes stop."""

Rows = Callable[[], Iterable[NegativeRecord]]
"""A function that returns a new iterator over the rows of the file."""

Item = TypeVar("Item")


def signs(pair: CaptionNegative) -> dict[int, float]:
    """Return the non-zero signs of one pair by hash bucket."""
    counts = Counter(_counts(pair.caption))
    counts.subtract(_counts(pair.negative))
    values = {name: float(times) for name, times in counts.items() if times}
    size, other = len(words.content(pair.caption)), len(words.content(pair.negative))
    whole = pair.caption_likely * (size + 1) - pair.negative_likely * (other + 1)
    # Lengths and likelihoods, each with the difference from which on its size counts in full.
    measures = ((float(size - other), 3.0), (float(pair.longer), 10.0), (pair.likelier, 1.0), (whole, 5.0))
    for number, (value, scale) in enumerate(measures):
        # The direction can identify a pair on its own, the size in a sum with other signs.
        for kind, cue in (
            ("direction", float((value > 0) - (value < 0))),
            ("size", max(-1.0, min(1.0, value / scale))),
        ):
            if cue:
                values[_place(f"#{number} {kind}")] = _CUE * cue
    return values


@lru_cache(maxsize=4_096)
def _counts(text: str) -> Counter[int]:
    pieces = ["<", *(piece for piece, _ in words.split(text.lower())), ">"]
    return Counter([*map(_place, pieces), *(_place(f"{one} {other}") for one, other in pairwise(pieces))])


@lru_cache(maxsize=65_536)
def _place(name: str) -> int:
    return crc32(name.encode()) % SIGNS


@dataclass
class Groups:
    """Candidates in groups, with their signs as concatenated sparse rows.

    Attributes:
        first: index of each group's first candidate, and the total, [groups + 1].
        start: index of each candidate's first sign, and the total, [candidates + 1].
        place: hash bucket of every sign, [signs].
        value: value of every sign, [signs].
    """

    first: NDArray[np.int64]
    start: NDArray[np.int64]
    place: NDArray[np.int32]
    value: NDArray[np.float32]

    @classmethod
    def of(cls, groups: Sequence[Sequence[Mapping[int, float]]]) -> Groups:
        """Create groups from the signs of every candidate of every group."""
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
    """Chooses candidates of one rule, block by block.

    Attributes:
        seed: seed of the order in which groups choose.
        per_group: maximum choices per group.
        reward: reward of a choice, in units of the squared norm.
    """

    seed: str
    per_group: int = 1
    reward: float = 1.0
    _sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(SIGNS))
    _weight: NDArray[np.float64] | None = None

    def choose(self, groups: Groups, choices: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return the chosen candidates of each group, [groups, per_group], -1 for none.

        Args:
            groups: a block.
            choices: an earlier call's choices for this block to start from, which the sum already includes.
        """
        weight = self._weights(groups)
        weighted = weight[groups.place] * groups.value
        norms = _sums(weighted * groups.value, groups.start)
        picks = np.full((len(groups), self.per_group), -1) if choices is None else choices.copy()
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
        """Return the cost of an unbalanced sign, lower the more pairs have it; computed on the first block."""
        if self._weight is None:
            shares = 1 / np.repeat(np.diff(groups.first), np.diff(groups.first))
            share = np.repeat(shares, np.diff(groups.start))
            self._weight = 1 / (np.bincount(groups.place, weights=share, minlength=SIGNS) + _RARE)
        return self._weight


def _sums(values: NDArray[Any], start: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sums of consecutive segments of values; empty segments give 0."""
    total: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    sums: NDArray[np.float64] = total[start[1:]] - total[start[:-1]]
    return sums


@dataclass
class _Group:
    """The candidates of one caption and rule: their positions in the file and their pairs."""

    rule: str
    half: int
    places: list[int]
    pairs: list[CaptionNegative]


@dataclass
class _Side:
    """One rule in one half of the images."""

    chooser: Chooser
    before: Reservoir[CaptionNegative]
    after: Reservoir[CaptionNegative]


def _with_progress(task: str, rules: Sequence[Item]) -> Iterator[Item]:
    """Iterate over the rules with a progress bar: thousands of captions take minutes."""
    with TaskProgress(show=True).task(task, len(rules)) as advance:
        for rule in rules:
            yield rule
            advance(1)


class Balancer:
    """Selects balanced negatives and reports the outcome. Use each instance once.

    Attributes:
        report: the outcome.
    """

    def __init__(
        self, rows: Rows, captions: CaptionIndex, settings: BalanceSettings, likelihoods: Sequence[Likelihoods]
    ) -> None:
        """Read all rows once and choose.

        Args:
            rows: returns a new iterator over the file's rows; rows must be grouped by caption, in the captions' order.
            captions: the captions that the negatives were made from.
            settings: the settings.
            likelihoods: likelihood models for the two halves' texts.

        Raises:
            InputError: a row's caption is not among the captions, or the rows are not in the captions' order.
        """
        self.report = Balance(len(captions))
        self._rows, self._captions, self._settings, self._likelihoods = rows, captions, settings, likelihoods
        self._chosen = array("B")
        self._sides: dict[tuple[str, int], _Side] = {}
        for block in self._blocks():
            self._choose_in_block(block)
        self._test_rules()

    def write(self, out: Path) -> None:
        """Write, atomically, the chosen rows, and one refused row for each caption and rule without any."""
        write_jsonl(out, self._output_rows())

    def _output_rows(self) -> Iterator[NegativeRecord]:
        chosen = iter(self._chosen)
        captions_before = captions_after = negatives_before = negatives_after = 0
        for _, of_caption in groupby(self._rows(), key=lambda row: row.caption_id):
            had_any = has_any = False
            for rule, rows in groupby(of_caption, key=lambda row: row.rule):
                state = self.report.rules.get(rule)
                candidates = [(row, next(chosen)) for row in rows]
                selection = [row for row, is_chosen in candidates if is_chosen and state and state.stays]
                had = any(row.accepted for row, _ in candidates)
                negatives_before += had
                negatives_after += len(selection)
                had_any, has_any = had_any or had, has_any or bool(selection)
                if selection:
                    yield from selection
                else:
                    row = next((row for row, _ in candidates if row.accepted), candidates[0][0])
                    reason = ((state.reason if state else "") or "unbalanced") if had else row.reason
                    yield row.model_copy(update={"accepted": False, "reason": reason})
            captions_before += had_any
            captions_after += has_any
        self.report.negatives = negatives_before, negatives_after
        self.report.covered = captions_before, captions_after

    def _blocks(self) -> Iterator[list[_Group]]:
        """Yield groups of accepted rows in blocks; a block never splits a caption."""
        block: list[_Group] = []
        size = 0
        last = -1
        for caption_id, rows in groupby(self._rows(), key=lambda row: row.caption_id):
            caption = self._captions.require(caption_id)
            if caption.number <= last:
                raise InputError(
                    f"{self._captions.negatives_file}: caption {caption_id!r}: rows must be grouped by caption "
                    "and in the captions' order, as degla negatives writes them."
                )
            last = caption.number
            for group in self._groups(caption, rows):
                block.append(group)
                size += len(group.places)
            if size >= _BLOCK:
                yield block
                block, size = [], 0
        if block:
            yield block

    def _groups(self, caption: IndexedCaption, rows: Iterable[NegativeRecord]) -> Iterator[_Group]:
        half = half_of(caption.image_id)
        for rule, candidates in groupby(rows, key=lambda row: row.rule):
            places, texts = [], []
            for row in candidates:
                if row.accepted and row.text is not None:
                    places.append(len(self._chosen))
                    texts.append(row.text)
                self._chosen.append(0)
            if texts:
                likely, *others = self._likelihoods[half]([caption.text, *texts])
                # A missing likelihood favours neither text.
                likelihoods = [(likely, own) if math.isfinite(likely - own) else (0.0, 0.0) for own in others]
                pairs = [
                    CaptionNegative(caption.text, text, caption.image_id, *both)
                    for text, both in zip(texts, likelihoods, strict=True)
                ]
                self.report.unread += sum(not math.isfinite(likely - own) for own in others)
                yield _Group(rule, half, places, pairs)

    def _choose_in_block(self, block: list[_Group]) -> None:
        """Choose in one block, for each rule separately."""
        for rule in _with_progress(
            "choosing among candidates, rules", list(dict.fromkeys(group.rule for group in block))
        ):
            halves = [[group for group in block if (group.rule, group.half) == (rule, half)] for half in (0, 1)]
            sides = [self._side(rule, half) for half in (0, 1)]
            state = self.report.rules.setdefault(rule, RuleBalance())
            self._choose(state, halves, sides)
            for groups, side in zip(halves, sides, strict=True):
                for group in groups:
                    selection = [
                        pair for place, pair in zip(group.places, group.pairs, strict=True) if self._chosen[place]
                    ]
                    state.captions += 1
                    state.candidates += len(group.places)
                    state.kept += bool(selection)
                    side.before.show(group.pairs[0])
                    for pair in selection:
                        side.after.show(pair)

    def _side(self, rule: str, half: int) -> _Side:
        seed = f"{self._settings.seed} {rule} {half}"
        if (rule, half) not in self._sides:
            self._sides[rule, half] = _Side(
                Chooser(seed, self._settings.per_rule),
                Reservoir(_TESTED, seed=f"{seed} before"),
                Reservoir(_TESTED, seed=f"{seed} after"),
            )
        return self._sides[rule, half]

    def _choose(self, state: RuleBalance, halves: Sequence[list[_Group]], sides: Sequence[_Side]) -> None:
        """Choose in both halves with the largest reward that passes, which is found on the first block."""
        blocks = [Groups.of([[signs(pair) for pair in group.pairs] for group in groups]) for groups in halves]
        picks: list[Any] = [None, None]

        def choose_with(reward: float) -> int:
            state.reward = reward
            for half, side in enumerate(sides):
                side.chooser.reward = reward
                picks[half] = side.chooser.choose(blocks[half], picks[half])
            return min(int((chosen >= 0).sum()) for chosen in picks)

        if state.reward:
            choose_with(state.reward)
        else:
            low, high = 0, len(REWARDS) - 1
            while low < high:
                # The smaller the reward, the less the texts give away, so a binary search finds it.
                middle = (low + high) // 2
                choose_with(REWARDS[middle])
                low, high = (low, middle) if self._passes(halves, picks) else (middle + 1, high)
            if choose_with(REWARDS[low]) < FEWEST and low:
                choose_with(REWARDS[low - 1])  # A rule with too few pairs to test would be dropped.
        for groups, groups_picks in zip(halves, picks, strict=True):
            places = [place for group in groups for place in group.places]
            for pick in groups_picks[groups_picks >= 0]:
                self._chosen[places[pick]] = 1

    def _passes(self, halves: Sequence[list[_Group]], picks: Sequence[Any]) -> bool:
        """Whether the chosen texts give away no more than allowed."""
        samples = []
        for groups, groups_picks in zip(halves, picks, strict=True):
            pairs = [pair for group in groups for pair in group.pairs]
            sample = Reservoir[CaptionNegative](_TRIED, seed=f"{self._settings.seed} tried")
            for pick in groups_picks[groups_picks >= 0]:
                sample.show(pairs[pick])
            samples.append(sample.items)
        return min(map(len, samples)) < FEWEST or accuracy_by_words(samples[0], samples[1]) <= self._settings.text_only

    def _test_rules(self) -> None:
        """Test each rule, drop those still identified by text only, and test the rest together."""
        for rule, state in _with_progress("testing the selection, rules", list(self.report.rules.items())):
            state.before, state.after = (measure_text_accuracy(halves) for halves in self._samples([rule]))
            most = self._settings.text_only_rule
            state.stays = most == 1 or (state.after is not None and state.after.most <= most)
        stay = [rule for rule, state in self.report.rules.items() if state.stays]
        self.report.before = measure_text_accuracy(self._samples(list(self.report.rules))[0])
        self.report.after = measure_text_accuracy(self._samples(stay)[1])

    def _samples(self, rules: Sequence[str]) -> tuple[Halves, Halves]:
        """Sample pairs of some rules, before and after balancing, in two halves; several rules are pooled."""
        draw = Random(self._settings.seed)

        def sample(reservoirs: Iterable[Reservoir[CaptionNegative]]) -> list[CaptionNegative]:
            pairs = [pair for reservoir in reservoirs for pair in reservoir.items]
            return draw.sample(pairs, min(len(pairs), _TESTED))

        first, second = ([self._sides[rule, half] for rule in rules] for half in (0, 1))
        before = sample(side.before for side in first), sample(side.before for side in second)
        return before, (sample(side.after for side in first), sample(side.after for side in second))
