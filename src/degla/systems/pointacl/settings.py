"""Settings of PointACL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from degla.errors import InputError
from degla.ranges import AtLeastOne, Factor, LearningRate, Positive, Share
from degla.systems.system import MeasuredPart, SystemSettings

HEADS: Final = 4


@dataclass(frozen=True)
class PointaclSettings(SystemSettings):
    """Settings of PointACL. Defaults are for a run of minutes; Point-MAE's or the paper's value is in parentheses."""

    data: tuple[str, ...] = ("solids",)
    """solids (ten synthetic ones), or a folder of ModelNet40, ScanObjectNN or ShapeNet-55."""
    clouds: AtLeastOne = 800
    """Unlabelled clouds to train on, drawn with the seed (41,952 of ShapeNet-55)."""
    labelled: AtLeastOne = 200
    """Labelled clouds for the linear classifier on frozen features."""
    test_clouds: AtLeastOne = 600
    """Test clouds."""
    points: AtLeastOne = 256
    """Points per cloud (1024)."""
    patches: AtLeastOne = 24
    """Patches per cloud (64)."""
    patch_points: AtLeastOne = 12
    """Points per patch (32)."""
    width: AtLeastOne = 64
    """Width of the transformer, a multiple of 4, its number of heads (384)."""
    blocks: AtLeastOne = 3
    """Blocks of the encoder (12); the decoder has one (4)."""
    epochs: AtLeastOne = 12
    """Passes over the clouds (300)."""
    batch: AtLeastOne = 64
    """Clouds per step (128)."""
    lr: LearningRate = 1e-3
    """Peak learning rate of AdamW (1e-3)."""
    mask: Share = 0.6
    """Share of the patches to leave out (0.6)."""
    weight: Factor = 0.1
    """Weight of the contrast."""
    temperature: Positive = 0.1
    """Temperature of the contrast."""
    sampling_temperature: Positive = 0.02
    """Temperature of sampling by significance, which sums to 1; small values leave out the most significant patches."""
    part: MeasuredPart = "test"
    """"test", or "validation", to choose settings on other training clouds."""


def check_settings(settings: PointaclSettings) -> None:
    """Check constraints between settings.

    Raises:
        InputError: the width is not a multiple of the number of heads, or a mask leaves out no patch or all of them.
    """
    if settings.width % HEADS:
        raise InputError(f"--width is {settings.width}; it must be a multiple of {HEADS}, the number of heads.")
    count = int(settings.mask * settings.patches + 1e-9)
    if not 0 < count < settings.patches:
        raise InputError(
            f"--mask {settings.mask:g} leaves out {count} of {settings.patches} patches; it must leave out at least "
            "one and keep at least one."
        )
