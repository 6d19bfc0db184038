"""Attacks on the pixels of images: projected gradient ascent inside a box of maximum norm (PGD, arXiv 1706.06083)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from degla.model.encoder import Encoder
from degla.ranges import AtLeastOne, Checked, DecayRate, Positive, Share

Gradient = Callable[[Float[Tensor, "batch 3 height width"]], Float[Tensor, "batch 3 height width"]]


@dataclass(frozen=True)
class AttackConfig(Checked, section="attack"):
    """Attack the training images before each step, so that they raise the loss that the step then lowers."""

    epsilon: Share = 0.0
    """Largest change of a pixel whose range is 0 to 1; 0 for no attack (1/255 in TeCoA, 2/255 or 4/255 in FARE)."""
    steps: AtLeastOne = 10
    """Steps of the ascent, 1 or more (2 in TeCoA, arXiv 2212.07016; 10 in FARE, arXiv 2402.12336)."""
    step_size: Positive = 1 / 255
    """Change of a pixel in each step, > 0, on the scale of epsilon (1/255 in TeCoA and FARE)."""
    momentum: DecayRate = 0.0
    """Share of the last step's direction, a sign, that is added to the sign of the gradient, 0 to below 1 (none in
    TeCoA; 0.9 in FARE); it decides only where the gradient is 0."""
    random_start: bool = True
    """Begin anywhere within epsilon, not at the image itself (on in TeCoA and FARE); true or false."""


def perturb(
    images: Float[Tensor, "batch 3 height width"],
    *,
    config: AttackConfig,
    mean: Float[Tensor, "3 1 1"],
    std: Float[Tensor, "3 1 1"],
    gradient: Gradient,
    start: Float[Tensor, "batch 3 height width"] | None = None,
) -> Float[Tensor, "batch 3 height width"]:
    """Change images so that a loss rises: v = sign(momentum v + sign(gradient)), then a step along v, then the box.

    The box is that of all pictures whose pixels differ by at most epsilon and lie between 0 and 1. Pixels are those
    before normalisation, and so are epsilon and the step.

    Args:
        images: normalised; they are left alone.
        config: the attack's settings.
        mean: what normalisation subtracts from pixels of 0 to 1.
        std: what it divides by.
        gradient: of the loss in normalised images.
        start: change of the pixels to begin with; none by default.

    Returns:
        The images after the last step, normalised.
    """
    pixels = images * std + mean
    # Rounding may leave a pixel just outside of 0 to 1; not to change it must stay allowed.
    lowest = (-pixels).clamp(-config.epsilon, 0.0)
    highest = (1.0 - pixels).clamp(0.0, config.epsilon)
    change = torch.zeros_like(images) if start is None else start.clamp(lowest, highest)
    velocity = torch.zeros_like(images)
    for _ in range(config.steps):
        # Normalisation keeps every sign, so the gradient in its output serves.
        velocity = (config.momentum * velocity + gradient(images + change / std).sign()).sign()
        change = (change + config.step_size * velocity).clamp(lowest, highest)
    return images + change / std


def draw_start(
    seeds: Sequence[int], *, epsilon: float, like: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch 3 height width"]:
    """A change of the pixels of each image, even between minus and plus epsilon, by a generator of its own seed."""
    generator = torch.Generator()
    drawn = [torch.rand(like.shape[1:], generator=generator.manual_seed(seed)) for seed in seeds]
    return (2 * torch.stack(drawn).to(like, non_blocking=True) - 1) * epsilon


@contextlib.contextmanager
def at_rest(encoder: Encoder) -> Iterator[None]:
    """The encoder in evaluation mode and without gradients of its own, for the length of the block."""
    training = encoder.training
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    encoder.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        encoder.train(training)


def normalisation(encoder: Encoder, *, like: Tensor) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
    """Mean and standard deviation by which a model's pictures are normalised; device and type are those of `like`."""
    settings = encoder.description.preprocess_config
    mean, std = (torch.tensor(settings[name], dtype=torch.float64).view(3, 1, 1) for name in ("mean", "std"))
    return mean.to(like, non_blocking=True), std.to(like, non_blocking=True)
