"""How far two readers of the same texts agree: share of same answers and Cohen's kappa (1960)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from degla.statistics.proportions import Z


@dataclass(frozen=True)
class Agreement:
    """Two readers' yes and no to one question about the same texts.

    Attributes:
        first: name of the first reader's sheet.
        second: name of the second's.
        question: column of the sheet.
        n: texts that both read.
        same: texts with the same answer.
        kappa: agreement beyond that of two readers who answer at random as often yes as these do: 1 is complete, 0 is
            chance. None where both give one and the same answer to everything: then chance agrees completely too.
        low: lower end of kappa's 95 % interval (large-sample, Fleiss, Cohen and Everitt 1969); None without kappa.
        high: upper end.
    """

    first: str
    second: str
    question: str
    n: int
    same: int
    kappa: float | None
    low: float | None
    high: float | None

    def plain(self) -> dict[str, object]:
        """JSON values."""
        return dict(vars(self))

    def line(self) -> str:
        """One line of a Markdown table."""
        kappa = "–" if self.kappa is None else f"{self.kappa:.2f} [{self.low:.2f}, {self.high:.2f}]"
        share = f"{100 * self.same / self.n:.0f}"
        return f"| {self.first}, {self.second} | {self.question} | {self.n} | {share} | {kappa} |"


def agreements(names: Sequence[str], words: Sequence[Mapping[str, Mapping[Hashable, bool]]]) -> Iterator[Agreement]:
    """Yield the agreement of every two readers on every question, where they have texts in common.

    Args:
        names: of the readers.
        words: of each reader, question to text to answer.
    """
    for (first, one), (second, other) in combinations(zip(names, words, strict=True), 2):
        for question in one:
            common = one[question].keys() & other[question].keys()
            if common:
                pairs = [(one[question][text], other[question][text]) for text in common]
                yield Agreement(first, second, question, len(pairs), sum(a == b for a, b in pairs), *cohen_kappa(pairs))


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> tuple[float | None, float | None, float | None]:
    """Kappa of two readers' answers and its 95 % interval; three times None where it is undefined."""
    n = len(pairs)
    share = {(a, b): sum(pair == (a, b) for pair in pairs) / n for a in (False, True) for b in (False, True)}
    first = {a: share[a, False] + share[a, True] for a in (False, True)}
    second = {b: share[False, b] + share[True, b] for b in (False, True)}
    same = share[False, False] + share[True, True]
    chance = sum(first[a] * second[a] for a in (False, True))
    if chance == 1:
        return None, None, None
    kappa = (same - chance) / (1 - chance)
    diagonal = sum(share[a, a] * (1 - (first[a] + second[a]) * (1 - kappa)) ** 2 for a in (False, True))
    beside = (1 - kappa) ** 2 * sum(share[a, not a] * (second[a] + first[not a]) ** 2 for a in (False, True))
    variance = (diagonal + beside - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    half = Z * math.sqrt(max(0.0, variance))
    return kappa, max(-1.0, kappa - half), min(1.0, kappa + half)
