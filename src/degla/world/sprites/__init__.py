"""Sprites that ship with the package: emoji and glyphs, so that no result depends on the fonts of a machine.

In: `emoji.png` (60 sprites of 96 pixels, 10 a row, with alpha) and `glyphs.png` (one row a face, one column a sign,
64 pixels, coverage as grey), made by `make.py`. Out: Pillow images. Licences of the fonts are beside the sheets.
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
    """The sprite of one emoji, RGBA, 96 x 96; numbered as in `domains.EMOJI`."""
    row, column = divmod(index, EMOJI_COLUMNS)
    left, top = column * EMOJI_SIDE, row * EMOJI_SIDE
    return _sheet("emoji.png").crop((left, top, left + EMOJI_SIDE, top + EMOJI_SIDE))


@cache
def glyph(sign: str, face: int) -> Image.Image:
    """The coverage of one letter or digit in one of the faces, grey ("L"), 64 x 64."""
    left, top = SIGNS.index(sign) * GLYPH_SIDE, face * GLYPH_SIDE
    return _sheet("glyphs.png").crop((left, top, left + GLYPH_SIDE, top + GLYPH_SIDE))
