"""Supervised contrast, with items that are in denominators alone."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from degla.losses.core.partition import log_partition

BASE_TEMPERATURE = 0.07
"""t0: the loss is multiplied with t / t0."""


def supervised_contrast(
    views: Float[Tensor, "views dim"],
    label: Int[Tensor, " views"],
    *,
    temperature: float,
    background: Float[Tensor, "backgrounds dim"] | None = None,
) -> Float[Tensor, ""]:
    """-(t/t0) mean_i 1/|P(i)| sum_{p in P(i)} log e^{z_i z_p / t} / sum_{a != i} e^{z_i z_a / t}.

    Args:
        views: unit rows; each is an i, and a p of the others of its label.
        label: class of each view. Every class needs two views or more.
        temperature: t.
        background: unit rows that are in the sum over a alone.

    Raises:
        ValueError: a view is the only one of its class.
    """
    alike = (label[:, None] == label[None, :]).fill_diagonal_(False)
    count = alike.sum(dim=1)
    if not bool((count > 0).all()):
        raise ValueError(f"class {int(label[count == 0][0])} has one view; supervised contrast needs two or more")
    others = views if background is None else torch.cat([views, background])

    def itself(rows: slice) -> Bool[Tensor, "rows candidates"]:
        place = torch.arange(len(views), device=views.device)[rows]
        return place[:, None] == torch.arange(len(others), device=views.device)[None, :]

    scale = views.new_tensor(1 / temperature)
    whole = log_partition(views, others, scale, absent=itself)
    pulled = (views * (alike.to(views) @ views)).sum(dim=1) * scale / count
    return temperature / BASE_TEMPERATURE * (whole - pulled).mean()
