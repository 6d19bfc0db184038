"""Contextual contrast: a caption, smoothed over similar captions, has to find its image among those of the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target, log_partition
from degla.ranges import Count, Factor, Share


@dataclass(frozen=True)
class ContextualContrast(Loss):
    """Pull each image to the teacher's captions near its own; push the images of other captions away from them.

    Formula:  mean_i -log e^{s<c_i,v_i>} / sum_j e^{s<c_i,v_j>},  c_i: row i of A~^n Y, normalised
              v: images, Y: teacher captions (no gradient), all of the global batch, s: `scale`, n: `scope`;
              A~ = D^-1/2 (A + I) D^-1/2; A_ij = 1 where j is one of the `neighbours` captions most similar to i, or i
              one of those of j, their cosine is at least `least`, and neither is as similar to a negative of the other
    Shapes:   see Embeddings; returns a scalar, the mean over pairs
    Scope:    global - gathers images, and the teacher's captions and negatives with their mask
    Source:   this package; contexts of selectable scope come from UGCL, arXiv 2210.08792, with the batch as the graph
    Differs:  UGCL contrasts nodes with each other without a temperature, and learns the encoder of the contexts. Here
              captions no closer than each other's hard negatives are never joined, because a teacher blind to
              composition may find them similar. n = 0 is CLIP's caption-to-image contrast with the teacher's captions
    Cost:     one teacher pass over captions and negatives, and the cosines of all captions of the batch
    """

    weight: Factor = 0.5
    """Weight of the loss, >= 0."""
    scope: Count = 1
    """Number of smoothing hops n, >= 0; 0 is the caption itself."""
    neighbours: Count = 3
    """Maximum number of neighbours that each caption chooses, >= 0."""
    least: Share = 0.0
    """Minimum cosine of two joined captions, 0 to 1; their negatives set a second bound."""

    needs = frozenset({"caption", "negative"})
    same_width = True

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the pairs of all processes."""
        captions = processes.gather_constant(teacher.require("caption"))
        negatives = processes.gather_constant(teacher.require("negative"))
        valid = processes.gather_constant(student.valid)
        edges = caption_edges(captions, negatives, valid, neighbours=self.neighbours, least=self.least)
        place = processes.places(student.image)
        contexts = smoothed(edges, captions, hops=self.scope)[place]
        images = processes.gather(student.image)
        return processes.mean(log_partition(contexts, images, student.scale, target=place))


def caption_edges(
    captions: Float[Tensor, "all dim"],
    negatives: Float[Tensor, "all negatives dim"],
    valid: Bool[Tensor, "all negatives"],
    *,
    neighbours: int,
    least: float,
) -> Bool[Tensor, "all all"]:
    """Return which captions are joined: a symmetric mask without its diagonal.

    Args:
        captions: unit-length caption embeddings.
        negatives: unit-length embeddings of each caption's negatives.
        valid: which negatives exist.
        neighbours: maximum number of neighbours that each caption chooses.
        least: minimum cosine of two joined captions.
    """
    cosine = captions @ captions.T
    near_negative = torch.full_like(cosine, -torch.inf)
    for place in range(valid.shape[1]):
        near = (negatives[:, place] @ captions.T).masked_fill(~valid[:, place, None], -torch.inf)
        near_negative = torch.maximum(near_negative, near)
    # Row i of near_negative: how similar each caption is to the nearest negative of i.
    apart = (cosine <= near_negative) | (cosine <= near_negative.T) | (cosine < least)
    chosen = cosine.masked_fill(apart.fill_diagonal_(True), -torch.inf)
    best = chosen.topk(min(neighbours, len(chosen)), dim=1)
    edges = torch.zeros_like(apart).scatter(1, best.indices, best.values.isfinite())
    return edges | edges.T


def smoothed(
    edges: Bool[Tensor, "all all"], captions: Float[Tensor, "all dim"], *, hops: int
) -> Float[Tensor, "all dim"]:
    """Return normalised captions after `hops` hops of A~ = D^-1/2 (A + I) D^-1/2; 0 hops return them unchanged."""
    joined = edges.to(captions.dtype) + torch.eye(len(edges), dtype=captions.dtype, device=captions.device)
    root = joined.sum(dim=1).rsqrt()
    adjacency = root[:, None] * joined * root[None, :]
    for _ in range(hops):
        captions = adjacency @ captions
    return normalize(captions, dim=1) if hops else captions
