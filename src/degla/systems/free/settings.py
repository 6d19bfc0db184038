"""Settings of FREE."""

from __future__ import annotations

from dataclasses import dataclass

from degla.ranges import AtLeastOne, Factor, LearningRate, Share
from degla.systems.system import MeasuredPart, SystemSettings


@dataclass(frozen=True)
class FreeSettings(SystemSettings):
    """Settings of generating and refining features."""

    data: tuple[str, ...] = ("made",)
    """"made" (compositional features), "clip" (a model's embeddings of drawn shapes), an xlsa17 folder, or an .npz."""
    model: str = "world"
    """Model for "clip": any that degla evaluate accepts."""
    part: MeasuredPart = "test"
    """"test", or "validation", to choose settings with some training classes playing the unseen ones."""
    hidden: AtLeastOne = 128
    """Width of all hidden layers, >= 1 (4,096 in arXiv 2107.13807)."""
    epochs: AtLeastOne = 150
    """Passes over the training rows, >= 1 (301 to 601 there)."""
    batch: AtLeastOne = 64
    """Rows per step, >= 1 (64 to 512 there)."""
    lr: LearningRate = 1e-3
    """Learning rate of Adam with betas 0.5 and 0.999, > 0 (1e-5 to 2e-4 there)."""
    critic_steps: AtLeastOne = 1
    """Steps of critic and refiner per generator step, >= 1."""
    gan: Factor = 1.0
    """Weight of the critic's loss relative to a sum over features, >= 0 (10 there for 2,048 features, 1 on SUN)."""
    penalty: Factor = 10.0
    """Weight of the gradient penalty, >= 0 (starts at 10 and adapts there)."""
    centre: Factor = 0.5
    """Weight of the margin to centres, >= 0."""
    margin: Factor = 4.0
    """D of the margin to centres, >= 0 (50 to 200 there, for 2,048 features)."""
    balance: Share = 0.8
    """g of the margin to centres, 0 to 1 (0.5 or 0.8 there)."""
    cycle: Factor = 0.1
    """Weight of the consistency of semantics, >= 0 (0.001, 0.1 on SUN)."""
    made_rows: AtLeastOne = 60
    """Generated features per unseen class, >= 1 (300 to 4,600 there)."""
