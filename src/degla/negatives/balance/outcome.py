"""The outcome of balancing a file of negatives by rule, its settings, and the accuracy of text-only classifiers.

Classifiers are trained on the texts of half of the images and tested on the other half. Three use one cue each, a
fourth all of them: words (report/blind.py: words, word pairs, character n-grams), length in letters, likelihood. Each
half is used for training once, and the two accuracies are averaged. Chance is one half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Group
from rich.text import Text

from degla.errors import InputError
from degla.negatives.report.blind import FEWEST, CaptionNegative, blind_across, words_and_pairs, worth
from degla.pages.table import Column, Table
from degla.pages.words import counted

Halves = tuple[Sequence[CaptionNegative], Sequence[CaptionNegative]]
"""The pairs of two disjoint halves of the images."""


@dataclass(frozen=True)
class TextAccuracy:
    """Accuracy of each classifier on pairs of held-out images.

    Attributes:
        n: number of test pairs.
        words: accuracy by words, word pairs and character n-grams.
        length: accuracy by which text is shorter, or longer.
        likelihood: accuracy by which text is likelier, or less likely.
        all: accuracy by all cues together.
    """

    n: int
    words: float
    length: float
    likelihood: float
    all: float

    @property
    def most(self) -> float:
        """Accuracy of the best classifier."""
        return max(self.words, self.length, self.likelihood, self.all)


def measure_text_accuracy(halves: Halves) -> TextAccuracy | None:
    """Train and test all classifiers; None if a half has fewer than 40 pairs."""
    if min(map(len, halves)) < FEWEST:
        return None
    first, second = halves
    both = ((first, second), (second, first))
    return TextAccuracy(
        sum(map(len, halves)),
        fmean(blind_across(one, other) for one, other in both),
        fmean(_direction([pair.longer for pair in one], [pair.longer for pair in other]) for one, other in both),
        fmean(_direction([pair.likelier for pair in one], [pair.likelier for pair in other]) for one, other in both),
        fmean(accuracy_by_all(one, other) for one, other in both),
    )


def accuracy_by_words(train: Sequence[CaptionNegative], test: Sequence[CaptionNegative]) -> float:
    """Return the accuracy by words and word pairs only: less accurate than with character n-grams, but much faster."""
    return blind_across(train, test, features=words_and_pairs)


def accuracy_by_all(train: Sequence[CaptionNegative], test: Sequence[CaptionNegative]) -> float:
    """Return the accuracy of a classifier that uses words, length and likelihood."""
    cues = np.array([(pair.longer / 10, pair.likelier) for pair in (*train, *test)])
    cues = np.hstack([np.clip(cues, -1, 1), np.sign(cues)])
    return blind_across(train, test, extra=cues.tolist())


def _direction(train: Sequence[float], test: Sequence[float]) -> float:
    """Return the accuracy by one number, whose better direction is learned; ties count as one half."""
    way = 1 if worth(train).mean() >= 0.5 else -1
    return float(worth([way * value for value in test]).mean())


@dataclass(frozen=True)
class BalanceSettings:
    """Settings that, with the file and the captions, determine which negatives are kept.

    Attributes:
        seed: seed of all draws.
        per_rule: maximum accepted negatives per rule and caption.
        text_only: maximum text-only accuracy on a rule's pairs while its reward is chosen.
        text_only_rule: text-only accuracy above which a rule is dropped, as is a rule that cannot be tested; 1 keeps
            every rule.
    """

    seed: int = 0
    per_rule: int = 1
    text_only: float = 0.57
    text_only_rule: float = 0.65

    def __post_init__(self) -> None:
        if self.per_rule < 1:
            raise InputError(f"per_rule ({self.per_rule}) must be 1 or more.")
        if not 0.5 < self.text_only <= self.text_only_rule <= 1:
            raise InputError(
                f"text_only ({self.text_only}) and text_only_rule ({self.text_only_rule}) must be above 0.5 and at "
                "most 1, with text_only <= text_only_rule."
            )


@dataclass
class RuleBalance:
    """The outcome for one rule.

    Attributes:
        captions: captions with a candidate.
        kept: captions that keep a negative.
        candidates: accepted rows of the file.
        reward: the reward used for keeping a negative.
        before: text-only accuracy on the first candidates; None if there are too few.
        after: text-only accuracy on the chosen negatives.
        stays: whether the rule is kept.
    """

    captions: int = 0
    kept: int = 0
    candidates: int = 0
    reward: float = 0.0
    before: TextAccuracy | None = None
    after: TextAccuracy | None = None
    stays: bool = True

    @property
    def reason(self) -> str:
        """Why none of the rule's negatives is kept; "" if some are."""
        if self.stays:
            return ""
        # Several negatives of a caption may be enough to test, where one of each is not.
        return "too_few" if self.before is None and self.after is None else "text_solvable"


@dataclass
class Balance:
    """The outcome for a file.

    Attributes:
        captions: number of captions in the captions file.
        covered: captions with a candidate of any rule, and captions with a kept negative.
        negatives: accepted rows before (counting one per caption and rule) and after.
        before: text-only accuracy on the first candidates of all rules together.
        after: text-only accuracy on the kept negatives.
        rules: outcome of each rule.
        unread: candidates balanced without likelihood, because they or their caption exceed the model's context.
    """

    captions: int
    covered: tuple[int, int] = (0, 0)
    negatives: tuple[int, int] = (0, 0)
    before: TextAccuracy | None = None
    after: TextAccuracy | None = None
    rules: dict[str, RuleBalance] = field(default_factory=dict)
    unread: int = 0

    def complaint(self, settings: BalanceSettings) -> str:
        """Explain why no negative would be kept; "" if some are."""
        if any(state.stays for state in self.rules.values()):
            return ""
        if not self.rules:
            return "has no accepted negatives, so there is nothing to balance."
        if all(state.reason == "too_few" for state in self.rules.values()):
            return (
                f"too few negatives to balance: no rule has {FEWEST} captions in each half of the images "
                f"({counted(self.captions, 'caption')} in total). Balance a larger file, or keep every rule with "
                "--text-only-rule 1."
            )
        by_rule = {rule: state.after or state.before for rule, state in self.rules.items()}
        accuracies = ", ".join(f"{rule} {100 * accuracy.most:.0f} %" for rule, accuracy in by_rule.items() if accuracy)
        return (
            f"no rule can be kept: text-only classifiers reach {accuracies}, but --text-only-rule allows at most "
            f"{100 * settings.text_only_rule:.0f} %. Generate more candidates (degla negatives --per-rule 6), use "
            "other rules or more captions, or keep every rule with --text-only-rule 1, for example for a small file."
        )

    def plain(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        return asdict(self)


def describe(settings: BalanceSettings, source: Mapping[str, str], likelihood: str, report: Balance) -> dict[str, Any]:
    """Return the manifest entry of a balanced file."""
    return {**source, **asdict(settings), "likelihood": likelihood, "kept": {
        rule: {"captions": state.captions, "kept": state.kept, "stays": state.stays, "reward": state.reward}
        for rule, state in report.rules.items()
    }}  # fmt: skip


def render(report: Balance) -> Group:
    """Render the outcome for an 80-column terminal: one line per rule, a total and an explanation."""
    headings = ("rule", "captions %", "words", "length", "likelihood", "all")
    rows = []
    for rule, state in report.rules.items():
        share = f"{_percent(state.captions, report.captions)} {_percent(state.kept, report.captions)}"
        fate = {"": "", "too_few": "too few"}.get(state.reason, "dropped")
        rows.append([rule, share, *_cells(state.before, state.after), fate])
    shares = " ".join(_percent(number, report.captions) for number in report.covered)
    rows.append(["together", shares, *_cells(report.before, report.after), ""])
    table = Table([*map(Column, headings), Column("", align="left")], rows).terminal(
        title="Text-only accuracy, %, before and after", slim=True
    )
    before, after = report.negatives
    explanation = (
        f"{counted(report.captions, 'caption')}; negatives: {before:,} before (one per caption and rule), "
        f"{after:,} after. "
        "captions %: with a candidate, and with a kept negative. Classifiers are trained on one half of the images and "
        "tested on the other; chance is 50.\n"
    )
    if not all(state.stays for state in report.rules.values()):
        explanation += (
            "dropped: the whole rule, as its texts alone give its negatives away. too few: dropped, as it has "
            f"fewer than {FEWEST} captions in a half.\n"
        )
    if report.unread:
        explanation += (
            f"{counted(report.unread, 'candidate')} balanced without likelihood, because a text exceeds the language "
            "model's context.\n"
        )
    return Group(table, Text(explanation))


def _cells(before: TextAccuracy | None, after: TextAccuracy | None) -> list[str]:
    names = ("words", "length", "likelihood", "all")
    return [
        " ".join("-" if accuracy is None else f"{100 * getattr(accuracy, name):.0f}" for accuracy in (before, after))
        for name in names
    ]


def _percent(number: int, total: int) -> str:
    return f"{100 * number / total:.1f}" if total else "-"
