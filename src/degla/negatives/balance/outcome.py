"""What balancing did with a file of negatives, rule by rule, the settings that decided it, and how far texts are told.

Pairs are told from their texts alone: classifiers learn on half of the images, and are asked about the others. Three
look at one thing each, a fourth at all: words (report/blind.py: words, pairs of words, runs of letters), length in
letters, likelihood. Each half is learned from once, and the two shares are averaged. Chance is one half.
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
from degla.negatives.report.terminal import add_row, new_table
from degla.pages.words import counted

Halves = tuple[Sequence[CaptionNegative], Sequence[CaptionNegative]]
"""Pairs of two halves of the images, which share none."""


@dataclass(frozen=True)
class Told:
    """Shares of pairs of images not learned from that each classifier tells.

    Attributes:
        n: pairs asked about.
        words: by words, pairs of words, runs of letters.
        length: by which text is shorter, or longer.
        likelihood: by which text is likelier, or less likely.
        all: by all of it together.
    """

    n: int
    words: float
    length: float
    likelihood: float
    all: float

    @property
    def most(self) -> float:
        """What the best classifier tells."""
        return max(self.words, self.length, self.likelihood, self.all)


def measure_told(halves: Halves) -> Told | None:
    """Ask all classifiers; None where a half has fewer than 40 pairs."""
    if min(map(len, halves)) < FEWEST:
        return None
    first, second = halves
    both = ((first, second), (second, first))
    return Told(
        sum(map(len, halves)),
        fmean(blind_across(one, other) for one, other in both),
        fmean(_direction([pair.longer for pair in one], [pair.longer for pair in other]) for one, other in both),
        fmean(_direction([pair.likelier for pair in one], [pair.likelier for pair in other]) for one, other in both),
        fmean(told_by_all(one, other) for one, other in both),
    )


def told_quickly(learned: Sequence[CaptionNegative], asked: Sequence[CaptionNegative]) -> float:
    """The share told by words and pairs of words alone: less sharp than with runs of letters, and much faster."""
    return blind_across(learned, asked, features=words_and_pairs)


def told_by_all(learned: Sequence[CaptionNegative], asked: Sequence[CaptionNegative]) -> float:
    """The share of pairs that a classifier of words, length and likelihood tells."""
    cues = np.array([(pair.longer / 10, pair.likelier) for pair in (*learned, *asked)])
    cues = np.hstack([np.clip(cues, -1, 1), np.sign(cues)])
    return blind_across(learned, asked, extra=cues.tolist())


def _direction(learned: Sequence[float], asked: Sequence[float]) -> float:
    """The share told by one number, whose better direction is learned; ties one half."""
    way = 1 if worth(learned).mean() >= 0.5 else -1
    return float(worth([way * value for value in asked]).mean())


@dataclass(frozen=True)
class BalanceSettings:
    """What decides which negatives stay, with the file and the captions.

    Attributes:
        seed: of all draws.
        per_rule: accepted negatives of one rule for one caption, at most.
        told: share of a rule's pairs that the classifiers may tell while its reward is chosen.
        told_rule: share above which a rule is left out, and where it cannot be tested; 1 keeps every rule.
    """

    seed: int = 0
    per_rule: int = 1
    told: float = 0.57
    told_rule: float = 0.65

    def __post_init__(self) -> None:
        if self.per_rule < 1:
            raise InputError(f"per_rule ({self.per_rule}) must be 1 or more.")
        if not 0.5 < self.told <= self.told_rule <= 1:
            raise InputError(
                f"told ({self.told}) and told_rule ({self.told_rule}) must be over 0.5 and at most 1, told the smaller."
            )


@dataclass
class RuleBalance:
    """What was done with one rule.

    Attributes:
        captions: captions with a candidate.
        kept: of them, captions that keep a negative.
        candidates: accepted rows of the file.
        reward: what a negative was worth.
        before: how far first candidates are told; None where there are too few.
        after: how far what was chosen is told.
        stays: whether the rule is kept.
    """

    captions: int = 0
    kept: int = 0
    candidates: int = 0
    reward: float = 0.0
    before: Told | None = None
    after: Told | None = None
    stays: bool = True

    @property
    def reason(self) -> str:
        """Why none of its negatives stays; "" where some do."""
        return "" if self.stays else "too_few" if self.before is None else "told_by_text"


@dataclass
class Balance:
    """What was done with a file.

    Attributes:
        captions: captions of the captions file.
        covered: captions with a candidate of any rule, and with a negative that stays.
        negatives: accepted rows before, one a caption and rule, and after.
        before: how far first candidates of all rules together are told.
        after: how far what is kept is told.
        rules: each rule.
        unread: candidates balanced without their likelihood, since the model cannot read them, or their caption, to
            the end.
    """

    captions: int
    covered: tuple[int, int] = (0, 0)
    negatives: tuple[int, int] = (0, 0)
    before: Told | None = None
    after: Told | None = None
    rules: dict[str, RuleBalance] = field(default_factory=dict)
    unread: int = 0

    def complaint(self, settings: BalanceSettings) -> str:
        """Why a file of this would hold no negative at all, in a sentence or two; "" where it holds some."""
        if any(state.stays for state in self.rules.values()):
            return ""
        if not self.rules:
            return "holds no accepted negative, so there is nothing to balance."
        if all(state.before is None for state in self.rules.values()):
            return (
                f"too few negatives to balance: no rule has {FEWEST} captions in each half of the images "
                f"({counted(self.captions, 'caption')}). Balance a larger file, or train on this one as it is."
            )
        measured = {rule: state.after or state.before for rule, state in self.rules.items()}
        told = ", ".join(f"{rule} {100 * known.most:.0f} %" for rule, known in measured.items() if known)
        return (
            f"no rule stays: the texts alone tell {told}, and {100 * settings.told_rule:.0f} % are allowed "
            "(--told-rule). Make more candidates (degla negatives --per-rule 6), by other rules, or of more captions; "
            "or keep every rule, as a small file may want it (--told-rule 1)."
        )

    def plain(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def describe(settings: BalanceSettings, source: Mapping[str, str], likelihood: str, report: Balance) -> dict[str, Any]:
    """What the manifest of a balanced file says."""
    return {**source, **asdict(settings), "likelihood": likelihood, "kept": {
        rule: {"captions": state.captions, "kept": state.kept, "stays": state.stays, "reward": state.reward}
        for rule, state in report.rules.items()
    }}  # fmt: skip


def render(report: Balance) -> Group:
    """What balancing did, for a terminal of eighty columns: one line a rule, then all of them, then what it costs."""
    headings = ("captions %", "words", "length", "likelihood", "all")
    table = new_table("Told from the texts alone, %, before and after", "rule", headings, last="")
    for rule, state in report.rules.items():
        share = f"{_percent(state.captions, report.captions)} {_percent(state.kept, report.captions)}"
        fate = {"": "", "too_few": "too few"}.get(state.reason, "left out")
        add_row(table, rule, share, *_cells(state.before, state.after), fate)
    covered = " ".join(_percent(number, report.captions) for number in report.covered)
    add_row(table, "together", covered, *_cells(report.before, report.after), "")
    before, after = report.negatives
    said = (
        f"{counted(report.captions, 'caption')}: negatives, one a caption and rule, {before:,} before and "
        f"{after:,} after; "
        "captions %: with a candidate, and with one that stays. Classifiers learn on one half of the images and are "
        "asked about the other; chance is 50.\n"
    )
    if report.unread:
        said += (
            f"{counted(report.unread, 'candidate')}: no likelihood counts, since the language model cannot read one of "
            "the two texts to its end.\n"
        )
    return Group(table, Text(said))


def _cells(before: Told | None, after: Told | None) -> list[str]:
    names = ("words", "length", "likelihood", "all")
    return [
        " ".join("-" if told is None else f"{100 * getattr(told, name):.0f}" for told in (before, after))
        for name in names
    ]


def _percent(number: int, total: int) -> str:
    return f"{100 * number / total:.1f}" if total else "-"
