"""Painting with Pillow: shapes, textures, scenes. Drawn at twice the size and halved, for smooth edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from degla.world.scenes import SIDE, Scene, Thing
from degla.world.vocabulary import Colour

Picture = NDArray[np.uint8]
"""RGB image, [64, 64, 3], 0 to 255."""

Points = list[tuple[float, float]]

CANVAS: Final = 2 * SIDE


def _arc(start: float, stop: float, *, radius: float = 1.0, x: float = 0.0) -> Points:
    angles = [math.radians(start + (stop - start) * i / 24) for i in range(25)]
    return [(x + radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _corners(count: int, *, start: float = -90.0, inner: float | None = None) -> Points:
    """A regular polygon, or a star when `inner` is given."""
    total = count * (2 if inner else 1)
    radii = [1.0 if i % 2 == 0 or inner is None else inner for i in range(total)]
    angles = [math.radians(start + 360 * i / total) for i in range(total)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _heart() -> Points:
    points = []
    for i in range(32):
        t = 2 * math.pi * i / 32
        x = 16 * math.sin(t) ** 3
        y = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
        points.append((x / 16.5, (y - 2) / 16.5))
    return points


def _cross() -> Points:
    a = 0.36
    quarter = [(-a, -a), (-a, -1.0), (a, -1.0)]
    points: Points = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return points


OUTLINES: Final[dict[str, Points]] = {
    "circle": _arc(0, 360),
    "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    "triangle": [(0, -1.0), (1.0, 0.82), (-1.0, 0.82)],
    "star": _corners(5, inner=0.44),
    "heart": _heart(),
    "cross": _cross(),
    "ring": _arc(0, 360) + _arc(360, 0, radius=0.58),
    "arrow": [(0.0, -1.0), (0.8, -0.1), (0.32, -0.1), (0.32, 1.0), (-0.32, 1.0), (-0.32, -0.1), (-0.8, -0.1)],
    "diamond": [(0, -1.05), (0.7, 0), (0, 1.05), (-0.7, 0)],
    "hexagon": _corners(6, start=0.0),
    "crescent": _arc(60, 300) + _arc(-64, -296, radius=0.95, x=0.52),
    "oval": [(x, 0.58 * y) for x, y in _arc(0, 360)],
    "semicircle": [(x, y + 0.45) for x, y in _arc(180, 360)],
    "trapezoid": [(-0.5, -0.65), (0.5, -0.65), (1.0, 0.65), (-1.0, 0.65)],
}
"""Outlines of about unit radius, x to the right and y down. A ring's outline follows its outer and inner rim."""


def blank(colour: Colour) -> Image.Image:
    """Return a canvas of one colour at twice the final size."""
    return Image.new("RGB", (CANVAS, CANVAS), colour)


def shade_of(tint: Colour) -> Colour:
    """Return the second colour of a texture: darker for light tints, lighter for dark ones."""
    red, green, blue = tint
    if 0.3 * red + 0.59 * green + 0.11 * blue > 105:
        return int(red * 0.42), int(green * 0.42), int(blue * 0.42)
    return int(red + (255 - red) * 0.62), int(green + (255 - green) * 0.62), int(blue + (255 - blue) * 0.62)


def _striped(draw: ImageDraw.ImageDraw, width: int, height: int, shade: Colour) -> None:
    for y in range(0, height, 12):
        draw.rectangle((0, y, width, y + 5), fill=shade)


def _dotted(draw: ImageDraw.ImageDraw, width: int, height: int, shade: Colour) -> None:
    for row, y in enumerate(range(0, height, 10)):
        for x in range(5 * (row % 2), width, 11):
            draw.ellipse((x, y, x + 5, y + 5), fill=shade)


def _plaid(draw: ImageDraw.ImageDraw, width: int, height: int, shade: Colour) -> None:
    for y in range(2, height, 12):
        draw.rectangle((0, y, width, y + 3), fill=shade)
    for x in range(2, width, 12):
        draw.rectangle((x, 0, x + 3, height), fill=shade)


_TEXTURES: Final[dict[str, Callable[[ImageDraw.ImageDraw, int, int, Colour], None]]] = {
    "striped": _striped,
    "dotted": _dotted,
    "plaid": _plaid,
}


def paint_thing(canvas: Image.Image, thing: Thing) -> None:
    """Paint one thing onto a canvas of twice the final size."""
    turn = math.radians(thing.angle)
    cos, sin = 2 * thing.radius * math.cos(turn), 2 * thing.radius * math.sin(turn)
    centre_x, centre_y = 2 * thing.x, 2 * thing.y
    points = [(centre_x + cos * x - sin * y, centre_y + sin * x + cos * y) for x, y in OUTLINES[thing.shape]]
    if thing.texture is None:
        ImageDraw.Draw(canvas).polygon(points, fill=thing.tint)
        return
    left, top = (int(min(p[axis] for p in points)) - 1 for axis in (0, 1))
    right, bottom = (int(max(p[axis] for p in points)) + 2 for axis in (0, 1))
    size = (right - left, bottom - top)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in points], fill=255)
    surface = Image.new("RGB", size, thing.tint)
    _TEXTURES[thing.texture](ImageDraw.Draw(surface), *size, shade_of(thing.tint))
    canvas.paste(surface, (left, top), mask)


@cache
def _noise_bank() -> NDArray[np.float32]:
    """Fixed unit noise; images take windows of it, which is ten times faster than drawing new numbers."""
    return np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)


def finish(canvas: Image.Image, *, noise: float = 0.0, grain: int = 0) -> Picture:
    """Halve a canvas to 64 x 64 and add pixel noise of the given standard deviation (grey levels)."""
    picture: Picture = np.asarray(canvas.reduce(2))
    if noise <= 0:
        return picture
    count = picture.size
    start = grain % ((1 << 20) - count)
    window = _noise_bank()[start : start + count].reshape(picture.shape)
    return np.clip(picture + noise * window, 0, 255).astype(np.uint8)


def random_finish(canvas: Image.Image, rng: Random) -> Picture:
    """Finish a canvas, with noise on half of the images."""
    noise = rng.uniform(3, 12) if rng.random() < 0.5 else 0.0
    return finish(canvas, noise=noise, grain=rng.getrandbits(31))


def render(scene: Scene) -> Picture:
    """Render a scene as an image, [64, 64, 3] uint8. The outer thing of "inside" is painted first."""
    canvas = blank(scene.background)
    paint_thing(canvas, scene.second)
    paint_thing(canvas, scene.first)
    return finish(canvas, noise=scene.noise, grain=scene.grain)
