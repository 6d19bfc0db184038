"""What a run over captions made: counts of every rule and reason, coverage, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group
from rich.table import Table

from degla.records import NegativeRecord


@dataclass
class Summary:
    """Counts over all rows of a file of negatives, those of earlier runs included.

    Attributes:
        rules: in the order of the rows.
        captions: captions in all.
        accepted: accepted negatives, by rule.
        reasons: refused rows, by (rule, reason).
        covered: captions with at least one accepted negative, by rule.
        coverage: accepted negatives, by caption id; ids without one are missing.
        skipped: captions that no rule could use ("not_english", ...), by reason.
        seconds: wall time of the last run.
    """

    rules: tuple[str, ...]
    captions: int
    accepted: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    covered: Counter[str] = field(default_factory=Counter)
    coverage: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, rows: Sequence[NegativeRecord]) -> None:
        """Count rows; all rows of one caption and rule come in one call."""
        covered = set()
        for row in rows:
            if row.accepted:
                self.accepted[row.rule] += 1
                self.coverage[row.caption_id] += 1
                covered.add((row.caption_id, row.rule))
            else:
                self.reasons[row.rule, row.reason] += 1
                if row.reason in _SKIPPING and row.rule == self.rules[0]:
                    self.skipped[row.reason] += 1
        self.covered.update(rule for _, rule in covered)

    @property
    def share_covered(self) -> float:
        """Share of the captions that have at least one negative."""
        return len(self.coverage) / self.captions if self.captions else 0.0

    @property
    def mean(self) -> float:
        """Accepted negatives a caption."""
        return sum(self.accepted.values()) / self.captions if self.captions else 0.0

    def plain(self) -> dict[str, object]:
        """The counts as JSON values."""
        return {
            "captions": self.captions,
            "accepted": dict(self.accepted),
            "refused": {f"{rule}: {reason}": count for (rule, reason), count in sorted(self.reasons.items())},
            "skipped": dict(self.skipped),
            "share_covered": self.share_covered,
            "negatives_a_caption": self.mean,
            "seconds": self.seconds,
        }

    def render(self) -> Group:
        """A table for a terminal: one line a rule, then reasons, then the totals."""
        table = Table(title="Hard negatives", title_justify="left")
        for heading in ("rule", "accepted", "captions covered", "refused or none, by reason"):
            table.add_column(heading, justify="left" if heading[0] == "r" else "right")
        for rule in self.rules:
            reasons = {reason: count for (name, reason), count in self.reasons.items() if name == rule}
            listed = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
            share = self.covered[rule] / self.captions if self.captions else 0.0
            table.add_row(rule, f"{self.accepted[rule]:,}", f"{share:.1%}", listed or "-")
        lines = [
            f"{self.captions:,} captions, {self.share_covered:.1%} with at least one negative, "
            f"{self.mean:.2f} negatives a caption, {self.seconds:.1f} s"
        ]
        if self.skipped:
            lines.append(
                "skipped captions: "
                + ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.skipped.items()))
            )
        return Group(table, *lines)


_SKIPPING = frozenset({"empty_caption", "long_caption", "not_english"})
