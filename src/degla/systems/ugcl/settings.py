"""Settings of UGCL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from annotated_types import Interval

from degla.ranges import AtLeastOne, Count, LearningRate, RangeError
from degla.systems.system import SystemSettings
from degla.systems.ugcl.graph import Scope

_MOST_BINOMIAL: Final = 100
"""Hops of (I + A~)^n, whose values double with each: 2^128 leaves float32."""


@dataclass(frozen=True)
class UgclSettings(SystemSettings):
    """How an encoder is trained, and on what."""

    data: tuple[str, ...] = ("block",)
    """"block" is made here; else a path: an .npz, Planetoid's ind.NAME.x, or a raw folder of ogbn."""
    scope: Annotated[int, Interval(ge=0, le=1000)] = 4
    """n, hops of the context, 0 to 1,000; 0 is the node itself. At most 100 with `form` "binomial"."""
    form: Scope = "power"
    """A~^n as in the paper, or (I + A~)^n as in the released script of citation graphs; "power" or "binomial"."""
    dim: AtLeastOne = 512
    """Width of the encoders, >= 1 (4,196 or 8,192 in the release)."""
    epochs: Count = 120
    """Steps of training, >= 0."""
    lr: LearningRate = 1e-3
    """Of Adam, > 0."""
    sample: AtLeastOne = 2_000
    """Nodes a step that the loss compares, >= 1; drawn anew each step, in no order of the file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form == "binomial" and self.scope > _MOST_BINOMIAL:
            raise RangeError(
                "scope",
                f"is {self.scope}; with form binomial it must be {_MOST_BINOMIAL} or less: values double with each "
                "hop, and leave float32.",
            )
