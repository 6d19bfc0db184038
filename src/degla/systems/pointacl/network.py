"""Point-MAE with a class token: tokens of patches, encoder, decoder; and the losses of pre-training.

The encoder returns its attention, the decoder predicts the points of masked patches, and two views are contrasted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, scaled_dot_product_attention

from degla.model.token_mask import MaskedTokens, gumbel, places_of, sampling_keys, significance, take_tokens
from degla.systems.pointacl.clouds import CloudPoints, patches_of
from degla.systems.pointacl.settings import HEADS, PointaclSettings

_READ = 200
"""Number of clouds per pass without gradients."""
Tokens = Float[Tensor, "batch tokens width"]
MASKED_BY: Final[dict[str, MaskedTokens]] = {
    "point_mae": "random",
    "random_contrast": "random",
    "pointacl": "high",
    "low_contrast": "low",
}
"""How each method draws the patches that are left out."""


class PointBlock(nn.Module):
    """A transformer block; `attended` can also return the significance of each token for the class token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.own = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, states: Tokens) -> Tokens:
        """Apply the block."""
        return self.attended(states, scores=False)[0]

    def attended(self, states: Tokens, *, scores: bool) -> tuple[Tokens, Float[Tensor, "batch tokens"] | None]:
        """Apply the block; return also the significance of all tokens but the first, detached, if `scores`."""
        parts = self.mixed(self.before(states)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        token_scores = None
        if scores:
            # The fused kernel does not return attention, so the row of the class token is computed again.
            row = (query[:, :, :1] @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(dim=3)[:, :, 0, 1:]
            token_scores = significance(row, value[:, :, 1:]).detach()
        mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        states = states + self.out(mixed)
        return states + self.own(self.between(states)), token_scores


@dataclass(frozen=True)
class Encoded:
    """Result of one pass: class token, patches, and the significance of each patch if requested."""

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
        # LayerNorm instead of Point-MAE's BatchNorm, whose statistics masked or noisy clouds would change.
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
        """Return one token per patch: the maximum over its points."""
        return cast(Tensor, self.patch(self.point(patches).amax(dim=2)))

    def encode(self, tokens: Tokens, places: Tokens, *, scores: bool = False) -> Encoded:
        """Encode some patches; the embeddings of their centres are added before every block."""
        states = torch.cat([self.summary.expand(len(tokens), -1, -1), tokens], dim=1)
        places = torch.cat([torch.zeros_like(places[:, :1]), places], dim=1)
        token_scores = None
        for number, block in enumerate(self.encoder):
            with_scores = scores and number == len(self.encoder) - 1
            states, token_scores = cast(PointBlock, block).attended(states + places, scores=with_scores)
        states = self.after(states)
        return Encoded(states[:, 0], states[:, 1:], token_scores)

    def rebuild(
        self, encoding: Encoded, places: Tokens, visible: Tensor, masked: Tensor
    ) -> Float[Tensor, "batch masked size 3"]:
        """Predict the points of the patches that were left out."""
        states = torch.cat([encoding.patches, self.hidden.expand(len(masked), masked.shape[1], -1)], dim=1)
        states = self.decoder(states + torch.cat([take_tokens(places, visible), take_tokens(places, masked)], dim=1))
        points: Tensor = self.points(self.last(states[:, visible.shape[1] :]))
        return points.view(*masked.shape, -1, 3)

    def project(self, encoding: Encoded) -> Float[Tensor, "batch width"]:
        """Return the unit rows that the contrast compares."""
        return normalize(self.projection(encoding.summary), dim=1)


def all_patches(settings: PointaclSettings, points: CloudPoints) -> tuple[CloudPoints, Tensor]:
    """Return `patches_of` for the settings."""
    parts = [
        patches_of(part, patches=settings.patches, size=settings.patch_points) for part in torch.split(points, _READ)
    ]
    return torch.cat([centres for centres, _ in parts]), torch.cat([near for _, near in parts])


def encode_clouds(network: PointNetwork, settings: PointaclSettings, points: CloudPoints) -> Encoded:
    """Encode whole clouds, without gradients."""
    parts = []
    with torch.no_grad():
        for part in torch.split(points, _READ):
            centres, near = all_patches(settings, part)
            parts.append(network.encode(network.tokens(near), network.place(centres), scores=True))
    scores = [part.scores for part in parts if part.scores is not None]
    return Encoded(
        torch.cat([part.summary for part in parts]), torch.cat([part.patches for part in parts]), torch.cat(scores)
    )


def chamfer(prediction: Float[Tensor, "*batch points 3"], true: Float[Tensor, "*batch others 3"]) -> Float[Tensor, ""]:
    """Return the mean squared distance of each point to the nearest in the other set, summed both ways (Chamfer-L2)."""
    squared = (prediction[..., :, None, :] - true[..., None, :, :]).square().sum(dim=-1)
    return squared.amin(dim=-1).mean() + squared.amin(dim=-2).mean()


def info_nce(
    one: Float[Tensor, "batch dim"], other: Float[Tensor, "batch dim"], *, temperature: float
) -> Float[Tensor, ""]:
    """Return the cross-entropy of each unit row's partner within the batch, averaged over both directions."""
    logits = one @ other.T / temperature
    own = torch.arange(len(one))
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def pretraining_loss(
    network: PointNetwork, settings: PointaclSettings, method: str, patches: tuple[CloudPoints, Tensor]
) -> Float[Tensor, ""]:
    """Return the Chamfer distance of masked patches, plus the weighted contrast if the method has one.

    Args:
        network: network to train.
        settings: mask, weight and temperatures.
        method: one of `MASKED_BY`.
        patches: centres and points, as returned by `patches_of`.
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
    visible, masked = places_of(keys, settings.mask)
    encoding = network.encode(take_tokens(tokens, visible), take_tokens(places, visible))
    true = points.gather(1, masked[:, :, None, None].expand(-1, -1, *points.shape[2:]))
    loss = chamfer(network.rebuild(encoding, places, visible, masked), true)
    if weight and whole is not None:
        loss = loss + weight * info_nce(
            network.project(encoding), network.project(whole), temperature=settings.temperature
        )
    return loss


def turns(count: int) -> Float[Tensor, "count 3 3"]:
    """Return random rotations about the vertical axis, each times a scale of 2/3 to 3/2."""
    angle = 2 * torch.pi * torch.rand(count)
    scale = (2 / 3) * (9 / 4) ** torch.rand(count)
    zero, one = torch.zeros(count), torch.ones(count)
    rows = [[angle.cos(), angle.sin(), zero], [-angle.sin(), angle.cos(), zero], [zero, zero, one]]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1) * scale[:, None, None]
