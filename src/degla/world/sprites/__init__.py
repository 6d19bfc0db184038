"""Sprites that ship with the package: emoji and glyphs, so that results do not depend on the fonts of a machine.

In: `emoji.png` (60 sprites of 96 pixels, 10 per row, with alpha) and `glyphs.png` (one row per face, one column per
sign, 64 pixels, coverage as grey), by `tools/make_sprites.py`. Out: Pillow images. Font licences are in this folder.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from PIL import Image

SHEETS: Final = Path(__file__).parent
EMOJI_SIDE: Final = 96
EMOJI_COLUMNS: Final = 10
GLYPH_SIDE: Final = 64
SIGNS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
FACES: Final = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-ExtraLight", "DejaVuSansCondensed",
    "DejaVuSansCondensed-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSerif-Italic", "DejaVuSerifCondensed",
)  # fmt: skip


@cache
def _sheet(name: str) -> Image.Image:
    with Image.open(SHEETS / name) as sheet:
        return sheet.convert("RGBA" if name == "emoji.png" else "L")


@cache
def emoji(index: int) -> Image.Image:
    """Return the sprite of one emoji, RGBA, 96 x 96; `index` is its position in `domains.EMOJI`."""
    row, column = divmod(index, EMOJI_COLUMNS)
    left, top = column * EMOJI_SIDE, row * EMOJI_SIDE
    return _sheet("emoji.png").crop((left, top, left + EMOJI_SIDE, top + EMOJI_SIDE))


@cache
def glyph(sign: str, face: int) -> Image.Image:
    """Return the coverage of one letter or digit in one of the faces, grey ("L"), 64 x 64."""
    left, top = SIGNS.index(sign) * GLYPH_SIDE, face * GLYPH_SIDE
    return _sheet("glyphs.png").crop((left, top, left + GLYPH_SIDE, top + GLYPH_SIDE))
