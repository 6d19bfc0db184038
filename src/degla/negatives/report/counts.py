"""Count every rule and sample rows in one pass over a file of negatives. Memory does not grow with the file.

It grows by 12 bytes per caption (briefly 20), and with the number of different inserted words, up to a limit.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from degla.data.pairs import ForeignCheck
from degla.errors import InputError
from degla.negatives.differences import measure_difference
from degla.negatives.files.caption_index import CaptionIndex, IndexedCaption
from degla.negatives.grammar import words
from degla.records import POSITIVE, NegativeRecord

log = logging.getLogger(__name__)

_MOST_RULES: Final = 64
_MOST_WORDS: Final = 200_000
"""Different inserted words counted individually per rule; all later ones are counted together."""

REFUSED_SAMPLES: Final = 4
"""Refused proposals sampled for reading, per rule."""


Item = TypeVar("Item")


class Reservoir(Generic[Item]):
    """A uniform random sample of at most `size` of the items shown to it.

    Attributes:
        items: the current sample; once full, in no meaningful order.
        shown: number of items shown.
    """

    def __init__(self, size: int, *, seed: str) -> None:
        self.items: list[Item] = []
        self.shown = 0
        self._size = size
        self._random = Random(seed)

    def show(self, thing: Item) -> None:
        """Show one item, which may enter the sample."""
        self.shown += 1
        if len(self.items) < self._size:
            self.items.append(thing)
        elif self._size:
            place = int(self._random.random() * self.shown)
            if place < self._size:
                self.items[place] = thing


@dataclass(frozen=True)
class Draws:
    """How much to sample from a file.

    Attributes:
        samples: accepted negatives per rule to read.
        tested: maximum accepted negatives per rule to test.
        seed: seed of all draws.
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
        """The text of the negative; rows without one are never drawn."""
        return self.record.text or ""


@dataclass
class RuleCounts:
    """Counts for the negatives of one rule.

    Attributes:
        name: name of the rule.
        kind: what the rule breaks.
        rows: number of records.
        proposed: records with a text.
        accepted: records that the checks accepted.
        covered: captions with an accepted negative.
        reasons: refused records by reason.
        sources: accepted records by (source, form).
        caption_lengths, lengths: accepted pairs by number of words in the caption and in the negative.
        distances: accepted pairs by number of changed words.
        put_in: counts of the words that accepted negatives have and their captions lack.
        more_words: occurrences of words beyond the limit of different words.
        to_read: sample of accepted rows.
        refused_to_read: sample of refused rows with a text.
        to_test: sample of accepted rows for the blind test.
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
        """Entropy of the inserted words in bits: as diverse as 2 to this power equally frequent words."""
        return entropy(self.put_in)


def entropy(counts: Counter[str]) -> float:
    """Return the entropy in bits of a distribution given by counts; 0 if it is empty."""
    total = sum(counts.values())
    return sum(-number / total * math.log2(number / total) for number in counts.values()) if total else 0.0


def mean(counts: Counter[int]) -> float:
    """Return the mean of values given with their counts; NaN if there are none."""
    total = sum(counts.values())
    return sum(value * number for value, number in counts.items()) / total if total else math.nan


@dataclass
class FileCounts:
    """Counts for one file of negatives.

    Attributes:
        captions: number of captions in the captions file.
        rows: number of records, including those of unknown captions.
        without_caption: records whose caption is not in the captions file; counted nowhere else.
        missing_ids: the first few of their caption ids.
        rules: counts by rule, in the order of first appearance.
        rules_a_caption: captions by number of different rules with an accepted negative.
        negatives_a_caption: captions by number of accepted negatives.
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
        """Total number of accepted negatives."""
        return sum(rule.accepted for rule in self.rules.values())


def count_records(
    records: Iterable[NegativeRecord], captions: CaptionIndex, draws: Draws, *, where: Path
) -> FileCounts:
    """Read and count all records once.

    Args:
        records: the records, in any order.
        captions: the captions that they were made from.
        draws: how many rows to sample.
        where: the records' file, for messages.

    Raises:
        InputError: no record belongs to any caption, or there are more than 64 rules.
    """
    counts = FileCounts(captions=len(captions))
    covered: NDArray[np.uint64] = np.zeros(len(captions), dtype=np.uint64)
    negatives: NDArray[np.uint32] = np.zeros(len(captions), dtype=np.uint32)
    bits: dict[str, np.uint64] = {}
    foreign = ForeignCheck()
    for record in records:
        counts.rows += 1
        caption = captions.find(record.caption_id)
        if caption is None:
            counts.without_caption += 1
            if len(counts.missing_ids) < 3 and record.caption_id not in counts.missing_ids:
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
            if record.text is not None and record.kind != POSITIVE:
                foreign.add(record.text, record.rule, caption_id=record.caption_id, caption=caption.text)
    if counts.rows == counts.without_caption:
        raise InputError(
            f"{where}: no negative matches any caption. The first caption ids among the negatives: "
            f"{', '.join(map(repr, counts.missing_ids)) or 'none'}. Give the captions that the negatives were made "
            "from, with the same columns."
        )
    if foreign.example:
        log.warning(f"%s: {ForeignCheck.WARNING}", where, foreign.example)
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
