"""NegCLIP (ICLR 2023) with its hard images: each pair adds a similar image, with its caption and negative."""

from __future__ import annotations

from dataclasses import replace

from degla.config.run import TrainConfig
from degla.recipes.negclip import negclip


def negclip_hard_images() -> TrainConfig:
    """NegCLIP as published: one negative per caption, one of three neighbours per pair; 256 pairs make batches of 512.

    Reads the file of `degla neighbours`. Captions of the same image are not negatives of each other; in the released
    code, a neighbour can be the image of another row (N-6 in docs/decisions). --data.duplicates allow is as released.

    Use when: you want NegCLIP as published, with a similar image for each pair. In the embedded world its joint score
    was about that of `negclip`.
    """
    base = negclip()
    return replace(
        base,
        recipe="negclip_hard_images",
        data=replace(base.data, negatives_per_caption=1, neighbours_per_pair=1),
    )
