"""Which tokens of a transformer are dropped: at random, or preferably those that its class token attends to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from degla.ranges import Checked, Count, DecayRate, Positive

TokenScores = Float[Tensor, "batch tokens"]


MaskedTokens = Literal["high", "low", "random"]
"""Whether to drop tokens with a high score, with a low score, or any."""


@dataclass(frozen=True)
class ViewsConfig(Checked, section="views"):
    """The part of each image that the student reads; the teacher always sees the whole image."""

    left_out: DecayRate = 0.0
    """Share of an image's patches that the student does not read, 0 to below 1; 0 for none (0.6 of points in
    arXiv 2411.14744)."""
    by: Literal["attention", "random", "low_attention"] = "attention"
    """Which patches to drop: preferably those that the teacher's class token attends to, any, or preferably the others;
    "attention", "random" or "low_attention"."""
    temperature: Positive = 0.02
    """Temperature of the draw by attention, > 0: near 0 the patches with the most attention are dropped; attention
    sums to 1."""
    anneal_steps: Count = 0
    """Steps over which the draw turns from random to the one by attention, 0 or more; 1 / temperature grows in
    proportion to the step."""

    def temperature_at(self, step: int) -> float:
        """Return the temperature of a step, from 0; infinite in the first of `anneal_steps`."""
        done = min(1.0, step / self.anneal_steps) if self.anneal_steps else 1.0
        return self.temperature / done if done else math.inf


def significance(
    attention: Float[Tensor, "batch heads tokens"], values: Float[Tensor, "batch heads tokens dim"]
) -> TokenScores:
    """S_j = A_j |V_j| / sum_i A_i |V_i|: each token's share of what the class token reads (arXiv 2411.14744).

    Args:
        attention: the class token's row without its own entry; summed over the heads here.
        values: of the same tokens; |V_j| is the norm of the values of all heads together.
    """
    lengths = values.square().sum(dim=(1, 3)).sqrt()
    weighted = attention.sum(dim=1) * lengths
    return weighted / weighted.sum(dim=1, keepdim=True)


def sampling_keys(
    scores: TokenScores, noise: TokenScores, *, temperature: float, by: MaskedTokens = "high"
) -> TokenScores:
    """Return keys whose top k are k draws without replacement from softmax(S / temperature) (Gumbel-top-k).

    Args:
        scores: S.
        noise: from `gumbel`.
        temperature: near 0 the largest scores are chosen, towards infinity all are equally likely.
        by: "high", "low" for -S instead of S, or "random" for only noise.
    """
    if by == "random":
        return noise
    return torch.log_softmax((scores if by == "high" else -scores) / temperature, dim=1) + noise


def gumbel(like: TokenScores, *, generator: torch.Generator | None = None) -> TokenScores:
    """Draw standard Gumbel noise in the shape of `like`."""
    exponential = torch.empty(like.shape, dtype=like.dtype).exponential_(generator=generator)
    return -exponential.clamp(min=torch.finfo(like.dtype).tiny).log().to(like.device)


def largest(keys: TokenScores, share: float) -> Bool[Tensor, "batch tokens"]:
    """Return a mask that is True at the floor(share N) largest keys of each row."""
    mask = torch.zeros_like(keys, dtype=torch.bool)
    return mask.scatter_(1, keys.topk(_count(keys, share), dim=1).indices, True)


def places_of(keys: TokenScores, share: float) -> tuple[Tensor, Tensor]:
    """Return the positions of the smaller keys and of the `largest` share, each in order."""
    order = largest(keys, share).to(torch.uint8).argsort(dim=1, stable=True)
    smaller = keys.shape[1] - _count(keys, share)  # Not counted in the mask: that would synchronise with a GPU.
    return order[:, :smaller], order[:, smaller:]


def _count(tokens: Tensor, share: float) -> int:
    return math.floor(share * tokens.shape[1] + 1e-9)


def take_tokens(tokens: Float[Tensor, "batch tokens dim"], places: Tensor) -> Float[Tensor, "batch places dim"]:
    """Return the tokens at some positions of each row."""
    return tokens.gather(1, places[:, :, None].expand(-1, -1, tokens.shape[2]))
