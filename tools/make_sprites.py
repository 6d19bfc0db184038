"""Rebuild the sprite sheets: `python tools/make_sprites.py`.

Needs the fonts once (Debian: fonts-noto-color-emoji, fonts-dejavu); the package itself never does. New sheets change
the images of the world: raise `WORLD_VERSION` and pre-train again.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from degla.cli import exit_status_of
from degla.world.domains import EMOJI
from degla.world.sprites import EMOJI_COLUMNS, EMOJI_SIDE, FACES, GLYPH_SIDE, SHEETS, SIGNS

_NOTO_STRIKE = 109
"""Noto Color Emoji has bitmaps of only one size (pixels)."""
EMOJI_SIGNS = (
    "\U0001f436", "\U0001f431", "\U0001f40e", "\U0001f42e", "\U0001f437", "\U0001f418", "\U0001f981", "\U0001f42f",
    "\U0001f43b", "\U0001f43c", "\U0001f435", "\U0001f430", "\U0001f438", "\U0001f414", "\U0001f427", "\U0001f41f",
    "\U0001f433", "\U0001f422", "\U0001f98b", "\U0001f41d", "\U0001f34e", "\U0001f34c", "\U0001f349", "\U0001f353",
    "\U0001f34d", "\U0001f352", "\U0001f34b", "\U0001f955", "\U0001f33d", "\U0001f345", "\U0001f355", "\U0001f354",
    "\U0001f35e", "\U0001f9c0", "\U0001f95a", "\U0001f370", "\U0001f369", "\U0001f36a", "\U0001f366", "\U0001f37f",
    "\U0001f697", "\U0001f68c", "\U0001f6b2", "\u2708\ufe0f", "\U0001f680", "\U0001f682", "\U0001f3e0", "\u23f0",
    "\U0001f4f1", "\U0001f4f7", "\U0001f4d5", "\U0001f511", "\u2614", "\U0001f3b8", "\U0001f3ba", "\U0001f3a9",
    "\U0001f45f", "\U0001f528", "\u2702\ufe0f", "\U0001f4a1",
)  # fmt: skip
"""The emoji named in `degla.world.domains.EMOJI`, in the same order."""


def read_font(file: Path, size: int) -> ImageFont.FreeTypeFont:
    """Read exactly this file: for a path that is missing, Pillow takes a font of the same name from the system."""
    return ImageFont.truetype(io.BytesIO(file.read_bytes()), size)


def emoji_sheet(font_file: Path) -> Image.Image:
    """Draw all emoji of the world, RGBA."""
    font = read_font(font_file, _NOTO_STRIKE)
    rows = -(-len(EMOJI) // EMOJI_COLUMNS)
    sheet = Image.new("RGBA", (EMOJI_COLUMNS * EMOJI_SIDE, rows * EMOJI_SIDE))
    for index, (_, sign) in enumerate(zip(EMOJI, EMOJI_SIGNS, strict=True)):
        large = Image.new("RGBA", (200, 200))
        ImageDraw.Draw(large).text((30, 30), sign, font=font, embedded_color=True)
        box = large.getbbox()
        if box is None:
            raise SystemExit(f"{font_file} has no glyph for {sign!r}")
        sprite = large.crop(box)
        sprite.thumbnail((EMOJI_SIDE, EMOJI_SIDE), Image.Resampling.LANCZOS)
        row, column = divmod(index, EMOJI_COLUMNS)
        left = column * EMOJI_SIDE + (EMOJI_SIDE - sprite.width) // 2
        top = row * EMOJI_SIDE + (EMOJI_SIDE - sprite.height) // 2
        sheet.paste(sprite, (left, top))
    return sheet


def glyph_sheet(folder: Path) -> Image.Image:
    """Draw all letters and digits in all faces, 16 grey levels."""
    sheet = Image.new("L", (len(SIGNS) * GLYPH_SIDE, len(FACES) * GLYPH_SIDE))
    for row, face in enumerate(FACES):
        font = read_font(folder / f"{face}.ttf", 70)
        for column, sign in enumerate(SIGNS):
            cell = Image.new("L", (GLYPH_SIDE, GLYPH_SIDE))
            middle = GLYPH_SIDE / 2
            ImageDraw.Draw(cell).text((middle, middle), sign, font=font, fill=255, anchor="mm")
            sheet.paste(cell, (column * GLYPH_SIDE, row * GLYPH_SIDE))
    return sheet.point([round(value / 17) * 17 for value in range(256)])


def main() -> None:
    """Write both sheets into the package, or into `--out`."""
    parser = argparse.ArgumentParser(description="Make the sprite sheets of the embedded world again.")
    parser.add_argument("--noto", type=Path, default=Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"))
    parser.add_argument("--dejavu", type=Path, default=Path("/usr/share/fonts/truetype/dejavu"))
    parser.add_argument("--out", type=Path, default=SHEETS)
    arguments = parser.parse_args()
    emoji_sheet(arguments.noto).save(arguments.out / "emoji.png", optimize=True)
    glyph_sheet(arguments.dejavu).save(arguments.out / "glyphs.png", optimize=True)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
