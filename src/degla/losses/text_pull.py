"""Text pull: the further true texts of an image lie where its caption lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target
from degla.ranges import Factor


@dataclass(frozen=True)
class TextPull(Loss):
    """Pull each caption and the further true texts of its image together; push nothing.

    Formula:  mean_{i,p} |t_i - r_ip|^2
              t: captions, r: valid positives, all of them or the first of each row alone
    Shapes:   see Embeddings; returns a scalar; squared Euclidean distance of unit vectors, 0 to 4
    Scope:    local - a caption meets only its own positives; no gather
    Source:   CLIC, arXiv 2505.24424: the same two sentences in both orders
    Differs:  none known; as there, both texts are pulled
    Cost:     one encoder pass of the positives
    """

    weight: Factor = 1.0
    """Factor of the loss, >= 0 (1 in arXiv 2505.24424)."""
    positives: Literal["all", "first"] = "all"
    """Which of a row's positives: "all", or the "first" alone (CLIC's, the same two sentences turned round); of a row
    that has more than are drawn it is one by chance."""

    scaled = False
    reads = frozenset({"positive"})

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the valid positives of all processes."""
        places = slice(1 if self.positives == "first" else None)
        gap = student.caption[:, None] - student.require("positive")[:, places]
        return processes.mean(gap.square().sum(-1), student.require("positive_valid")[:, places])
