"""Point-MAE with a class token: patches to tokens, encoder, decoder; and the losses of pre-training.

The encoder tells its attention, the decoder gives the points of patches that are left out, two views are contrasted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, scaled_dot_product_attention

from degla.model.token_mask import MaskedTokens, gumbel, places_of, sampling_keys, significance, taken
from degla.systems.pointacl.clouds import CloudPoints, patches_of
from degla.systems.pointacl.settings import HEADS, PointaclSettings

_READ = 200
"""Clouds at a time where no gradient is kept."""
Tokens = Float[Tensor, "batch tokens width"]
MASKED_BY: Final[dict[str, MaskedTokens]] = {
    "point_mae": "random",
    "random_contrast": "random",
    "pointacl": "high",
    "low_contrast": "low",
}
"""How each method draws the patches that are left out."""


class PointBlock(nn.Module):
    """A transformer's block; `attended` also gives what its class token reads of each other token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.own = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, states: Tokens) -> Tokens:
        """One step."""
        return self.attended(states, scores=False)[0]

    def attended(self, states: Tokens, *, scores: bool) -> tuple[Tokens, Float[Tensor, "batch tokens"] | None]:
        """One step, and the significance of all tokens but the first, without gradient, where it is asked for."""
        parts = self.mixed(self.before(states)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        found = None
        if scores:
            # The fused kernel gives no attention: the class token's row alone is computed again.
            row = (query[:, :, :1] @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(dim=3)[:, :, 0, 1:]
            found = significance(row, value[:, :, 1:]).detach()
        mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        states = states + self.out(mixed)
        return states + self.own(self.between(states)), found


@dataclass(frozen=True)
class Encoded:
    """Of one pass: the class token, the patches, and each patch's significance where it was asked for."""

    summary: Float[Tensor, "batch width"]
    patches: Tokens
    scores: Float[Tensor, "batch patches"] | None

    @property
    def features(self) -> Float[Tensor, "batch features"]:
        """[class token; maximum over patches]."""
        return torch.cat([self.summary, self.patches.amax(dim=1)], dim=1)


class PointNetwork(nn.Module):
    """The encoder, the decoder and the projection of the class token."""

    def __init__(self, settings: PointaclSettings) -> None:
        super().__init__()
        width = settings.width
        # LayerNorm in place of Point-MAE's BatchNorm: no statistics that masked or disturbed clouds could move.
        self.point = nn.Sequential(nn.Linear(3, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, width))
        self.patch = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))
        self.place = nn.Sequential(nn.Linear(3, width), nn.GELU(), nn.Linear(width, width))
        self.summary = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.hidden = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.encoder = nn.ModuleList(PointBlock(width) for _ in range(settings.blocks))
        self.decoder = PointBlock(width)
        self.after, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.points = nn.Linear(width, 3 * settings.patch_points)
        self.projection = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def tokens(self, patches: Float[Tensor, "batch patches size 3"]) -> Tokens:
        """One token a patch: the maximum over its points."""
        return cast(Tensor, self.patch(self.point(patches).amax(dim=2)))

    def encode(self, tokens: Tokens, places: Tokens, *, scores: bool = False) -> Encoded:
        """The encoder on some patches; what stands for their centres is added before every block."""
        states = torch.cat([self.summary.expand(len(tokens), -1, -1), tokens], dim=1)
        places = torch.cat([torch.zeros_like(places[:, :1]), places], dim=1)
        found = None
        for number, block in enumerate(self.encoder):
            wanted = scores and number == len(self.encoder) - 1
            states, found = cast(PointBlock, block).attended(states + places, scores=wanted)
        states = self.after(states)
        return Encoded(states[:, 0], states[:, 1:], found)

    def rebuild(self, seen: Encoded, places: Tokens, kept: Tensor, left: Tensor) -> Float[Tensor, "batch left size 3"]:
        """The points of the patches that were left out."""
        states = torch.cat([seen.patches, self.hidden.expand(len(left), left.shape[1], -1)], dim=1)
        states = self.decoder(states + torch.cat([taken(places, kept), taken(places, left)], dim=1))
        points: Tensor = self.points(self.last(states[:, kept.shape[1] :]))
        return points.view(*left.shape, -1, 3)

    def project(self, seen: Encoded) -> Float[Tensor, "batch width"]:
        """Unit rows that the contrast compares."""
        return normalize(self.projection(seen.summary), dim=1)


def all_patches(settings: PointaclSettings, points: CloudPoints) -> tuple[CloudPoints, Tensor]:
    """`patches_of` as the settings say."""
    found = [
        patches_of(part, patches=settings.patches, size=settings.patch_points) for part in torch.split(points, _READ)
    ]
    return torch.cat([centres for centres, _ in found]), torch.cat([near for _, near in found])


def encode_clouds(network: PointNetwork, settings: PointaclSettings, points: CloudPoints) -> Encoded:
    """The encoder on whole clouds, without gradients."""
    parts = []
    with torch.no_grad():
        for part in torch.split(points, _READ):
            centres, near = all_patches(settings, part)
            parts.append(network.encode(network.tokens(near), network.place(centres), scores=True))
    scores = [part.scores for part in parts if part.scores is not None]
    return Encoded(
        torch.cat([part.summary for part in parts]), torch.cat([part.patches for part in parts]), torch.cat(scores)
    )


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
    kept, left = places_of(keys, settings.mask)
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
