"""Motifs that fill an image: twelve patterns, each in two colours, and ten kinds of places.

Places are painted procedurally with random light, horizon and details.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

from PIL import Image, ImageDraw

from degla.world.painting import CANVAS, blank
from degla.world.scenes import jitter
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


_PATTERN_PAINTERS: Final[dict[str, Callable[[ImageDraw.ImageDraw, Colour, Random], None]]] = {
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

PATTERNS: Final = tuple(_PATTERN_PAINTERS)
"""The names of the patterns."""


def paint_pattern(name: str, *, ground: Colour, ink: Colour, rng: Random) -> Image.Image:
    """Paint a canvas filled with a pattern."""
    canvas = blank(ground)
    _PATTERN_PAINTERS[name](ImageDraw.Draw(canvas), ink, rng)
    return canvas


def _fade(draw: ImageDraw.ImageDraw, top: Colour, bottom: Colour, *, stop: int = CANVAS) -> None:
    for y in range(0, stop, 4):
        share = y / stop
        red, green, blue = (round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
        draw.rectangle((0, y, CANVAS, y + 3), fill=(red, green, blue))


def _hills(draw: ImageDraw.ImageDraw, colour: Colour, rng: Random, *, level: float, height: float) -> None:
    phase, length = rng.uniform(0, 6.3), rng.uniform(16, 34)
    line = [(x, level + height * math.sin(x / length + phase)) for x in range(0, CANVAS + 8, 8)]
    draw.polygon([(0, CANVAS), *line, (CANVAS, CANVAS)], fill=colour)


def _disc(draw: ImageDraw.ImageDraw, colour: Colour, *, x: float, y: float, radius: float) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _night_sky(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    _fade(draw, jitter((8, 10, 34), rng, 6), jitter((30, 34, 80), rng, 8))
    for _ in range(rng.randint(30, 60)):
        _disc(draw, (255, 255, 220), x=rng.uniform(0, CANVAS), y=rng.uniform(0, CANVAS), radius=rng.choice((1, 1, 2)))
    if rng.random() < 0.6:
        _disc(draw, (240, 236, 200), x=rng.uniform(20, 108), y=rng.uniform(16, 60), radius=rng.uniform(8, 14))


def _desert(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    _fade(draw, jitter((120, 190, 235), rng), jitter((230, 220, 190), rng))
    _disc(draw, (255, 240, 150), x=rng.uniform(10, 118), y=rng.uniform(12, 40), radius=rng.uniform(7, 12))
    for level in (66, 84, 104):
        tint = jitter((226 - level // 2, 176 - level // 2, 100 - level // 3), rng)
        _hills(draw, tint, rng, level=level + rng.uniform(-6, 6), height=7)


def _ocean(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    _fade(draw, jitter((150, 205, 245), rng), jitter((205, 230, 245), rng))
    horizon = rng.randint(36, 62)
    draw.rectangle((0, horizon, CANVAS, CANVAS), fill=jitter((22, 88, 160), rng))
    for _ in range(rng.randint(18, 34)):
        x, y = rng.uniform(-10, CANVAS), rng.uniform(horizon + 4, CANVAS)
        draw.arc((x, y, x + rng.uniform(12, 26), y + 8), 180, 360, fill=(215, 235, 250), width=2)


def _forest(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    _fade(draw, jitter((170, 210, 220), rng), jitter((70, 110, 60), rng))
    for row in (70, 92, 116):
        for x in range(-8, CANVAS + 8, 20):
            centre, base = x + rng.uniform(-6, 6), row + rng.uniform(-6, 10)
            green = jitter((24, 96 - row // 4, 40), rng)
            draw.rectangle((centre - 2, base, centre + 2, base + 10), fill=(84, 56, 32))
            draw.polygon([(centre - 13, base), (centre + 13, base), (centre, base - rng.uniform(36, 52))], fill=green)


def _mountains(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    _fade(draw, jitter((120, 170, 225), rng), jitter((215, 225, 235), rng))
    for _ in range(rng.randint(3, 4)):
        x, peak, half = rng.uniform(10, 118), rng.uniform(18, 48), rng.uniform(40, 62)
        draw.polygon([(x - half, 118), (x, peak), (x + half, 118)], fill=jitter((104, 104, 116), rng))
        cap = 0.28
        left, right = (x - half * cap, peak + (118 - peak) * cap), (x + half * cap, peak + (118 - peak) * cap)
        draw.polygon([left, (x, peak), right, (x, left[1] - 5)], fill=(246, 248, 252))
    _hills(draw, jitter((70, 116, 70), rng), rng, level=114, height=4)


def _city(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    _fade(draw, jitter((150, 180, 215), rng, 24), jitter((215, 215, 220), rng, 18))
    x = -rng.randint(0, 10)
    while x < CANVAS:
        width, top = rng.randint(16, 28), rng.randint(24, 84)
        wall = jitter((92, 94, 104), rng, 24)
        draw.rectangle((x, top, x + width, CANVAS), fill=wall)
        for row in range(top + 6, CANVAS, 11):
            for column in range(x + 4, x + width - 3, 8):
                if rng.random() < 0.7:
                    draw.rectangle((column, row, column + 3, row + 5), fill=(250, 230, 140))
        x += width + rng.randint(0, 3)


def _meadow(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    _fade(draw, jitter((130, 200, 245), rng), jitter((220, 240, 250), rng))
    level = rng.uniform(44, 64)
    _hills(draw, jitter((104, 182, 70), rng), rng, level=level, height=5)
    for _ in range(rng.randint(26, 50)):
        colour = rng.choice(((250, 240, 90), (250, 250, 250), (235, 90, 120), (190, 110, 220)))
        _disc(draw, colour, x=rng.uniform(0, CANVAS), y=rng.uniform(level + 12, CANVAS), radius=rng.uniform(1.5, 3))


def _beach(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    _fade(draw, jitter((140, 210, 250), rng), jitter((225, 240, 250), rng))
    horizon = rng.randint(36, 52)
    draw.rectangle((0, horizon, CANVAS, CANVAS), fill=jitter((40, 150, 190), rng))
    shore = rng.uniform(76, 92)
    _hills(draw, (245, 250, 250), rng, level=shore - 4, height=4)
    _hills(draw, jitter((236, 210, 150), rng), rng, level=shore + 2, height=4)
    x = rng.uniform(24, 104)
    draw.line((x, shore - 8, x, shore + 22), fill=(120, 90, 60), width=3)
    draw.pieslice((x - 20, shore - 24, x + 20, shore + 8), 180, 360, fill=jitter((225, 60, 60), rng, 30))


def _snow(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    _fade(draw, jitter((165, 180, 200), rng), jitter((215, 222, 232), rng))
    for level in (76, 98):
        _hills(draw, jitter((236, 240, 248), rng, 5), rng, level=level + rng.uniform(-8, 8), height=6)
    for _ in range(rng.randint(40, 80)):
        _disc(draw, (255, 255, 255), x=rng.uniform(0, CANVAS), y=rng.uniform(0, CANVAS), radius=rng.uniform(1, 2.6))


def _sunset(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    horizon = rng.randint(74, 96)
    _fade(draw, jitter((90, 50, 120), rng), jitter((255, 150, 60), rng), stop=horizon)
    _disc(draw, (255, 216, 120), x=rng.uniform(28, 100), y=horizon - rng.uniform(0, 8), radius=rng.uniform(12, 18))
    draw.rectangle((0, horizon, CANVAS, CANVAS), fill=jitter((46, 24, 46), rng, 8))


_PLACE_PAINTERS: Final[dict[str, Callable[[ImageDraw.ImageDraw, Random], None]]] = {
    "the night sky": _night_sky,
    "a desert": _desert,
    "the ocean": _ocean,
    "a forest": _forest,
    "mountains": _mountains,
    "a city": _city,
    "a meadow": _meadow,
    "a beach": _beach,
    "snow": _snow,
    "a sunset": _sunset,
}

PLACES: Final = tuple(_PLACE_PAINTERS)
"""The names of the places, with their articles."""


def paint_place(name: str, rng: Random) -> Image.Image:
    """Paint a canvas that shows a place."""
    canvas = blank((0, 0, 0))
    _PLACE_PAINTERS[name](ImageDraw.Draw(canvas), rng)
    return canvas
