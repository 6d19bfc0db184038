"""Settings of UGCL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from annotated_types import Interval

from degla.ranges import AtLeastOne, Count, LearningRate, RangeError
from degla.systems.system import SystemSettings
from degla.systems.ugcl.graph import Smoothing

_MOST_BINOMIAL: Final = 100
"""Maximum hops of (I + A~)^n, whose values double with each; 2^128 overflows float32."""


@dataclass(frozen=True)
class UgclSettings(SystemSettings):
    """Settings of training an encoder, and its data."""

    data: tuple[str, ...] = ("block",)
    """"block", which is synthetic; "wordnet", real nouns; or a path: an .npz, Planetoid's ind.NAME.x, or a raw folder
    of ogbn."""
    scope: Annotated[int, Interval(ge=0, le=1000)] = 4
    """Hops n of the context, 0 to 1,000; 0 is the node itself. At most 100 with `form` "binomial"."""
    form: Smoothing = "power"
    """A~^n as in the paper, or (I + A~)^n as in the released script for citation graphs; "power" or "binomial"."""
    dim: AtLeastOne = 512
    """Width of the encoders, >= 1 (4,196 or 8,192 in the released code)."""
    epochs: Count = 120
    """Training steps, >= 0."""
    lr: LearningRate = 1e-3
    """Learning rate of Adam, > 0."""
    sample: Annotated[int, Interval(ge=2)] = 2_000
    """Nodes per step that the loss compares, >= 2; drawn again at random in each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form == "binomial" and self.scope > _MOST_BINOMIAL:
            raise RangeError(
                "scope",
                f"is {self.scope}; with form binomial it must be {_MOST_BINOMIAL} or less, because values double with "
                "each hop and overflow float32.",
            )
