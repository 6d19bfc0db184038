"""What a model gained on one score and lost on another, and both in one number: the joint score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TradeOff:
    """A model against the one that it was tuned from. All values are shares, 0.01 a point."""

    gained: float
    """Score that is to rise, minus the start's."""
    lost: float
    """Score that is to be kept: the start's minus this one's; below 0 where it rose."""
    joint: float
    """Gained minus price times lost."""


def trade_off(
    scores: Mapping[str, float], start: Mapping[str, float], *, gain: str, kept: str, price: float
) -> TradeOff:
    """What was gained and lost.

    Args:
        scores: the tuned model's by name, 0 to 1.
        start: those of the model before tuning.
        gain: name of the score that is to rise.
        kept: name of the score that is to be kept.
        price: of a point lost, in points gained, 0 or more.
    """
    gained, lost = scores[gain] - start[gain], start[kept] - scores[kept]
    return TradeOff(gained, lost, gained - price * lost)
