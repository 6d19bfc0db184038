"""Examine one file of negatives: its counts, the blind test, likelihoods, and how it was made.

Sentences explain what gives the negatives away without the image (words, length, likelihood) and what to do about it.
A language model that was not trained on these texts can compare the likelihoods of captions and negatives.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from degla.negatives.files.caption_index import CaptionIndex
from degla.negatives.files.pack import read_manifest, read_outcomes
from degla.negatives.report.blind import Blind, CaptionNegative, likely_pair, ngram_likelihoods, solve_blind, worth
from degla.negatives.report.counts import Draws, FileCounts, RuleCounts, count_records, mean
from degla.negatives.run.summary import Outcomes
from degla.records import NegativeRecord
from degla.statistics.proportions import Proportion, clustered, wilson

FREQUENT: Final = 15
"""Number of most frequent words listed."""

MOST_PAIRS: Final = 500
"""Maximum pairs per rule; a small model on one core judges about a hundred per second."""

_AT_ONCE: Final = 16
"""Pairs per model batch."""


@dataclass
class Examination:
    """The results for one file of negatives.

    Attributes:
        label: name of the file in the report.
        name: the file's name.
        counts: counts of its rows.
        blind: blind test by rule; rules with too few negatives are missing.
        blind_all: blind test trained and evaluated on all rules together.
        likelier: share of negatives less likely than their caption, by rule; empty if not requested.
        giveaways: what gives each rule's negatives away, and what to do about it.
        judge: the language model behind `likelier`.
        manifest: manifest of the run that made the file.
        outcomes: outcomes of the requests to the language model.
    """

    label: str
    name: str
    counts: FileCounts
    blind: dict[str, Blind] = field(default_factory=dict)
    blind_all: Blind | None = None
    likelier: dict[str, Proportion] = field(default_factory=dict)
    giveaways: dict[str, Giveaways] = field(default_factory=dict)
    judge: str = ""
    manifest: dict[str, Any] | None = None
    outcomes: Outcomes | None = None

    @property
    def rules(self) -> list[RuleCounts]:
        """Counts by rule, in the order of the run or of the rows."""
        order = dict.fromkeys([*((self.manifest or {}).get("rules") or ()), *self.counts.rules])
        return [self.counts.rules[name] for name in order if name in self.counts.rules]

    @property
    def covered(self) -> Proportion:
        """Share of captions with at least one accepted negative."""
        return wilson(self.counts.captions - self.counts.rules_a_caption[0], self.counts.captions)

    def plain(self) -> dict[str, Any]:
        """Return all numbers as JSON values; shares from 0 to 1, lengths in words."""
        counts = self.counts
        return {
            "label": self.label,
            "file": self.name,
            "captions": counts.captions,
            "rows": counts.rows,
            "rows_of_unknown_captions": counts.without_caption,
            "accepted": counts.accepted,
            "captions_covered": self.covered.plain(),
            "rules_a_caption": _ordered(counts.rules_a_caption),
            "mean_rules_a_caption": _number(mean(counts.rules_a_caption)),
            "mean_negatives_a_caption": _number(mean(counts.negatives_a_caption)),
            "blind_all": self.blind_all.plain() if self.blind_all else None,
            "judge": self.judge or None,
            "rules": [self._rule_data(rule) for rule in self.rules],
            "outcomes": self.outcomes.plain() if self.outcomes else None,
            "manifest": self.manifest,
        }

    def _rule_data(self, rule: RuleCounts) -> dict[str, Any]:
        blind, likelier = self.blind.get(rule.name), self.likelier.get(rule.name)
        return {
            "rule": rule.name,
            "kind": rule.kind,
            "rows": rule.rows,
            "proposed": rule.proposed,
            "accepted": rule.accepted,
            "accepted_of_proposed": wilson(rule.accepted, rule.proposed).plain(),
            "captions_covered": wilson(rule.covered, self.counts.captions).plain(),
            "reasons": dict(rule.reasons.most_common()),
            "sources": [
                {"source": source, "form": form, "accepted": n} for (source, form), n in sorted(rule.sources.items())
            ],
            "caption_lengths": _ordered(rule.caption_lengths),
            "negative_lengths": _ordered(rule.lengths),
            "edit_distances": _ordered(rule.distances),
            "mean_edit_distance": _number(mean(rule.distances)),
            "words_put_in": rule.put_in.total() + rule.more_words,
            "different_words_put_in": len(rule.put_in),
            "entropy_bits": rule.entropy,
            "most_frequent_words": [
                {"word": word, "share": share} for word, share in frequent(rule.put_in, more=rule.more_words)
            ],
            "blind": blind.plain() if blind else None,
            "gives_away": self.giveaways[rule.name].plain() if rule.name in self.giveaways else None,
            "caption_likelier": likelier.plain() if likelier else None,
        }


def all_rules(files: Sequence[Examination]) -> list[str]:
    """Return the names of all rules, in order of first appearance."""
    return list(dict.fromkeys(rule.name for file in files for rule in file.rules))


class Judge:
    """Compares mean log-likelihoods per token, in nats, of texts without a prompt.

    Attributes:
        name: name of the language model.
    """

    def __init__(self, model: str) -> None:
        """Load the model; see `likelihood.open_likelihood`."""
        from degla.negatives.llm.likelihood import open_likelihood

        self._likelihood, self.name = open_likelihood(model)

    def __call__(self, pairs: Sequence[CaptionNegative]) -> Proportion:
        """Return the share of pairs whose caption is likelier, ties counted as one half, with a bootstrap over images.

        Uses at most 500 pairs; pairs with a text that exceeds the model's context are skipped.
        """
        leads: list[float] = []
        images: list[str] = []
        sample = pairs[:MOST_PAIRS]
        for start in range(0, len(sample), _AT_ONCE):
            part = sample[start : start + _AT_ONCE]
            scores = self.score([text for pair in part for text in (pair.caption, pair.negative)])
            for pair, caption, negative in zip(part, scores[::2], scores[1::2], strict=True):
                if not math.isnan(caption - negative):
                    leads.append(caption - negative)
                    images.append(pair.image_id)
        return clustered(worth(leads), images)

    def score(self, texts: Sequence[str]) -> list[float]:
        """Return each text's mean log-likelihood per token (nats); NaN if it is empty or exceeds the context."""
        encoded = [self._likelihood.encode(text) for text in texts]
        return self._likelihood.means([tokens if len(tokens) < self._likelihood.context else () for tokens in encoded])


def examine_file(
    path: Path,
    records: Iterable[NegativeRecord],
    captions: CaptionIndex,
    *,
    label: str,
    draws: Draws,
    judge: Judge | None = None,
) -> Examination:
    """Read a file of negatives once and test the negatives sampled from it.

    Args:
        path: the file; its manifest and journal are looked up next to it.
        records: its rows.
        captions: the captions that the negatives were made from.
        label: name of the file in the report.
        draws: negatives per rule to read, and to use in the blind test and likelihood comparison; 0 skips these.
        judge: model that compares likelihoods.

    Raises:
        InputError: see `counts.count_records` and `provenance`.
    """
    examination = Examination(
        label,
        path.name,
        count_records(records, captions, draws, where=path),
        judge=judge.name if judge else "",
        manifest=read_manifest(path),
        outcomes=read_outcomes(path),
    )
    together: list[CaptionNegative] = []
    likelihoods = ngram_likelihoods(captions) if draws.tested else ()
    halves = "balanced" in (examination.manifest or {})
    for name, rule in examination.counts.rules.items():
        pairs = [likely_pair(each.caption, each.negative, likelihoods) for each in rule.to_test.items]
        together += pairs
        if (blind := solve_blind(pairs, seed=draws.seed, halves=halves)) is not None:
            examination.blind[name] = blind
        if pairs:
            examination.giveaways[name] = explain(name, pairs, blind)
        if pairs and judge is not None:
            examination.likelier[name] = judge(pairs)
    if len(examination.counts.rules) > 1:
        examination.blind_all = solve_blind(together, seed=draws.seed, halves=halves)
    return examination


def frequent(counts: Counter[str], *, more: int = 0, number: int = FREQUENT) -> list[tuple[str, float]]:
    """Return the most frequent words and their shares of all inserted words; ties in alphabetical order."""
    total = counts.total() + more
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [(word, times / total) for word, times in ordered[:number]]


def _ordered(counts: Counter[int]) -> dict[str, int]:
    return {str(value): times for value, times in sorted(counts.items())}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


_GIVEAWAY: Final = 0.65
"""Accuracy of one cue above which it is reported, and `degla negatives balance` would drop the rule."""

_BY_FORM: Final = 0.95
"""Accuracy by length above which no candidate of the rule is assumed to have the opposite length."""

_MIRRORS: Final = {
    "add_attribute": "sibling_attribute",
    "add_object": "sibling_attribute",
    "negation": "deny_other",
    "replace_nouns": "replace_by_hypernym replace_by_synonym",
    "replace_adjectives": "replace_by_synonym",
    "replace_relation": "replace_by_synonym",
    "reshuffle_order": "exchange_conjuncts front_place",
    "swap_nouns": "passive exchange_conjuncts",
    "swap_phrases": "passive exchange_conjuncts",
    "swap_adjectives": "exchange_conjuncts",
}
"""Rules for positives (true texts) that look like each rule's negatives."""


@dataclass(frozen=True)
class Giveaways:
    """How well single cues identify one rule's negatives.

    Attributes:
        shorter: share of pairs whose caption is the shorter text; ties count as one half.
        likelier: share of pairs whose caption is likelier by n-grams of other images' captions; ties count as one half.
        sentences: what gives the negatives away and what to do about it; one sentence if nothing does.
    """

    shorter: Proportion
    likelier: Proportion
    sentences: tuple[str, ...]

    def plain(self) -> dict[str, object]:
        """Return the shares and sentences as JSON values."""
        return {
            "caption_shorter": self.shorter.plain(),
            "caption_likelier_by_ngrams": self.likelier.plain(),
            "explained": list(self.sentences),
        }


def explain(rule: str, pairs: Sequence[CaptionNegative], blind: Blind | None) -> Giveaways:
    """Explain what gives a rule's negatives away.

    Args:
        rule: name of the rule.
        pairs: the rule's pairs with their likelihoods; at least one.
        blind: result of the blind test; None if there are too few pairs.
    """
    images = [pair.image_id for pair in pairs]
    shorter = clustered(worth([-pair.longer for pair in pairs]), images)
    likelier = clustered(worth([pair.likelier for pair in pairs]), images)
    by_length, by_likelihood = (_telling(proportion) for proportion in (shorter, likelier))
    sentences = []
    if by_length > _GIVEAWAY:
        side = "shorter" if shorter.share > _GIVEAWAY else "longer"
        sentences.append(f"Length: the caption is the {side} text in {_percent(by_length)} of pairs.")
    if blind is not None and blind.accuracy.share > _GIVEAWAY:
        cues = ", ".join(cue for cue in blind.negative_cues if cue != "more words")
        mainly = f", mainly by: {cues}" if cues else ""  # There may be parts of words only.
        sentences.append(f"Words: they identify {_percent(blind.accuracy.share)} of pairs{mainly}.")
    if by_likelihood > _GIVEAWAY:
        side = "likelier" if likelier.share > _GIVEAWAY else "less likely"
        sentences.append(f"Likelihood: the caption is {side} in {_percent(by_likelihood)} of pairs.")
    alike = f" together with similar true texts (--positives --rules {_MIRRORS[rule]})" if rule in _MIRRORS else ""
    if not sentences and blind is None:
        sentences.append(
            f"Neither length nor likelihood reliably identifies over {_percent(_GIVEAWAY)} of pairs; "
            "words were not tested."
        )
    elif not sentences:
        sentences.append(f"No cue identifies more than {_percent(_GIVEAWAY)} of pairs.")
    elif by_length > _BY_FORM:
        remedy = f"drop the rule, or train on it{alike}" if alike else "drop the rule"
        sentences.append(f"The rule's form gives every candidate away: {remedy}.")
    else:
        sentences.append(
            "Generate several candidates (--per-rule 6, words as frequent as in captions) and select from them with "
            "degla negatives balance" + (f"; or train on them{alike}." if alike else ".")
        )
    return Giveaways(shorter, likelier, tuple(sentences))


def _telling(proportion: Proportion) -> float:
    """Return the accuracy of always choosing the better side; one half if it does not differ reliably from chance."""
    return max(proportion.share, 1 - proportion.share) if proportion.low > 0.5 or proportion.high < 0.5 else 0.5


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
