"""DeGLA as its released code computes it: the text-grounded term meets other captions' negatives."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.objectives._sum import terms
from degla.objectives.text_grounded import TextGrounded
from degla.recipes.degla import degla


def degla_published() -> TrainConfig:
    """`degla` with the pairing of the released code (D-2 in docs/decisions), for comparison only."""
    base = degla()
    objective = base.objective | {"text_grounded": TextGrounded(weight=0.1, pairing="published")}
    return replace(base, recipe="degla_published", objective=terms(**objective))
