"""Unusual images, made here: their bytes, and how every reader must decode them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
_TURNED = {  # EXIF's number: the stored picture to the upright one, from the standard's table
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@dataclass(frozen=True)
class OddImage:
    """A file and its outcome.

    Attributes:
        name: of the file.
        content: its bytes.
        pixels: `[H, W, 3]`, what it must be read as; None: it must be refused.
        refusal: what the one line of the refusal must say.
        tolerance: largest mean difference from `pixels` for formats that lose some.
    """

    name: str
    content: bytes
    pixels: Pixels | None = None
    refusal: str = ""
    tolerance: float = 0.0


def colours(width: int = 48, height: int = 36) -> Pixels:
    """`[H, W, 3]`: no symmetry in it, and soft enough for JPEG."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) % 200], axis=-1).astype(np.uint8)


def encoded(picture: Image.Image, format: str, **options: Any) -> bytes:
    """The picture as a file of that format."""
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, rows: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG by hand; without rows it only claims its size."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def chunk(name: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def odd_images() -> list[OddImage]:
    """All of them; names are unique."""
    return [*_turned(), *_of_many_modes(), *_transparent(), *_of_several(), *_refused()]


def _turned() -> Iterator[OddImage]:
    stored = colours()
    picture = Image.fromarray(stored)
    jpeg = np.asarray(Image.open(io.BytesIO(encoded(picture, "JPEG"))))
    for number, turn in _TURNED.items():
        exif = Image.Exif()
        exif[0x0112] = number
        yield OddImage(f"turned-{number}.jpg", encoded(picture, "JPEG", exif=exif), turn(jpeg))
        yield OddImage(f"turned-{number}.png", encoded(picture, "PNG", exif=exif), turn(stored))
    for format, options in (("TIFF", {}), ("WEBP", {"lossless": True})):
        exif = Image.Exif()
        exif[0x0112] = 6
        content = encoded(picture, format, exif=exif, **options)
        yield OddImage(f"turned.{format.lower()}", content, _TURNED[6](stored))
    exif = Image.Exif()
    exif[0x0112] = 8
    grey = (np.arange(12 * 20, dtype=np.uint16) * 250).reshape(12, 20)
    turned = np.repeat(_TURNED[8](grey >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    yield OddImage("turned-16-bit.png", encoded(Image.fromarray(grey), "PNG", exif=exif), turned)
    yield OddImage("nonsense-exif.jpg", encoded(picture, "JPEG", exif=b"Exif\0\0nonsense"), jpeg)
    # The turn can be read, another entry leads out of the block.
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    block += struct.pack(">HHII", 0x8769, 4, 1, 0xFFFFFF) + b"\0\0\0\0"
    yield OddImage("torn-exif.jpg", encoded(picture, "JPEG", exif=block), _TURNED[6](jpeg))
    yield OddImage("no-turn-9.jpg", encoded(picture, "JPEG", exif=block.replace(b"\0\x06\0\0", b"\0\x09\0\0")), jpeg)


def _of_many_modes() -> Iterator[OddImage]:
    colour = Image.fromarray(colours())
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (8, 1))
    in_rgb = np.repeat(grey[..., None], 3, axis=-1)
    wide = grey.astype(np.uint16) * 257
    yield OddImage("grey.png", encoded(Image.fromarray(grey), "PNG"), in_rgb)
    yield OddImage("grey-16-bit.png", encoded(Image.fromarray(wide), "PNG"), in_rgb)
    yield OddImage("grey-16-bit.tiff", encoded(Image.fromarray(wide), "TIFF"), in_rgb)
    big_endian = Image.frombytes("I;16B", (64, 8), wide.astype(">u2").tobytes())
    yield OddImage("grey-16-bit-big-endian.tiff", encoded(big_endian, "TIFF"), in_rgb)
    yield OddImage("grey-16-bit.pgm", b"P5 64 8 65535\n" + wide.astype(">u2").tobytes(), in_rgb)
    rows = b"".join(b"\0" + row.tobytes() for row in (colours(5, 4).astype(np.uint16) * 257).astype(">u2"))
    yield OddImage("colour-16-bit.png", png(5, 4, depth=16, rows=rows), colours(5, 4))
    bits = np.arange(64).reshape(8, 8) % 3 == 0
    black_white = np.repeat((bits * 255).astype(np.uint8)[..., None], 3, axis=-1)
    yield OddImage("1-bit.png", encoded(Image.fromarray(bits), "PNG"), black_white)
    yield OddImage("1-bit.tiff", encoded(Image.fromarray(bits), "TIFF", compression="group4"), black_white)
    palette = colour.quantize(200)
    yield OddImage("palette.png", encoded(palette, "PNG"), np.asarray(palette.convert("RGB")))
    yield OddImage("palette.bmp", encoded(palette, "BMP"), np.asarray(palette.convert("RGB")))
    # Written by Pillow as Adobe does: with inverted inks.
    inks = encoded(colour.convert("CMYK"), "JPEG", quality=100, subsampling=0)
    yield OddImage("cmyk.jpg", inks, colours(), tolerance=2)
    yield OddImage("cmyk.tiff", encoded(colour.convert("CMYK"), "TIFF"), colours(), tolerance=1)
    yield OddImage("progressive.jpg", encoded(colour, "JPEG", progressive=True, quality=95), colours(), tolerance=3)
    yield OddImage("colour.webp", encoded(colour, "WEBP", lossless=True), colours())
    yield OddImage("colour.gif", encoded(palette, "GIF"), np.asarray(palette.convert("RGB")))


def _transparent() -> Iterator[OddImage]:
    layers = np.zeros((6, 4, 4), dtype=np.uint8)
    layers[:2], layers[2:4], layers[4:] = (10, 20, 30, 255), (10, 20, 30, 0), (200, 0, 100, 128)
    rgb = np.zeros((6, 4, 3), dtype=np.uint8)
    rgb[:2], rgb[2:4], rgb[4:] = (10, 20, 30), 255, (227, 127, 177)
    yield OddImage("alpha.png", encoded(Image.fromarray(layers), "PNG"), rgb, tolerance=0.4)
    yield OddImage("alpha.tiff", encoded(Image.fromarray(layers), "TIFF"), rgb, tolerance=0.4)
    yield OddImage("alpha.webp", encoded(Image.fromarray(layers), "WEBP", lossless=True, exact=True), rgb, tolerance=1)
    grey = np.array([[[40, 255], [40, 0]]], dtype=np.uint8)
    both = np.array([[[40] * 3, [255] * 3]], dtype=np.uint8)
    yield OddImage("grey-and-alpha.png", encoded(Image.fromarray(grey, "LA"), "PNG"), both)
    holes = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    holes.putpalette([9, 9, 9, 50, 60, 70])
    clear = np.array([[[255] * 3, [50, 60, 70]]], dtype=np.uint8)
    yield OddImage("palette-hole.png", encoded(holes, "PNG", transparency=0), clear)
    yield OddImage("palette-hole.gif", encoded(holes, "GIF", transparency=0), clear)
    half = clear.copy()
    half[0, 0] = 132
    yield OddImage("palette-half.png", encoded(holes, "PNG", transparency=b"\x80\xff"), half, tolerance=1)
    one = Image.fromarray(np.array([[[1, 2, 3], [50, 60, 70]]], dtype=np.uint8))
    yield OddImage("one-colour-clear.png", encoded(one, "PNG", transparency=(1, 2, 3)), clear)
    grey_one = Image.fromarray(np.array([[0, 70]], dtype=np.uint8))
    grey_clear = np.array([[[255] * 3, [70] * 3]], dtype=np.uint8)
    yield OddImage("one-grey-clear.png", encoded(grey_one, "PNG", transparency=0), grey_clear)
    wide = png(2, 1, depth=16, colour=0, rows=b"\0\x12\x34\x46\x46", extra=chunk(b"tRNS", b"\x12\x34"))
    yield OddImage("one-grey-clear-16-bit.png", wide, grey_clear)


def _of_several() -> Iterator[OddImage]:
    frames = [Image.new("RGB", (6, 4), name) for name in ("red", "blue", "lime")]
    red = np.asarray(frames[0])
    for format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        yield OddImage(f"several.{format.lower()}", content, red)
    phone = encoded(Image.fromarray(colours()), "MPO", save_all=True, append_images=frames[1:], quality=95)
    yield OddImage("several.mpo", phone, colours(), tolerance=3)


def _refused() -> Iterator[OddImage]:
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    cut = "is damaged or cut off"
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"):
        content = encoded(large, format)
        yield OddImage(f"half.{format.lower()}", content[: len(content) // 2], refusal="")
    content = encoded(large, "JPEG", quality=95, progressive=True)
    yield OddImage("half-progressive.jpg", content[: len(content) // 2], refusal=cut)
    yield OddImage("nearly-whole.jpg", content[: len(content) * 98 // 100], refusal=cut)
    yield OddImage("header-only.png", encoded(large, "PNG")[:33], refusal="")
    ones = np.ones((4, 4))
    yield OddImage("float.tiff", encoded(Image.fromarray(ones.astype(np.float32)), "TIFF"), refusal="floating point")
    yield OddImage("float.pfm", b"Pf\n4 4\n-1.0\n" + ones.astype("<f4").tobytes(), refusal="floating point")
    yield OddImage("32-bit.tiff", encoded(Image.fromarray(ones.astype(np.int32)), "TIFF"), refusal="32-bit integers")
    yield OddImage("empty.jpg", b"", refusal="the file is empty")
    yield OddImage("text.jpg", b"A dog on a sofa.", refusal="it begins with b'A dog on a sofa.'")
    yield OddImage("page.jpg", b"<html>" + bytes(100), refusal="is not in a format Pillow reads")
    too_many = "more than 89,478,485 pixels"
    yield OddImage("bomb-900-megapixels.png", png(30_000, 30_000), refusal=too_many)
    real = png(12_000, 12_000, depth=1, colour=0, rows=bytes(12_000 * 1501))
    yield OddImage("bomb-144-megapixels.png", real, refusal=too_many)
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000)))
    yield OddImage("bomb-of-text.png", png(4, 4, rows=bytes(52), extra=text), refusal="")
    thin = np.zeros((1, 60_000), dtype=np.uint8)
    content = encoded(Image.fromarray(thin), "PNG")
    yield OddImage("thin.png", content, refusal="60000 x 1 pixels")
    icon = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 24, len(content), 22)  # Which says 16 x 16.
    yield OddImage("thin.ico", icon + content, refusal="60000 x 1 pixels")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n"
    yield OddImage("program.eps", script, refusal="PostScript")
    fields = {(3, 20): b"\0\x09", (3, 30): b"\0\x09", (3, 60): b"\1\0", (3, 120): b"\5", (8, 10): script}
    inside = b"".join(struct.pack(">3BH", 0x1C, *tag, len(value)) + value for tag, value in fields.items())
    yield OddImage("program-in-iptc.jpg", inside, refusal="PostScript")
