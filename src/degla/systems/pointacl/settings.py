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
    """Defaults are those of a run of minutes; behind each, the value of Point-MAE or the paper."""

    data: tuple[str, ...] = ("solids",)
    """solids (ten, drawn here), or a folder of ModelNet40, ScanObjectNN or ShapeNet-55."""
    clouds: AtLeastOne = 800
    """Unlabelled clouds to train on, drawn by the seed (41,952 of ShapeNet-55)."""
    labelled: AtLeastOne = 200
    """Clouds with labels for the linear classifier on frozen features."""
    test_clouds: AtLeastOne = 600
    """Clouds to test with."""
    points: AtLeastOne = 256
    """Points of a cloud (1024)."""
    patches: AtLeastOne = 24
    """Patches of a cloud (64)."""
    patch_points: AtLeastOne = 12
    """Points of a patch (32)."""
    width: AtLeastOne = 64
    """Of the transformer; a multiple of 4, its number of heads (384)."""
    blocks: AtLeastOne = 3
    """Of the encoder (12); the decoder has one (4)."""
    epochs: AtLeastOne = 12
    """Passes over the clouds (300)."""
    batch: AtLeastOne = 64
    """Clouds a step (128)."""
    lr: LearningRate = 1e-3
    """Largest rate of AdamW (1e-3)."""
    mask: Share = 0.6
    """Share of the patches that is left out (0.6)."""
    weight: Factor = 0.1
    """Factor of the contrast."""
    temperature: Positive = 0.1
    """Of the contrast."""
    sampling_temperature: Positive = 0.02
    """Of the sampling by significance: small values leave out the patches with most of it; they sum to 1."""
    part: MeasuredPart = "test"
    """"test", or "validation": measured on further training clouds, and settings are chosen."""


def check_settings(settings: PointaclSettings) -> None:
    """Refuse what no field says for itself.

    Raises:
        InputError: the width has no whole heads, or a mask leaves out no patch or all of them.
    """
    if settings.width % HEADS:
        raise InputError(f"--width is {settings.width}; it must be a multiple of {HEADS}, the number of heads.")
    left = int(settings.mask * settings.patches + 1e-9)
    if not 0 < left < settings.patches:
        raise InputError(
            f"--mask {settings.mask:g} leaves out {left} of {settings.patches} patches; one must stay, "
            "and one must not."
        )
