"""One pass over a file of negatives: counts of every rule, and drawn rows. Memory does not grow with the file.

It does with the captions, by 12 bytes each (20 for a moment), and with the number of different words put in, up to a
limit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from degla.errors import InputError
from degla.negatives.differences import measure_difference
from degla.negatives.files.caption_index import CaptionIndex, IndexedCaption
from degla.negatives.grammar import words
from degla.records import NegativeRecord

_MOST_RULES: Final = 64
_MOST_WORDS: Final = 200_000
"""Different words put in that are counted one by one, a rule; all later ones count together."""

REFUSED_SAMPLES: Final = 4
"""Refused proposals that are kept to be read, a rule."""


Item = TypeVar("Item")


class Reservoir(Generic[Item]):
    """Keeps `size` of the things that it is shown, each with the same probability.

    Attributes:
        kept: what is kept now; once full, in no meaningful order.
        shown: number of things shown.
    """

    def __init__(self, size: int, *, seed: str) -> None:
        self.kept: list[Item] = []
        self.shown = 0
        self._size = size
        self._random = Random(seed)

    def show(self, thing: Item) -> None:
        """Keep a thing, or not."""
        self.shown += 1
        if len(self.kept) < self._size:
            self.kept.append(thing)
        elif self._size:
            place = int(self._random.random() * self.shown)
            if place < self._size:
                self.kept[place] = thing


@dataclass(frozen=True)
class Draws:
    """What is drawn from a file at random.

    Attributes:
        samples: accepted negatives a rule to be read.
        tested: accepted negatives a rule to be tested, at most.
        seed: of all draws.
    """

    samples: int = 8
    tested: int = 2_000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Drawn:
    """An accepted or refused row with its caption."""

    caption: IndexedCaption
    record: NegativeRecord

    @property
    def negative(self) -> str:
        """The text; rows without one are never drawn."""
        return self.record.text or ""


@dataclass
class RuleCounts:
    """What one rule made.

    Attributes:
        name: of the rule.
        kind: what it breaks.
        rows: records.
        proposed: records with a text.
        accepted: records that the checks accepted.
        covered: captions with an accepted negative.
        reasons: refused records, by reason.
        sources: accepted records, by (source, form).
        caption_lengths, lengths: accepted pairs, by the number of words of the caption and of the negative.
        distances: accepted pairs, by the number of words to change.
        put_in: words that accepted negatives have more than their captions.
        more_words: occurrences of words beyond the limit of different words.
        to_read: accepted rows, drawn.
        refused_to_read: refused rows with a text, drawn.
        to_test: accepted rows, drawn, for the test whether the text alone gives them away.
    """

    name: str
    kind: str
    to_read: Reservoir[Drawn]
    refused_to_read: Reservoir[Drawn]
    to_test: Reservoir[Drawn]
    rows: int = 0
    proposed: int = 0
    accepted: int = 0
    covered: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    caption_lengths: Counter[int] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    distances: Counter[int] = field(default_factory=Counter)
    put_in: Counter[str] = field(default_factory=Counter)
    more_words: int = 0

    def add(self, drawn: Drawn) -> None:
        """Count one record of a known caption."""
        record, caption = drawn.record, drawn.caption
        self.rows += 1
        self.proposed += record.text is not None
        if not record.accepted:
            self.reasons[record.reason or "unnamed"] += 1
            if record.text is not None:
                self.refused_to_read.show(drawn)
            return
        self.accepted += 1
        self.sources[record.source, record.form] += 1
        difference = measure_difference(caption.text, drawn.negative)
        self.caption_lengths[len(words.content(caption.text))] += 1
        self.lengths[len(words.content(drawn.negative))] += 1
        self.distances[difference.distance] += 1
        for word in difference.put_in:
            if word in self.put_in or len(self.put_in) < _MOST_WORDS:
                self.put_in[word] += 1
            else:
                self.more_words += 1
        self.to_read.show(drawn)
        self.to_test.show(drawn)

    @property
    def entropy(self) -> float:
        """Of the words put in, bits: 2 to this power words, equally often used, would be as diverse."""
        return entropy(self.put_in)


def entropy(counts: Counter[str]) -> float:
    """Entropy of a distribution given by counts, bits; 0 where there is none."""
    total = sum(counts.values())
    return sum(-number / total * math.log2(number / total) for number in counts.values()) if total else 0.0


def mean(counts: Counter[int]) -> float:
    """Mean of numbers that occur so often; NaN where there is none."""
    total = sum(counts.values())
    return sum(value * number for value, number in counts.items()) / total if total else math.nan


@dataclass
class FileCounts:
    """What one file of negatives holds.

    Attributes:
        captions: captions of the captions file.
        rows: records, those of unknown captions included.
        without_caption: records whose caption is not in the captions file; counted nowhere else.
        missing_ids: the first few of their caption ids.
        rules: by name, in the order of their first record.
        rules_a_caption: captions, by the number of different rules that they have an accepted negative of.
        negatives_a_caption: captions, by the number of accepted negatives.
    """

    captions: int
    rows: int = 0
    without_caption: int = 0
    missing_ids: list[str] = field(default_factory=list)
    rules: dict[str, RuleCounts] = field(default_factory=dict)
    rules_a_caption: Counter[int] = field(default_factory=Counter)
    negatives_a_caption: Counter[int] = field(default_factory=Counter)

    @property
    def accepted(self) -> int:
        """Accepted negatives in all."""
        return sum(rule.accepted for rule in self.rules.values())


def count_records(
    records: Iterable[NegativeRecord], captions: CaptionIndex, draws: Draws, *, where: Path
) -> FileCounts:
    """Read all records once.

    Args:
        records: in any order.
        captions: what they were made from.
        draws: what is kept of them.
        where: the file that they are from, for messages.

    Raises:
        InputError: no record belongs to any caption, or there are more than 64 rules.
    """
    counts = FileCounts(captions=len(captions))
    covered: NDArray[np.uint64] = np.zeros(len(captions), dtype=np.uint64)
    negatives: NDArray[np.uint32] = np.zeros(len(captions), dtype=np.uint32)
    bits: dict[str, np.uint64] = {}
    for record in records:
        counts.rows += 1
        caption = captions.find(record.caption_id)
        if caption is None:
            counts.without_caption += 1
            if len(counts.missing_ids) < 3:
                counts.missing_ids.append(record.caption_id)
            continue
        rule = counts.rules.get(record.rule)
        if rule is None:
            if len(counts.rules) == _MOST_RULES:
                raise InputError(
                    f"{where} record {counts.rows}: field 'rule': more than {_MOST_RULES} different rules."
                )
            bits[record.rule] = np.uint64(1 << len(counts.rules))
            rule = counts.rules[record.rule] = _new_rule(record, draws)
        rule.add(Drawn(caption, record))
        if record.accepted:
            covered[caption.number] |= bits[record.rule]
            negatives[caption.number] += np.uint32(1)
    if counts.rows == counts.without_caption:
        raise InputError(
            f"{where}: no negative belongs to any caption; in the negatives the caption ids begin with "
            f"{', '.join(map(repr, counts.missing_ids)) or 'nothing'}. Give the captions that they were made from, "
            "with the same columns."
        )
    rules_each: NDArray[np.int64] = np.zeros(len(captions), dtype=np.int64)
    for name, rule in counts.rules.items():
        has_rule = (covered & bits[name]) != 0
        rule.covered = int(np.count_nonzero(has_rule))
        rules_each += has_rule
    counts.rules_a_caption = _histogram(rules_each)
    counts.negatives_a_caption = _histogram(negatives.astype(np.int64))
    return counts


def _new_rule(record: NegativeRecord, draws: Draws) -> RuleCounts:
    def reservoir(size: int, use: str) -> Reservoir[Drawn]:
        return Reservoir(size, seed=f"{draws.seed}/{record.rule}/{use}")

    refused = reservoir(min(draws.samples, REFUSED_SAMPLES), "refused")
    return RuleCounts(
        record.rule, record.kind, reservoir(draws.samples, "read"), refused, reservoir(draws.tested, "test")
    )


def _histogram(values: NDArray[np.int64]) -> Counter[int]:
    numbers, times = np.unique(values, return_counts=True)
    return Counter(dict(zip(numbers.tolist(), times.tolist(), strict=True)))
