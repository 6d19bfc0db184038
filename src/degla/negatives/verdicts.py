"""What a check answers: accepted, or refused for a named reason.

`implausible` is that a negative is far less likely than its caption by a language model, which gives the likelihoods
(llm/embedded.py, or any judge of `degla negatives judge`). Each limit of verdicts.toml lets 95 % of the rule's shipped
examples pass, which a person wrote; bench/plausibility.py shows how many of the grammar's own candidates pass it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TABLES: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

REASONS: Final[dict[str, str]] = _TABLES["reasons"]
"""Every reason that a record may carry, explained."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a check.

    Attributes:
        accepted: whether the negative passed.
        reason: a key of `REASONS` where it was refused, else "".
    """

    accepted: bool
    reason: str = ""


ACCEPTED: Final = Verdict(True)


def refused(reason: str) -> Verdict:
    """A refusal; `reason` must be a key of `REASONS`."""
    if reason not in REASONS:
        raise ValueError(f"{reason!r} is not a reason of REASONS")
    return Verdict(False, reason)


LARGEST_DROP: Final[dict[str, float]] = _TABLES["largest_drop"]
"""Mean log-likelihood a token of the caption less that of the negative, nats, both behind nothing, under
SmolLM2-135M-Instruct."""

USUAL_DROP: Final = 0.75
"""The limit of a rule of your own: the middle of the measured ones."""


def largest_drop(rule: str) -> float:
    """The limit of a rule, nats a token."""
    return LARGEST_DROP.get(rule, USUAL_DROP)


def check_drop(rule: str, drop: float) -> Verdict:
    """Whether a negative is likely enough beside its caption.

    Args:
        rule: that it was made by.
        drop: nats a token by which it is less likely than the caption.
    """
    return ACCEPTED if drop <= largest_drop(rule) else refused("implausible")
