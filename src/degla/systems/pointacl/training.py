"""Losses of pre-training: the points of patches that are left out, and the contrast of two views of a cloud."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from degla.model.token_mask import MaskedTokens, gumbel, largest, places_of, sampling_keys, taken
from degla.systems.pointacl.clouds import CloudPoints
from degla.systems.pointacl.network import PointNetwork
from degla.systems.pointacl.settings import PointaclSettings

MASKED_BY: Final[dict[str, MaskedTokens]] = {
    "point_mae": "random",
    "random_contrast": "random",
    "pointacl": "high",
    "low_contrast": "low",
}
"""How each method draws the patches that are left out."""


def chamfer(found: Float[Tensor, "*batch points 3"], true: Float[Tensor, "*batch others 3"]) -> Float[Tensor, ""]:
    """Mean squared distance of each point to the nearest of the other set, both ways added (Chamfer-L2)."""
    squared = (found[..., :, None, :] - true[..., None, :, :]).square().sum(dim=-1)
    return squared.amin(dim=-1).mean() + squared.amin(dim=-2).mean()


def info_nce(
    one: Float[Tensor, "batch dim"], other: Float[Tensor, "batch dim"], *, temperature: float
) -> Float[Tensor, ""]:
    """Cross-entropy of each row's own partner among all of the batch, the mean of both ways; unit rows."""
    logits = one @ other.T / temperature
    own = torch.arange(len(one))
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def pretraining_loss(
    network: PointNetwork, settings: PointaclSettings, method: str, patches: tuple[CloudPoints, Tensor]
) -> Float[Tensor, ""]:
    """Chamfer distance of the patches that were left out, and the weighted contrast where the method has one.

    Args:
        network: that is trained.
        settings: mask, weight, temperatures.
        method: of `MASKED_BY`.
        patches: centres and points of each, as `patches_of` gives them.
    """
    centres, points = patches
    tokens, places = network.tokens(points), network.place(centres)
    weight = 0.0 if method == "point_mae" else settings.weight
    whole = None
    by = MASKED_BY[method]
    if weight or by != "random":
        whole = network.encode(tokens, places, scores=True)
    noise = gumbel(centres[:, :, 0])
    scores = noise if whole is None or whole.scores is None else whole.scores
    keys = sampling_keys(scores, noise, temperature=settings.sampling_temperature, by=by)
    kept, left = places_of(largest(keys, settings.mask))
    seen = network.encode(taken(tokens, kept), taken(places, kept))
    true = points.gather(1, left[:, :, None, None].expand(-1, -1, *points.shape[2:]))
    loss = chamfer(network.rebuild(seen, places, kept, left), true)
    if weight and whole is not None:
        loss = loss + weight * info_nce(network.project(seen), network.project(whole), temperature=settings.temperature)
    return loss


def turns(count: int) -> Float[Tensor, "count 3 3"]:
    """Turns about the upright axis, each times a scale of 2/3 to 3/2."""
    angle = 2 * torch.pi * torch.rand(count)
    scale = (2 / 3) * (9 / 4) ** torch.rand(count)
    zero, one = torch.zeros(count), torch.ones(count)
    rows = [[angle.cos(), angle.sin(), zero], [-angle.sin(), angle.cos(), zero], [zero, zero, one]]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1) * scale[:, None, None]
