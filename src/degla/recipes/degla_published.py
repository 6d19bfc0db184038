"""DeGLA as its released code computes it: other captions' negatives in the text-grounded loss, the first K of a row."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.losses import TextGrounded, losses_by_name
from degla.recipes.degla import degla


def degla_published() -> TrainConfig:
    """`degla` with the pairing of the released code (D-2 in docs/decisions) and its choice of the first four negatives
    of a row in every epoch (D-6), for comparison only.

    Rows with fewer negatives, which crash the released code, are masked as in `degla`.

    Use when: you want to compare with the released code. In the embedded world its pairing made no difference to
    `degla` at the paper's weights.
    """
    base = degla()
    objective = losses_by_name(**base.objective | {"text_grounded": TextGrounded(weight=0.1, pairing="published")})
    return replace(base, recipe="degla_published", data=replace(base.data, draw="first"), objective=objective)
