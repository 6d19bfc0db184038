"""Contextual contrast: a caption, smoothed over the captions near it, finds its image among those of the batch."""

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
    """Pull each image to the teacher's captions around its own; push the images of other captions away from them.

    Formula:  mean_i -log e^{s<c_i,v_i>} / sum_j e^{s<c_i,v_j>},  c_i: row i of A~^n Y brought to length one
              v: images, Y: teacher captions (no gradient), all of the global batch, s: `scale`, n: `scope`;
              A~ = D^-1/2 (A + I) D^-1/2; A_ij = 1 where j is one of the `neighbours` captions most similar to i, or i
              of those to j, at a cosine of `least` or more, and neither is as similar to an own negative of the other
    Shapes:   see Embeddings; returns a scalar, the mean over pairs
    Scope:    global - gathers images, and of the teacher captions, negatives and their mask
    Source:   this package's own; contexts of chosen scope are those of UGCL, arXiv 2210.08792, with the batch as graph
    Differs:  UGCL contrasts nodes with each other without a temperature, and learns the encoder of the contexts. Its
              own hard negatives are never edges, however similar a teacher that knows no composition finds them. n = 0
              is CLIP's contrast of captions with images, with the teacher's captions
    Cost:     one teacher forward of captions and negatives, and the cosines of all captions of the batch
    """

    weight: Factor = 0.5
    """Factor of the loss, >= 0."""
    scope: Count = 1
    """n, hops of smoothing, >= 0; 0 is the caption itself."""
    neighbours: Count = 3
    """Captions that each is joined with at most, >= 0."""
    least: Share = 0.0
    """Cosine of two captions that may be joined, 0 to 1; own negatives are a bound besides."""

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
    """Which captions are joined; the same both ways, none with itself.

    Args:
        captions: of length one.
        negatives: of each caption.
        valid: which of them there are.
        neighbours: captions that each chooses at most.
        least: cosine of two that may be joined.
    """
    cosine = captions @ captions.T
    near_negative = torch.full_like(cosine, -torch.inf)
    for place in range(valid.shape[1]):
        near = (negatives[:, place] @ captions.T).masked_fill(~valid[:, place, None], -torch.inf)
        near_negative = torch.maximum(near_negative, near)
    # Row i of near_negative: how similar each caption is to the negative of i that it is nearest to.
    apart = (cosine <= near_negative) | (cosine <= near_negative.T) | (cosine < least)
    chosen = cosine.masked_fill(apart.fill_diagonal_(True), -torch.inf)
    best = chosen.topk(min(neighbours, len(chosen)), dim=1)
    edges = torch.zeros_like(apart).scatter(1, best.indices, best.values.isfinite())
    return edges | edges.T


def smoothed(
    edges: Bool[Tensor, "all all"], captions: Float[Tensor, "all dim"], *, hops: int
) -> Float[Tensor, "all dim"]:
    """Captions of length one after n hops of A~ = D^-1/2 (A + I) D^-1/2; 0 hops leave them as they are."""
    joined = edges.to(captions.dtype) + torch.eye(len(edges), dtype=captions.dtype, device=captions.device)
    root = joined.sum(dim=1).rsqrt()
    adjacency = root[:, None] * joined * root[None, :]
    for _ in range(hops):
        captions = adjacency @ captions
    return normalize(captions, dim=1) if hops else captions
