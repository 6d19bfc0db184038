"""Everything that is known of one file of negatives: its counts, the blind test, likelihoods, and how it was made."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from degla.negatives.files.caption_index import CaptionIndex
from degla.negatives.files.pack import read_manifest, read_outcomes
from degla.negatives.report.blind import Blind, CaptionNegative, solve_blind
from degla.negatives.report.counts import Drawn, FileCounts, RuleCounts, count, entropy, mean
from degla.negatives.run.summary import Outcomes
from degla.records import NegativeRecord
from degla.statistics.proportions import Proportion, wilson

FREQUENT: Final = 15
"""Most frequent words that are named."""

Likelier = Callable[[Sequence[Drawn]], Proportion]
"""The share of pairs in which a language model finds the caption likelier than the negative."""


@dataclass
class Examination:
    """One file of negatives.

    Attributes:
        label: what it is called in the report.
        name: the file's name.
        counts: of its rows.
        blind: how far the text alone gives the negatives of a rule away; rules with too few are missing.
        blind_all: the same, learned and tested on all rules together.
        likelier: share of negatives less likely than their caption, by rule; empty where it was not asked for.
        judge: the language model behind `likelier`.
        manifest: of the run that made it.
        outcomes: what the language model answered.
    """

    label: str
    name: str
    counts: FileCounts
    blind: dict[str, Blind] = field(default_factory=dict)
    blind_all: Blind | None = None
    likelier: dict[str, Proportion] = field(default_factory=dict)
    judge: str = ""
    manifest: dict[str, Any] | None = None
    outcomes: Outcomes | None = None

    @property
    def rules(self) -> list[RuleCounts]:
        """In the order of the run, or of the rows."""
        order = list((self.manifest or {}).get("rules") or ())
        known = [name for name in order if name in self.counts.rules]
        rest = [name for name in self.counts.rules if name not in known]
        return [self.counts.rules[name] for name in [*known, *rest]]

    @property
    def covered(self) -> Proportion:
        """Captions with at least one accepted negative."""
        return wilson(self.counts.captions - self.counts.rules_a_caption[0], self.counts.captions)


def rule_names(files: Sequence[Examination]) -> list[str]:
    """All rules, in the order of the first file that has them."""
    return list(dict.fromkeys(rule.name for file in files for rule in file.rules))


def examine(
    path: Path,
    records: Iterable[NegativeRecord],
    captions: CaptionIndex,
    *,
    label: str,
    samples: int = 8,
    tested: int = 2_000,
    seed: int = 0,
    likelier: Likelier | None = None,
    judge: str = "",
) -> Examination:
    """Read a file of negatives once and test what was drawn from it.

    Args:
        path: the file; its manifest and journal are looked for beside it.
        records: its rows.
        captions: what the negatives were made from.
        label: what the file is called in the report.
        samples: negatives a rule to read.
        tested: negatives a rule in the blind test, at most; 0 leaves the test out.
        seed: of all draws.
        likelier: compares likelihoods; on at most `tested` pairs a rule.
        judge: name of the language model behind it.

    Raises:
        InputError: see `counts.count` and `provenance`.
    """
    found = Examination(
        label,
        path.name,
        count(records, captions, samples=samples, tested=tested, seed=seed),
        judge=judge,
        manifest=read_manifest(path),
        outcomes=read_outcomes(path),
    )
    together: list[CaptionNegative] = []
    for name, rule in found.counts.rules.items():
        drawn = rule.to_test.kept
        pairs = [CaptionNegative(each.caption.text, each.negative, each.caption.image_id) for each in drawn]
        together += pairs
        if (blind := solve_blind(pairs, seed=seed)) is not None:
            found.blind[name] = blind
        if likelier is not None and drawn:
            found.likelier[name] = likelier(drawn)
    if len(found.counts.rules) > 1:
        found.blind_all = solve_blind(together, seed=seed)
    return found


def as_data(found: Examination) -> dict[str, Any]:
    """All numbers as JSON values; shares from 0 to 1, lengths in words."""
    counts = found.counts
    return {
        "label": found.label,
        "file": found.name,
        "captions": counts.captions,
        "rows": counts.rows,
        "rows_of_unknown_captions": counts.strangers,
        "accepted": counts.accepted,
        "captions_covered": found.covered.plain(),
        "rules_a_caption": {str(number): times for number, times in sorted(counts.rules_a_caption.items())},
        "mean_rules_a_caption": _number(mean(counts.rules_a_caption)),
        "mean_negatives_a_caption": _number(mean(counts.negatives_a_caption)),
        "blind_all": found.blind_all.plain() if found.blind_all else None,
        "judge": found.judge or None,
        "rules": [_rule_data(rule, found) for rule in found.rules],
        "outcomes": found.outcomes.plain() if found.outcomes else None,
        "manifest": found.manifest,
    }


def _rule_data(rule: RuleCounts, found: Examination) -> dict[str, Any]:
    blind, likelier = found.blind.get(rule.name), found.likelier.get(rule.name)
    return {
        "rule": rule.name,
        "kind": rule.kind,
        "rows": rule.rows,
        "proposed": rule.proposed,
        "accepted": rule.accepted,
        "accepted_of_proposed": wilson(rule.accepted, rule.proposed).plain(),
        "captions_covered": wilson(rule.covered, found.counts.captions).plain(),
        "reasons": dict(rule.reasons.most_common()),
        "sources": [
            {"source": source, "form": form, "accepted": n} for (source, form), n in sorted(rule.sources.items())
        ],
        "caption_lengths": _lengths(rule.caption_lengths),
        "negative_lengths": _lengths(rule.lengths),
        "edit_distances": _lengths(rule.distances),
        "mean_edit_distance": _number(mean(rule.distances)),
        "words_put_in": sum(rule.put_in.values()) + rule.more_words,
        "different_words_put_in": len(rule.put_in),
        "entropy_bits": entropy(rule.put_in),
        "most_frequent_words": [
            {"word": word, "share": share} for word, share in frequent(rule.put_in, more=rule.more_words)
        ],
        "blind": blind.plain() if blind else None,
        "caption_likelier": likelier.plain() if likelier else None,
    }


def frequent(counts: Counter[str], *, more: int = 0, number: int = FREQUENT) -> list[tuple[str, float]]:
    """The most frequent words and their share of all that were put in; of equally frequent ones the first in order."""
    total = sum(counts.values()) + more
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [(word, times / total) for word, times in ordered[:number]]


def _lengths(counts: Counter[int]) -> dict[str, int]:
    return {str(value): times for value, times in sorted(counts.items())}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
