"""FREE's networks: encoder, generator, critic and feature refiner, over features in 0 to 1 and semantics."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

_SLOPE = 0.2
_SPREAD = 0.02


def _layers(before: int, hidden: int, after: int) -> nn.Sequential:
    made = nn.Sequential(nn.Linear(before, hidden), nn.LeakyReLU(_SLOPE), nn.Linear(hidden, after))
    return made.apply(_start)


def _start(part: nn.Module) -> None:
    if isinstance(part, nn.Linear):
        nn.init.normal_(part.weight, std=_SPREAD)
        nn.init.zeros_(part.bias)


class Refined(NamedTuple):
    """What the refiner makes of features: hidden layer h, mean of e, and semantics a^."""

    hidden: Float[Tensor, "rows hidden"]
    mean: Float[Tensor, "rows centred"]
    semantics: Float[Tensor, "rows semantics"]


class Refiner(nn.Module):
    """FR: h = lrelu(W1 x); [mean, s] = W3 h; e = mean + sigmoid(s) noise; a^ = sigmoid(e).

    Noise is drawn while it trains alone: in evaluation mode e is its mean, so that one picture has one refined feature.
    The released code draws at test time, too.
    """

    def __init__(self, features: int, semantics: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden)
        self.last = nn.Linear(hidden, 2 * semantics)
        self.apply(_start)

    def forward(self, rows: Float[Tensor, "rows features"]) -> Refined:
        """Of each row."""
        hidden = nn.functional.leaky_relu(self.first(rows), _SLOPE)
        mean, spread = self.last(hidden).chunk(2, dim=1)
        drawn = mean + spread.sigmoid() * torch.randn_like(mean) if self.training else mean
        return Refined(hidden, mean, drawn.sigmoid())


class ResidualAdapter(nn.Module):
    """r = x + W2 lrelu(W1 x), and semantics a^ = sigmoid(W3 r); at first r is x itself.

    It has the place of `Refiner` beside frozen embeddings: r is where the centres lie, and what is classified.
    """

    def __init__(self, features: int, semantics: int, hidden: int) -> None:
        super().__init__()
        self.change = _layers(features, hidden, features)
        self.tells = nn.Linear(features, semantics).apply(_start)
        nn.init.zeros_(cast(nn.Linear, self.change[-1]).weight)

    def forward(self, rows: Float[Tensor, "rows features"]) -> Refined:
        """Of each row; `mean` is r."""
        changed = self.change(rows)
        adapted = rows + changed
        return Refined(changed, adapted, self.tells(adapted).sigmoid())


class FeatureMaker(nn.Module):
    """Encoder E(x, a), generator G(z, a) and critic D(x, a) of an f-VAEGAN; z has as many numbers as a."""

    def __init__(self, features: int, semantics: int, hidden: int) -> None:
        super().__init__()
        self.encoder = _layers(features + semantics, hidden, 2 * semantics)
        self.generator = _layers(2 * semantics, hidden, features)
        self.critic = _layers(features + semantics, hidden, 1)

    def generate(
        self, latent: Float[Tensor, "rows latent"], semantics: Float[Tensor, "rows semantics"]
    ) -> Float[Tensor, "rows features"]:
        """Features in 0 to 1."""
        made: Tensor = self.generator(torch.cat([latent, semantics], dim=1)).sigmoid()
        return made

    def judge(
        self, rows: Float[Tensor, "rows features"], semantics: Float[Tensor, "rows semantics"]
    ) -> Float[Tensor, " rows"]:
        """The critic's score: higher for what looks real."""
        score: Tensor = self.critic(torch.cat([rows, semantics], dim=1))[:, 0]
        return score

    def reconstruct(
        self, rows: Float[Tensor, "rows features"], semantics: Float[Tensor, "rows semantics"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """G(E(x, a), a), mean and log variance of E(x, a)."""
        mean, log_variance = self.encoder(torch.cat([rows, semantics], dim=1)).chunk(2, dim=1)
        latent = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return self.generate(latent, semantics), mean, log_variance
