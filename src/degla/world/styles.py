"""Styles: what a whole picture can be changed to, so that its class stays true and pre-training never showed it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

import numpy as np

from degla.world.painting import Picture

_MOSAIC_PIXELS: Final = 4
_SNOW_SHARE: Final = 0.45


def _plain(picture: Picture, rng: Random) -> Picture:
    """As the painter left it: the style of pre-training and of the world's benchmark."""
    return picture


def _turned(picture: Picture, rng: Random) -> Picture:
    """A quarter turn to the left."""
    return np.ascontiguousarray(np.rot90(picture))


def _sketched(picture: Picture, rng: Random) -> Picture:
    """Dark lines on white where brightness or colour changes, the strongest change black."""
    values = np.pad(picture.astype(np.float32), ((0, 1), (0, 1), (0, 0)), mode="edge")
    down, right = np.diff(values, axis=0)[:, :-1], np.diff(values, axis=1)[:-1]
    change = np.sqrt((down**2 + right**2).sum(axis=2))
    grey = 255.0 * (1.0 - change / max(float(change.max()), 1.0))
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def _mosaic(picture: Picture, rng: Random) -> Picture:
    """Tiles of 4 x 4 pixels, each of its mean colour."""
    height, width, channels = picture.shape
    side = _MOSAIC_PIXELS
    tiles = picture.reshape(height // side, side, width // side, side, channels).mean(axis=(1, 3))
    return np.repeat(np.repeat(tiles.astype(np.uint8), side, axis=0), side, axis=1)


def _snowy(picture: Picture, rng: Random) -> Picture:
    """Nearly half of all pixels, drawn at random, are white."""
    drawn = np.random.default_rng(rng.getrandbits(64)).random(picture.shape[:2]) < _SNOW_SHARE
    return np.where(drawn[:, :, None], np.uint8(255), picture)


STYLES: Final[dict[str, Callable[[Picture, Random], Picture]]] = {
    "plain": _plain,
    "turned": _turned,
    "sketched": _sketched,
    "mosaic": _mosaic,
    "snowy": _snowy,
}
"""By name: a picture of 64 x 64 and the generator of what is random in the style enter, the changed picture leaves."""
