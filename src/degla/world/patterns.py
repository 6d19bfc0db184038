"""Twelve patterns that fill an image, each in two colours."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

from PIL import Image, ImageDraw

from degla.world.painting import CANVAS, blank
from degla.world.vocabulary import Colour

_FAR = CANVAS + 40


def _stripes(draw: ImageDraw.ImageDraw, ink: Colour, rng: Random, *, upright: bool) -> None:
    step = rng.randint(14, 26)
    for place in range(-rng.randrange(step), CANVAS, step):
        end = place + step // 2
        draw.rectangle((place, 0, end, CANVAS) if upright else (0, place, CANVAS, end), fill=ink)


def _diagonal(draw: ImageDraw.ImageDraw, ink: Colour, rng: Random) -> None:
    step, lean = rng.randint(18, 32), rng.choice((-1, 1))
    for x in range(-2 * CANVAS - rng.randrange(step), 2 * CANVAS, step):
        draw.line((x, -20, x + lean * (CANVAS + 40), CANVAS + 20), fill=ink, width=step // 3)


def _checkerboard(draw: ImageDraw.ImageDraw, ink: Colour, rng: Random) -> None:
    side = rng.randint(12, 24)
    offset = rng.randrange(side)
    for row, y in enumerate(range(-offset, CANVAS, side)):
        for x in range(-offset + side * (row % 2), CANVAS, 2 * side):
            draw.rectangle((x, y, x + side - 1, y + side - 1), fill=ink)


def _polka_dots(draw: ImageDraw.ImageDraw, ink: Colour, rng: Random) -> None:
    step = rng.randint(20, 32)
    size, offset = step * rng.uniform(0.45, 0.62), rng.randrange(step)
    for row, y in enumerate(range(-offset, CANVAS, step)):
        for x in range(-offset - step // 2 * (row % 2), _FAR, step):
            draw.ellipse((x, y, x + size, y + size), fill=ink)


def _grid(draw: ImageDraw.ImageDraw, ink: Colour, rng: Random) -> None:
    step, width = rng.randint(18, 32), rng.randint(3, 5)
    for place in range(-rng.randrange(step), CANVAS, step):
        draw.line((place, 0, place, CANVAS), fill=ink, width=width)
    for place in range(-rng.randrange(step), CANVAS, step):
        draw.line((0, place, CANVAS, place), fill=ink, width=width)


def _zigzag(draw: ImageDraw.ImageDraw, ink: Colour, rng: Random) -> None:
    step, width, offset = rng.randint(22, 34), rng.randint(5, 9), rng.randrange(20)
    for y in range(-step, _FAR, step):
        points = [(x - offset, y + (step * 0.6 if i % 2 else 0)) for i, x in enumerate(range(0, _FAR + 20, 16))]
        draw.line(points, fill=ink, width=width)


def _waves(draw: ImageDraw.ImageDraw, ink: Colour, rng: Random) -> None:
    step, width, phase = rng.randint(20, 32), rng.randint(5, 9), rng.uniform(0, 6)
    for y in range(-step, _FAR, step):
        points = [(x, y + step * 0.36 * math.sin(x / 9 + phase)) for x in range(-4, _FAR, 4)]
        draw.line(points, fill=ink, width=width, joint="curve")


def _bullseye(draw: ImageDraw.ImageDraw, ink: Colour, rng: Random) -> None:
    step, width = rng.randint(18, 26), rng.randint(7, 10)
    x, y = rng.uniform(48, 80), rng.uniform(48, 80)
    for radius in range(step // 2, 130, step):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=ink, width=width)


def _bricks(draw: ImageDraw.ImageDraw, ink: Colour, rng: Random) -> None:
    height = rng.randint(14, 22)
    length, offset = height * 2, rng.randrange(20)
    for row, y in enumerate(range(-rng.randrange(height), CANVAS, height)):
        for x in range(-length - offset + height * (row % 2), CANVAS, length):
            draw.rectangle((x, y, x + length - 5, y + height - 5), fill=ink)


def _sunburst(draw: ImageDraw.ImageDraw, ink: Colour, rng: Random) -> None:
    x, y, count, start = rng.uniform(48, 80), rng.uniform(48, 80), rng.randint(8, 14), rng.uniform(0, 60)
    for ray in range(count):
        first = start + 360 * ray / count
        draw.pieslice((x - 200, y - 200, x + 200, y + 200), first, first + 180 / count, fill=ink)


def _confetti(draw: ImageDraw.ImageDraw, ink: Colour, rng: Random) -> None:
    for _ in range(rng.randint(45, 75)):
        x, y, a, size = rng.uniform(0, CANVAS), rng.uniform(0, CANVAS), rng.uniform(0, 6.3), rng.uniform(5, 8)
        draw.line((x, y, x + size * math.cos(a), y + size * math.sin(a)), fill=ink, width=4)


_PAINTERS: Final[dict[str, Callable[[ImageDraw.ImageDraw, Colour, Random], None]]] = {
    "horizontal stripes": partial(_stripes, upright=False),
    "vertical stripes": partial(_stripes, upright=True),
    "diagonal stripes": _diagonal,
    "checkerboard": _checkerboard,
    "polka dots": _polka_dots,
    "grid": _grid,
    "zigzag": _zigzag,
    "waves": _waves,
    "bullseye": _bullseye,
    "bricks": _bricks,
    "sunburst": _sunburst,
    "confetti": _confetti,
}

PATTERNS: Final = tuple(_PAINTERS)
"""The names of the patterns."""


def paint_pattern(name: str, *, ground: Colour, ink: Colour, rng: Random) -> Image.Image:
    """Paint a canvas filled with a pattern."""
    canvas = blank(ground)
    _PAINTERS[name](ImageDraw.Draw(canvas), ink, rng)
    return canvas
