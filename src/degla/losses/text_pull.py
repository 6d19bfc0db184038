"""Text pull: the additional true texts of an image are pulled to its caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.ranges import Factor


@dataclass(frozen=True)
class TextPull(Loss):
    """Pull each caption and the additional true texts of its image together; push nothing.

    Formula:  mean_{i,p} |t_i - r_ip|^2
              t: captions, r: valid positives, all of them or only the first of each row
    Shapes:   see Embeddings; returns a scalar; squared Euclidean distance of unit vectors, 0 to 4
    Scope:    local - each caption is compared only with its own positives; no gather
    Source:   CLIC, arXiv 2505.24424: the same two sentences in both orders
    Differs:  none known; as published, both texts are pulled
    Cost:     one encoder pass over the positives
    """

    weight: Factor = 1.0
    """Weight of the loss, >= 0 (1 in arXiv 2505.24424)."""
    positives: Literal["all", "first"] = "all"
    """Positives of each row: "all", or only the "first" (CLIC: the same two sentences in reverse order). If a row has
    more positives than are drawn, the first is a random one."""

    scaled = False
    reads = frozenset({"positive"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the valid positives of all processes."""
        places = slice(1 if self.positives == "first" else None)
        gap = student.caption[:, None] - student.require("positive")[:, places]
        return processes.mean(gap.square().sum(-1), student.require("positive_valid")[:, places])
