"""ExCon's network, its explanations, its training views, and supervised contrast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, normalize

from degla.losses.core.partition import log_partition, own_place
from degla.model.evidence import above, enlarge, grad_cam, unit_range
from degla.systems.learning import with_weights
from degla.systems.system import Weights

Pixels = Float[Tensor, "batch 3 height width"]
_WIDTHS = (16, 32, 64)
BASE_TEMPERATURE = 0.07
"""t0: the loss is multiplied by t / t0."""


class Network(nn.Module):
    """Three convolutions whose mean gives the features; a head for the contrast, and a linear classifier."""

    mean: Tensor
    std: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((3, *_WIDTHS)):
            step = 1 if before == 3 else 2
            layers += [nn.Conv2d(before, after, 3, step, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        width = _WIDTHS[-1]
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.classifier = nn.Linear(width, classes)
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("std", torch.ones(3, 1, 1))

    def classify(self, states: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of the classes."""
        return self.classifier(states.mean(dim=(2, 3)))  # type: ignore[no-any-return]

    def embed(self, images: Pixels) -> Float[Tensor, "batch dim"]:
        """Return the unit embeddings of the head."""
        return normalize(self.head(self.body(images).mean(dim=(2, 3))), dim=1)

    def normalised(self, pixels: Tensor) -> Pixels:
        """Normalise bytes for the network; 0 is the mean colour."""
        return (pixels.float() / 255 - self.mean) / self.std


def load_network(weights: Weights) -> Network:
    """Build the network with these weights, in evaluation mode."""
    return with_weights(Network(len(weights["classifier.bias"])), weights)


@contextmanager
def evaluating(network: Network) -> Iterator[None]:
    """Use evaluation mode without gradients for a block, and restore the mode afterwards."""
    mode = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(mode)


def explain(network: Network, images: Pixels, label: Int[Tensor, " batch"]) -> Float[Tensor, "batch height width"]:
    """Return Grad-CAM of a class for each image, 0 to 1; the network does not change."""
    with evaluating(network):
        states = network.body(images)
        evidence = grad_cam(states, lambda leaf: network.classify(leaf).gather(1, label[:, None])[:, 0])
        return unit_range(enlarge(evidence, (images.shape[2], images.shape[3])))


def masked_views(
    network: Network, images: Pixels, label: Int[Tensor, " batch"], *, threshold: float
) -> tuple[Pixels, Tensor]:
    """Return the part of each image that explains its own class, and whether the class is still found in it."""
    masked = images * above(explain(network, images, label), threshold)[:, None]
    with evaluating(network):
        return masked, network.classify(network.body(masked)).argmax(dim=1) == label


def augment(images: Pixels, *, least: float = 0.2) -> Pixels:
    """Crop a random share of the area, flip at random, change brightness and contrast, and remove colour of some."""
    count = len(images)
    side = (least + (1 - least) * torch.rand(count)).sqrt()
    move = (2 * torch.rand(count, 2) - 1) * (1 - side)[:, None]
    turn = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    zero = torch.zeros(count)
    affine = torch.stack([torch.stack([side * turn, zero, move[:, 0]], 1), torch.stack([zero, side, move[:, 1]], 1)], 1)
    views = grid_sample(images, affine_grid(affine, list(images.shape), align_corners=False), align_corners=False)
    jitter = (torch.rand(count, 1, 1, 1) < 0.8).float()
    factor = 1 + jitter * (0.8 * torch.rand(count, 1, 1, 1) - 0.4)
    shift = jitter * (0.8 * torch.rand(count, 3, 1, 1) - 0.4)
    views = views * factor + shift
    grey = views.mean(dim=1, keepdim=True).expand_as(views)
    return torch.where(torch.rand(count, 1, 1, 1) < 0.2, grey, views)


def supervised_contrast(
    views: Float[Tensor, "views dim"],
    label: Int[Tensor, " views"],
    *,
    temperature: float,
    background: Float[Tensor, "backgrounds dim"] | None = None,
) -> Float[Tensor, ""]:
    """Return -(t/t0) mean_i 1/|P(i)| sum_{p in P(i)} log e^{z_i z_p / t} / sum_{a != i} e^{z_i z_a / t}.

    Args:
        views: unit rows; each is an i, and a p of the others with its label.
        label: class of each view. Every class needs two views or more.
        temperature: t.
        background: unit rows that are only in the sum over a.

    Raises:
        ValueError: a view is the only one of its class.
    """
    alike = (label[:, None] == label[None, :]).fill_diagonal_(False)
    count = alike.sum(dim=1)
    if not bool((count > 0).all()):
        raise ValueError(f"class {int(label[count == 0][0])} has one view; supervised contrast needs two or more")
    others = views if background is None else torch.cat([views, background])
    scale = views.new_full((), 1 / temperature)
    whole = log_partition(views, others, scale, absent=lambda rows: own_place(rows, others))
    pulled = (views * (alike.to(views) @ views)).sum(dim=1) * scale / count
    return temperature / BASE_TEMPERATURE * (whole - pulled).mean()
