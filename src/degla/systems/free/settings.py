"""Settings of FREE."""

from __future__ import annotations

from dataclasses import dataclass

from degla.ranges import AtLeastOne, Factor, LearningRate, Share
from degla.systems.system import MeasuredPart, SystemSettings


@dataclass(frozen=True)
class FreeSettings(SystemSettings):
    """How features are made and refined, and for what."""

    data: tuple[str, ...] = ("made",)
    """"made" features that compose, "clip" (a model's embeddings of drawn shapes), a folder of xlsa17, or an .npz."""
    model: str = "world"
    """Of "clip": any model that degla evaluate takes."""
    part: MeasuredPart = "test"
    """"test", or "validation": classes trained on play the unseen ones, and settings are chosen."""
    hidden: AtLeastOne = 128
    """Width of all hidden layers, >= 1 (4,096 in arXiv 2107.13807)."""
    epochs: AtLeastOne = 150
    """Passes over the training rows, >= 1 (301 to 601 there)."""
    batch: AtLeastOne = 64
    """Rows a step, >= 1 (64 to 512 there)."""
    lr: LearningRate = 1e-3
    """Of Adam with betas 0.5 and 0.999, > 0 (1e-5 to 2e-4 there)."""
    critic_steps: AtLeastOne = 1
    """Steps of critic and refiner for one of the generator, >= 1."""
    gan: Factor = 1.0
    """Factor of the critic's part beside a sum over features, >= 0 (10 there for 2,048 features, 1 on SUN)."""
    penalty: Factor = 10.0
    """Factor of the gradient penalty, >= 0 (begins at 10 and adapts there)."""
    centre: Factor = 0.5
    """Factor of the margin to centres, >= 0."""
    margin: Factor = 4.0
    """D of the margin to centres, >= 0 (50 to 200 there, for 2,048 features)."""
    balance: Share = 0.8
    """g of the margin to centres, 0 to 1 (0.5 or 0.8 there)."""
    cycle: Factor = 0.1
    """Factor of the consistency of semantics, >= 0 (0.001, 0.1 on SUN)."""
    made_rows: AtLeastOne = 60
    """Features made of each unseen class, >= 1 (300 to 4,600 there)."""
