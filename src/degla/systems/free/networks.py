"""FREE's networks over features in 0 to 1 and semantics, and their losses.

Encoder, generator, critic and feature refiner; margins to class centres, consistency of semantics, WGAN's penalty;
accuracy over classes and its harmonic mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

_SLOPE = 0.2
_SPREAD = 0.02
Other = Literal["random", "nearest"]
"""The class from whose centre a feature is pushed: a random other class, or the one with the nearest centre."""


def _layers(before: int, hidden: int, after: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(before, hidden), nn.LeakyReLU(_SLOPE), nn.Linear(hidden, after))
    return layers.apply(_start)


def _start(part: nn.Module) -> None:
    if isinstance(part, nn.Linear):
        nn.init.normal_(part.weight, std=_SPREAD)
        nn.init.zeros_(part.bias)


class Refined(NamedTuple):
    """Output of the refiner: hidden layer h, mean of e, and semantics a^."""

    hidden: Float[Tensor, "rows hidden"]
    mean: Float[Tensor, "rows centred"]
    semantics: Float[Tensor, "rows semantics"]


class Refiner(nn.Module):
    """FR: h = lrelu(W1 x); [mean, s] = W3 h; e = mean + sigmoid(s) noise; a^ = sigmoid(e).

    Noise is drawn only in training; in evaluation mode e is its mean, so that one image has one refined feature. The
    released code also draws at test time.
    """

    def __init__(self, features: int, semantics: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden)
        self.last = nn.Linear(hidden, 2 * semantics)
        self.apply(_start)

    def forward(self, rows: Float[Tensor, "rows features"]) -> Refined:
        """Refine each row."""
        hidden = nn.functional.leaky_relu(self.first(rows), _SLOPE)
        mean, scale = self.last(hidden).chunk(2, dim=1)
        sample = mean + scale.sigmoid() * torch.randn_like(mean) if self.training else mean
        return Refined(hidden, mean, sample.sigmoid())


class ResidualAdapter(nn.Module):
    """r = x + W2 lrelu(W1 x), and semantics a^ = sigmoid(W3 r); at first r is x itself.

    It replaces `Refiner` for frozen embeddings: the centres are in the space of r, and r is classified.
    """

    def __init__(self, features: int, semantics: int, hidden: int) -> None:
        super().__init__()
        self.change = _layers(features, hidden, features)
        self.tells = nn.Linear(features, semantics).apply(_start)
        nn.init.zeros_(cast(nn.Linear, self.change[-1]).weight)

    def forward(self, rows: Float[Tensor, "rows features"]) -> Refined:
        """Adapt each row; `mean` is r."""
        change = self.change(rows)
        adapted = rows + change
        return Refined(change, adapted, self.tells(adapted).sigmoid())


class FeatureMaker(nn.Module):
    """Encoder E(x, a), generator G(z, a) and critic D(x, a) of an f-VAEGAN; z has the size of a."""

    def __init__(self, features: int, semantics: int, hidden: int) -> None:
        super().__init__()
        self.encoder = _layers(features + semantics, hidden, 2 * semantics)
        self.generator = _layers(2 * semantics, hidden, features)
        self.critic = _layers(features + semantics, hidden, 1)

    def generate(
        self, latent: Float[Tensor, "rows latent"], semantics: Float[Tensor, "rows semantics"]
    ) -> Float[Tensor, "rows features"]:
        """Generate features in 0 to 1."""
        features: Tensor = self.generator(torch.cat([latent, semantics], dim=1)).sigmoid()
        return features

    def judge(
        self, rows: Float[Tensor, "rows features"], semantics: Float[Tensor, "rows semantics"]
    ) -> Float[Tensor, " rows"]:
        """Return the critic's score: higher for features that look real."""
        score: Tensor = self.critic(torch.cat([rows, semantics], dim=1))[:, 0]
        return score

    def reconstruct(
        self, rows: Float[Tensor, "rows features"], semantics: Float[Tensor, "rows semantics"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return G(E(x, a), a), and mean and log variance of E(x, a)."""
        mean, log_variance = self.encoder(torch.cat([rows, semantics], dim=1)).chunk(2, dim=1)
        latent = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return self.generate(latent, semantics), mean, log_variance


def other_class(
    label: Int[Tensor, " batch"], squared: Float[Tensor, "batch classes"], *, choice: Other
) -> Int[Tensor, " batch"]:
    """Choose a class for each row that is never its own.

    Args:
        label: own classes.
        squared: squared distances to all centres, for "nearest".
        choice: how to choose.
    """
    classes = squared.shape[1]
    if choice == "nearest":
        return squared.detach().scatter(1, label[:, None], torch.inf).argmin(dim=1)
    # A step of 1 to C - 1 around the circle of classes; the released code may step 0, which is the class itself.
    return (label + torch.randint(1, classes, label.shape, device=label.device)) % classes


def margin_loss(
    rows: Float[Tensor, "batch dim"],
    label: Int[Tensor, " batch"],
    centres: Float[Tensor, "classes dim"],
    *,
    margin: float,
    balance: float,
    choice: Other,
) -> Float[Tensor, ""]:
    """SAMC: mean max(0, D + g ||e_i - c_y||^2 - (1 - g) ||e_i - c_y'||^2).

    Args:
        rows: e, the refiner's means of real features of seen classes.
        label: y.
        centres: c, learnt; two or more.
        margin: D.
        balance: g, 0 to 1.
        choice: how y' is chosen.
    """
    squared = torch.cdist(rows, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
    own = squared.gather(1, label[:, None])[:, 0]
    other = squared.gather(1, other_class(label, squared, choice=choice)[:, None])[:, 0]
    return (margin + balance * own - (1 - balance) * other).clamp(min=0).mean()


def cycle_loss(estimate: Float[Tensor, "batch semantics"], true: Float[Tensor, "batch semantics"]) -> Float[Tensor, ""]:
    """SCC: mean over rows of sum_k w_k |d_k| with d = a^ - a and w_k = d_k^2 / ||d||_2, without gradient through w.

    A row without any error counts 0, where the released code divides 0 by 0.
    """
    off = estimate - true
    length: Tensor = off.detach().norm(dim=1, keepdim=True)
    weight = off.detach().square() / length.clamp(min=torch.finfo(off.dtype).tiny)
    return (weight * off.abs()).sum(dim=1).mean()


def variational_loss(
    reconstruction: Float[Tensor, "batch features"],
    true: Float[Tensor, "batch features"],
    mean: Float[Tensor, "batch latent"],
    log_variance: Float[Tensor, "batch latent"],
) -> Float[Tensor, ""]:
    """Per row: binary cross-entropy summed over features in 0 to 1, and KL(N(mean, variance) || N(0, 1))."""
    error = binary_cross_entropy(reconstruction, true.clamp(0, 1), reduction="sum")
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
    return (error + divergence) / len(true)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Float[Tensor, "batch features"],
    generated: Float[Tensor, "batch features"],
) -> Float[Tensor, ""]:
    """mean (||grad D(x^)||_2 - 1)^2 at random points x^ between real and generated rows."""
    share = torch.rand(len(real), 1, device=real.device)
    between = (share * real + (1 - share) * generated).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    steep: Tensor = slope.norm(dim=1)
    return (steep - 1).square().mean()


def class_accuracy(predictions: Int[Tensor, " rows"], label: Int[Tensor, " rows"]) -> float:
    """Return the mean over the classes in `label` of their accuracy, 0 to 1."""
    right = (predictions == label).double()
    return float(torch.stack([right[label == each].mean() for each in torch.unique(label)]).mean())


def harmonic_mean(seen: float, unseen: float) -> float:
    """Return 2 S U / (S + U), or 0 if both are 0."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0
