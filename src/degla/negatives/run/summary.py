"""Summary of a run over captions: counts by rule and reason, coverage, replies of the language model, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Group
from rich.text import Text

from degla.negatives.llm import Form, Reply
from degla.pages.table import Column, Table
from degla.pages.words import counted
from degla.records import NegativeRecord
from degla.shelf import POSITIVES

_SKIPPING: Final = frozenset({"empty_caption", "long_caption", "not_english", "over_context"})
_NAMED: Final = 5
"""Number of skipped captions named for each reason; the file has all of them."""


@dataclass
class Outcomes:
    """Counts of a language model's replies.

    Attributes:
        outcomes: requests by (rule, form, outcome); an outcome is one of `llm.ReplyStatus`.
        repaired: answers that were not in the requested format and were repaired.
        attempts: requests sent, including retries.
        counts: other counts, for example "retry: 429".
    """

    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    repaired: int = 0
    attempts: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, form: Form, reply: Reply) -> None:
        """Count one reply to a request of that form."""
        self.outcomes[reply.key.rule, form, reply.outcome] += 1
        self.attempts += reply.attempts
        self.repaired += reply.repaired
        self.counts.update(reply.counts)

    @property
    def requests(self) -> int:
        """Total number of requests."""
        return self.outcomes.total()

    def by_outcome(self, rule: str | None = None) -> Counter[str]:
        """Return the requests by outcome, of one rule or of all, in the order of first appearance."""
        totals: Counter[str] = Counter()
        for (name, _, outcome), number in self.outcomes.items():
            if rule in (None, name):
                totals[outcome] += number
        return totals

    def by_form(self) -> Counter[str]:
        """Return the requests by form, in the order of first appearance."""
        totals: Counter[str] = Counter()
        for (_, form, _), number in self.outcomes.items():
            totals[form] += number
        return totals

    def plain(self) -> dict[str, Any]:
        """Return JSON values that `from_plain` reads."""
        return {
            "outcomes": [[*key, number] for key, number in sorted(self.outcomes.items())],
            "repaired": self.repaired,
            "attempts": self.attempts,
            "counts": dict(sorted(self.counts.items())),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Outcomes:
        """Restore the outcomes from the values of `plain`."""
        return cls(
            Counter({(rule, form, outcome): number for rule, form, outcome, number in plain["outcomes"]}),
            plain["repaired"],
            plain["attempts"],
            Counter(plain["counts"]),
        )


@dataclass(repr=False)
class Summary:
    """Counts over all rows of a file of negatives, including those of earlier runs.

    Attributes:
        rules: names of the rules, in the order of the rows.
        captions: total number of captions.
        accepted: accepted negatives by rule.
        reasons: refused rows by (rule, reason).
        covered: captions with at least one accepted negative, by rule.
        coverage: captions by number of accepted negatives, excluding captions without any.
        skipped: captions that no rule could use ("not_english", ...), by reason.
        skipped_ids: the first few of their ids, by reason.
        replies: counts of the language model's replies.
        seconds: wall time of the last run.
        stopped: name of the signal that ended the last run early, or "".
    """

    rules: tuple[str, ...]
    captions: int
    accepted: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    covered: Counter[str] = field(default_factory=Counter)
    coverage: Counter[int] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    skipped_ids: dict[str, list[str]] = field(default_factory=dict)
    replies: Outcomes = field(default_factory=Outcomes)
    seconds: float = 0.0
    stopped: str = ""
    _last: tuple[str, int] = ("", 0)  # the most recent caption, with its number of accepted negatives so far

    def __repr__(self) -> str:
        accepted = counted(self.accepted.total(), "accepted text")
        return f"Summary({counted(self.captions, 'caption')}, {accepted}; the counts: .plain())"

    def add(self, rows: Sequence[NegativeRecord]) -> None:
        """Count rows; all rows of one caption and rule must come in one call, and a caption's rows consecutively."""
        for row in rows:
            if row.accepted:
                self.accepted[row.rule] += 1
                self._cover(row.caption_id)
            else:
                self.reasons[row.rule, row.reason] += 1
                if row.reason in _SKIPPING and row.text is None and row.rule == self.rules[0]:
                    self.skipped[row.reason] += 1
                    ids = self.skipped_ids.setdefault(row.reason, [])
                    if len(ids) < _NAMED:
                        ids.append(row.caption_id)
        self.covered.update(rule for _, rule in {(row.caption_id, row.rule) for row in rows if row.accepted})

    def _cover(self, caption_id: str) -> None:
        last, count = self._last
        if caption_id == last:
            self.coverage[count] -= 1
            if not self.coverage[count]:
                del self.coverage[count]
        else:
            count = 0
        self.coverage[count + 1] += 1
        self._last = (caption_id, count + 1)

    @property
    def share_covered(self) -> float:
        """Share of captions with at least one negative."""
        return self.coverage.total() / self.captions if self.captions else 0.0

    @property
    def share_accepted(self) -> float:
        """Share of rows that are accepted negatives."""
        accepted = self.accepted.total()
        return accepted / (accepted + self.reasons.total()) if accepted else 0.0

    @property
    def mean(self) -> float:
        """Mean accepted negatives per caption."""
        return self.accepted.total() / self.captions if self.captions else 0.0

    @property
    def unanswered(self) -> int:
        """Number of rows whose request had no answer; a later run asks again."""
        return sum(count for (_, reason), count in self.reasons.items() if reason == "model_unreachable")

    def describe(self) -> str:
        """Return the share accepted, the replies and failures by kind, for the progress line."""
        outcomes = self.replies.by_outcome()
        parts = [f"{self.share_accepted:.0%} accepted", *([f"replies {outcomes.total():,}"] if outcomes else [])]
        parts += [f"{outcome} {count:,}" for outcome, count in outcomes.most_common() if outcome != "answered"]
        return ", ".join(parts)

    def plain(self) -> dict[str, object]:
        """Return the counts as JSON values."""
        return {
            "captions": self.captions,
            "accepted": dict(self.accepted),
            "refused": {f"{rule}: {reason}": count for (rule, reason), count in sorted(self.reasons.items())},
            "skipped": dict(self.skipped),
            "skipped_ids": self.skipped_ids,
            "share_covered": self.share_covered,
            "negatives_a_caption": self.mean,
            "replies": dict(self.replies.by_outcome()),
            "requests": self.replies.attempts,
            "repaired": self.replies.repaired,
            "counts": dict(self.replies.counts),
            "seconds": self.seconds,
            "stopped": self.stopped,
        }

    @property
    def makes_true_texts(self) -> bool:
        """Whether the rules make true texts."""
        return all(rule in POSITIVES.names() for rule in self.rules)

    def render(self) -> Group:
        """Return a table for a terminal with one line per rule, then skipped captions and totals."""
        title, one = "Hard negatives", "negative"
        if self.makes_true_texts:
            title, one = "True texts that look changed", "true text"
        columns = [
            *map(Column, ("rule", "accepted", "captions covered")),
            Column("refused or none by reason", align="left"),
        ]
        rows = []
        for rule in self.rules:
            reasons = {reason: count for (name, reason), count in self.reasons.items() if name == rule}
            entries = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
            share = self.covered[rule] / self.captions if self.captions else 0.0
            rows.append([rule, f"{self.accepted[rule]:,}", f"{share:.1%}", entries or "-"])
        table = Table(columns, rows).terminal(title=title)
        lines = [
            f"{counted(self.captions, 'caption')}, {self.share_covered:.1%} with at least one {one}, {self.mean:.2f} "
            f"{one}s per caption, {self.seconds:.1f} s"
        ]
        if self.skipped:
            entries = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.skipped.items()))
            lines.append(f"skipped captions: {entries}")
            lines += [f"  {reason}: {', '.join(ids)}" for reason, ids in sorted(self.skipped_ids.items())]
        if replies := self.replies.by_outcome():
            counts = [
                *sorted(replies.items()),
                ("repaired", self.replies.repaired),
                *sorted(self.replies.counts.items()),
            ]
            entries = ", ".join(f"{name} {count:,}" for name, count in counts if count)
            lines.append(f"language model: {counted(self.replies.attempts, 'request')}; replies: {entries}")
        if self.unanswered:
            unanswered = counted(self.unanswered, "row")
            lines.append(f"no answer for {unanswered} (model_unreachable): the same command asks again")
        return Group(table, *map(Text, lines))  # square brackets in ids are not markup
