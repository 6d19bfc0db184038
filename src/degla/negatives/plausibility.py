"""The check by name `implausible`: how much less likely than its caption a negative may be.

A language model gives the likelihoods (llm/embedded.py, or any judge of `degla negatives judge`); the limits are here
and need none. A limit lets 95 % of the rule's shipped examples pass, which a person wrote; bench/plausibility.py shows
how many of the grammar's own candidates pass it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from degla.negatives.verdicts import ACCEPTED, Verdict, refused

LARGEST_DROP: Final[Mapping[str, float]] = {
    "add_attribute": 1.15,
    "add_object": 0.45,
    "change_number": 0.9,
    "negation": 0.9,
    "replace_adjectives": 0.65,
    "replace_nouns": 0.7,
    "replace_relation": 0.85,
    "reshuffle_order": 0.65,
    "swap_adjectives": 0.65,
    "swap_nouns": 0.75,
    "swap_phrases": 0.65,
}
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
