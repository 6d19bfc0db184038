"""Settings of ExCon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from degla.ranges import AtLeastOne, Count, LearningRate, Positive, Share
from degla.systems.system import MeasuredPart, SystemSettings

FASHION: Final = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist installs its files."""


def real_images() -> str:
    """Return "fashion" if Debian's package is installed, else "world"."""
    return "fashion" if (FASHION / "train-images-idx3-ubyte.gz").is_file() else "world"


@dataclass(frozen=True)
class ExconSettings(SystemSettings):
    """Settings of ExCon. Defaults are for a run of minutes; the paper's value on CIFAR-100 is in parentheses."""

    data: tuple[str, ...] = (real_images(),)
    """fashion (Debian's dataset-fashion-mnist), world, shapes, shortcut, or a folder of Fashion-MNIST, CIFAR-100,
    Tiny-ImageNet, or of train and test with one subfolder per class."""
    images: AtLeastOne = 1000
    """Training images, drawn with the seed (50,000)."""
    test_images: AtLeastOne = 500
    """Test images, drawn with the seed (10,000)."""
    epochs: AtLeastOne = 10
    """Passes over the training images (200)."""
    explained_from: Count = 4
    """First epoch with masked views, counted from 0 (50)."""
    batch: AtLeastOne = 128
    """Images per step (256)."""
    lr: LearningRate = 0.1
    """Peak learning rate of SGD with momentum 0.9, for network and classifier (0.5)."""
    temperature: Positive = 0.1
    """Temperature t."""
    threshold: Share = 0.5
    """Evidence above which a pixel is kept."""
    part: MeasuredPart = "test"
    """"test", or "validation", to choose settings on held-out training images."""
