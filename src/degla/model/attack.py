"""Attacks on image pixels: projected gradient ascent inside a maximum-norm ball (PGD, arXiv 1706.06083)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from degla.model.encoder import Encoder, send
from degla.ranges import AtLeastOne, Checked, DecayRate, Positive, Share

Gradient = Callable[[Float[Tensor, "batch 3 height width"]], Float[Tensor, "batch 3 height width"]]


@dataclass(frozen=True)
class AttackConfig(Checked, section="attack"):
    """Perturb the training images before each step to raise the loss (adversarial training)."""

    epsilon: Share = 0.0
    """Largest change of a pixel whose range is 0 to 1; 0 for no attack (1/255 in TeCoA, 2/255 or 4/255 in FARE)."""
    steps: AtLeastOne = 10
    """Steps of the gradient ascent, 1 or more (2 in TeCoA, arXiv 2212.07016; 10 in FARE, arXiv 2402.12336)."""
    step_size: Positive = 1 / 255
    """Change of a pixel per step, > 0, on the scale of epsilon (1/255 in TeCoA and FARE)."""
    momentum: DecayRate = 0.0
    """Share of the last step's direction, a sign, added to the sign of the gradient, 0 to below 1 (none in TeCoA;
    0.9 in FARE); it matters only where the gradient is 0."""
    random_start: bool = True
    """Start at a random point within epsilon instead of the image itself (on in TeCoA and FARE); true or false."""


def perturb(
    images: Float[Tensor, "batch 3 height width"],
    *,
    config: AttackConfig,
    mean: Float[Tensor, "3 1 1"],
    std: Float[Tensor, "3 1 1"],
    gradient: Gradient,
    start: Float[Tensor, "batch 3 height width"] | None = None,
) -> Float[Tensor, "batch 3 height width"]:
    """Change images to raise a loss: v = sign(momentum v + sign(gradient)), a step along v, then projection to the box.

    The box contains all images whose pixels differ by at most epsilon and lie between 0 and 1. Pixels, epsilon and the
    step size refer to values before normalisation.

    Args:
        images: normalised; not modified.
        config: the attack's settings.
        mean: what normalisation subtracts from pixels of 0 to 1.
        std: what it divides by.
        gradient: of the loss with respect to normalised images.
        start: initial change of the pixels; none by default.

    Returns:
        The images after the last step, normalised.
    """
    pixels = images * std + mean
    # Rounding may leave a pixel just outside 0 to 1; leaving it unchanged must stay allowed.
    lowest = (-pixels).clamp(-config.epsilon, 0.0)
    highest = (1.0 - pixels).clamp(0.0, config.epsilon)
    change = torch.zeros_like(images) if start is None else start.clamp(lowest, highest)
    velocity = torch.zeros_like(images)
    for _ in range(config.steps):
        # Normalisation preserves signs, so the gradient with respect to its output will do.
        velocity = (config.momentum * velocity + gradient(images + change / std).sign()).sign()
        change = (change + config.step_size * velocity).clamp(lowest, highest)
    return images + change / std


def draw_start(
    seeds: Sequence[int], *, epsilon: float, like: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch 3 height width"]:
    """Draw a pixel change for each image, uniform between minus and plus epsilon, from its own seed."""
    generator = torch.Generator()
    noise = [torch.rand(like.shape[1:], generator=generator.manual_seed(seed)) for seed in seeds]
    return (2 * send(torch.stack(noise).to(like.dtype), like.device) - 1) * epsilon


@contextlib.contextmanager
def at_rest(encoder: Encoder) -> Iterator[None]:
    """Keep the encoder in evaluation mode and its parameters without gradients inside the block."""
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
    """Return the mean and standard deviation that a model normalises images by, with device and dtype of `like`."""
    settings = encoder.description.preprocess_config
    mean, std = (torch.tensor(settings[name], dtype=like.dtype).view(3, 1, 1) for name in ("mean", "std"))
    return send(mean, like.device), send(std, like.device)
