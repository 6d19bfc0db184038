"""What balancing did with a file of negatives, rule by rule, and the settings that decided it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from degla.errors import InputError
from degla.negatives.balance.told import Told
from degla.negatives.report.blind import FEWEST


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

    def plain(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


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
    """

    captions: int
    covered: tuple[int, int] = (0, 0)
    negatives: tuple[int, int] = (0, 0)
    before: Told | None = None
    after: Told | None = None
    rules: dict[str, RuleBalance] = field(default_factory=dict)

    def complaint(self, settings: BalanceSettings) -> str:
        """Why a file of this would hold no negative at all, in a sentence or two; "" where it holds some."""
        if any(state.stays for state in self.rules.values()):
            return ""
        if not self.rules:
            return "holds no accepted negative, so there is nothing to balance."
        if all(state.before is None for state in self.rules.values()):
            return (
                f"too few negatives to balance: no rule has {FEWEST} captions in each half of the images "
                f"({self.captions} captions). Balance a larger file, or train on this one as it is."
            )
        measured = {rule: state.after or state.before for rule, state in self.rules.items()}
        told = ", ".join(f"{rule} {100 * known.most:.0f} %" for rule, known in measured.items() if known)
        return (
            f"no rule stays: the texts alone tell {told}, and {100 * settings.told_rule:.0f} % are allowed "
            "(--told-rule). Make more candidates (degla negatives --per-rule 6), by other rules, or of more captions."
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
