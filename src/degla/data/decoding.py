"""Bytes of an image file to an upright RGB image: the only reader, for training, packing, evaluation and pages.

Every image is decoded completely or rejected, by the same rules everywhere:

* rotated as EXIF or XMP says; unreadable metadata is ignored;
* transparent areas become white; grey, palette, CMYK and YCbCr are converted, colour profiles are not applied;
* 16-bit values lose their lower 8 bits; floating point and 32-bit integers have no known range and are rejected;
* of an animation or a file with several pages, the first image is used;
* rejected before decoding: more than `MAX_PIXELS`, one side more than `MAX_RATIO` times the other, PostScript, IPTC.
"""

from __future__ import annotations

import contextlib
import io
import logging
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from degla.errors import InputError
from degla.records import ImageReading
from degla.remote import AccessError, address_of, read_range, size_of

log = logging.getLogger(__name__)

VERSION = 2
"""Changes when the decoded pixels change, which invalidates cached results computed from other pixels."""
MAX_PIXELS = 89_478_485
"""Largest image that is decoded: a quarter of a gibibyte as RGB, the limit above which Pillow warns."""
MAX_RATIO = 250
"""Largest aspect ratio: a model's transform resizes the shorter side to hundreds of pixels and scales the other."""
MAX_BYTES = 4 * MAX_PIXELS
"""Largest file that is read: `MAX_PIXELS` without compression."""

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""File name extensions of images."""

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_PROGRAMS = {"EPS": "a PostScript page", "IPTC": "an IPTC file, which can contain PostScript"}
_SHOWN = 300


class ImageError(InputError):
    """One image cannot be used; `bad_images="skip"` skips its rows."""


@dataclass(frozen=True)
class Subject:
    """How messages name an image and what they advise.

    Attributes:
        name: location and owner of the image, as the start of a sentence: "/a/b.jpg: the image".
        if_missing: what to do if the file does not exist, a sentence.
        if_damaged: what to do if it cannot be decoded, a sentence.
    """

    name: str
    if_missing: str = "Fetch the file again."
    if_damaged: str = "Fetch the file again."


def shown(place: str) -> str:
    """Return a path for a one-line message: escaped if unprintable, shortened if long."""
    text = place if place.isprintable() else place.encode("unicode_escape").decode("ascii")
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 2 :]}"


def is_file(path: Path) -> bool:
    """Whether the file exists; False, without an error, for a path that is too long or contains a null byte."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _like(path: Path) -> str:
    """Return a sentence that names the file meant on a system that ignores case in names, if it exists; else "".

    Likewise for one that ignores how letters with accents are encoded, or separates folders by backslashes.
    """
    names = (
        path.with_suffix(path.suffix.swapcase()),
        path.with_name(path.name.lower()),
        path.with_name(path.name.upper()),
    )
    if other := next(filter(is_file, names), None):
        return f" {other.name} exists: here, case matters in file names."
    if is_file(other := Path(str(path).replace("\\", "/"))):
        return f" {shown(str(other))} exists: separate folders by /, not by \\."
    if is_file(other := path.parent / path.name.rpartition("\\")[2]):  # C:\photos\1.jpg
        return f" {shown(str(other))} exists: write paths relative to the image folder."
    for form in ("NFC", "NFD"):
        if is_file(path.with_name(unicodedata.normalize(form, path.name))):
            return (
                f" A file exists whose name looks the same, but has its accents in the Unicode form {form}: rename it."
            )
    return ""


@contextlib.contextmanager
def refused(subject: Subject) -> Iterator[None]:
    """Convert errors that mean an image file cannot be read into `ImageError`."""
    try:
        yield
    except AccessError:
        raise
    except (InputError, OSError, ValueError) as error:
        raise ImageError(f"{subject.name} cannot be read: {error}") from None


def bytes_to_read(path: Path, subject: Subject, *, start: int = 0, size: int | None = None) -> int:
    """Return how many bytes `read_file` will read; the file is not opened, so a named pipe cannot block.

    Raises:
        ImageError, RemoteError, AccessError: as `read_file`.
    """
    if (address := address_of(path)) is not None:
        with refused(subject):
            length = size_of(address)
    else:
        try:
            state = path.stat()
        except FileNotFoundError:
            raise ImageError(f"{subject.name} is missing.{_like(path)} {subject.if_missing}") from None
        except (OSError, ValueError) as error:
            raise _unreadable(subject, getattr(error, "strerror", None) or error) from None
        if not stat.S_ISREG(state.st_mode):
            kind = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe, socket or device"
            advised = replace(subject, if_damaged="Give the path of an image.")
            raise _unreadable(advised, f"it is {kind}, not a file")
        length = state.st_size
    if size is None:
        size = max(length - start, 0)
    elif start + size > length:
        raise _unreadable(subject, f"the shard ends before byte {start + size}; pack it again")
    if size > MAX_BYTES:
        raise _unreadable(subject, f"it has {size:,} bytes, more than the {MAX_BYTES:,} that an image may have")
    return size


def read_file(path: Path, subject: Subject, *, start: int = 0, size: int | None = None) -> bytes:
    """Read an image file, or a byte range of a shard.

    Args:
        path: of the file.
        subject: names the image in messages.
        start: first byte.
        size: number of bytes; None reads to the end.

    Raises:
        ImageError: the file does not exist, is not a regular file, cannot be read, ends before the byte range, or has
            more than `MAX_BYTES`.
        RemoteError, AccessError: its server does not answer or refuses access, which says nothing about the image.
    """
    size = bytes_to_read(path, subject, start=start, size=size)
    if (address := address_of(path)) is not None:
        with refused(subject):
            return read_range(address, start, start + size)
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            return stream.read(size)
    except OSError as error:
        raise _unreadable(subject, error.strerror or error) from None


def decode(content: bytes, subject: Subject, *, reading: ImageReading = "upright") -> Image.Image:
    """Decode an image completely into mode RGB.

    Args:
        content: of the file.
        subject: names the image in messages.
        reading: "upright": by the rules above. "official": as the benchmarks' released code does, with only Pillow's
            `convert("RGB")`: not rotated, transparency dropped, values clipped at 255. Limits apply to both.

    Raises:
        ImageError: not an image, damaged or cut off, or rejected by the rules above.
    """
    return decode_opened(_open(content, subject), subject, reading=reading)


def decode_opened(picture: Image.Image, subject: Subject, *, reading: ImageReading = "upright") -> Image.Image:
    """As `decode`, for an image that Pillow has already opened."""
    _check_shape(picture, subject)
    with _refusing(subject):
        picture.load()
    _check_shape(picture, subject)  # the pictures inside an icon may be larger than the icon says
    with _refusing(subject):
        return picture.convert("RGB") if reading == "official" else to_rgb(picture, subject)


def decode_part(content: bytes, subject: Subject, *, draw: Callable[[tuple[int, int]], Box], least: int) -> Image.Image:
    """Decode a part of one image, at the lowest resolution that suffices.

    JPEG files can be decoded at a half, a quarter or an eighth of their size in a fraction of the time. The smallest
    size is used at which each side of the part still has `least` pixels; other files are decoded in full.

    Args:
        content: of the file.
        subject: names the image in messages.
        draw: maps the upright image's full width and height to the part.
        least: minimum length of each side of the part in pixels; a very large number decodes all files in full.

    Raises:
        ImageError: as `decode`.
    """
    picture = _open(content, subject)
    if picture.format == "JPEG":
        full = picture.size[::-1] if _orientation(picture) in _SIDEWAYS else picture.size
        box = draw(full)
        factor = next((by for by in (8, 4, 2) if min(box[2:]) // by >= least), 1)
        with _refusing(subject):
            if factor > 1:
                picture.draft(None, (picture.width // factor, picture.height // factor))
            picture.load()
            whole = to_rgb(picture, subject)
    else:
        whole = decode_opened(picture, subject)
        full = whole.size
        box = draw(full)
    across, down = whole.width / full[0], whole.height / full[1]
    left, top = round(box[0] * across), round(box[1] * down)
    right, bottom = round((box[0] + box[2]) * across), round((box[1] + box[3]) * down)
    # Crop before resizing: Pillow's `box` would let the filter see pixels outside the part.
    return whole.crop((left, top, right, bottom))


def _open(content: bytes, subject: Subject) -> Image.Image:
    """Parse the header; the pixels are not decoded yet."""
    # Some libraries set this for the whole process; truncated files would then decode to half-grey images.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    if not content:
        raise _unreadable(subject, "the file is empty")
    try:
        picture = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        if content[4:11] in (b"ftyphei", b"ftyphev"):  # as many telephones take, also under the name .jpg
            raise _of_other_kind(subject, "it is HEIC, which Pillow does not read", "Save it as JPEG") from None
        begins = f"it begins with {content[:16]!r}"
        raise ImageError(f"{subject.name} is not in a format Pillow reads: {begins}. {subject.if_damaged}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(subject) from None
    except Exception as error:  # Pillow's parsers raise a dozen unrelated exception types for damaged files
        raise _damaged(subject, error) from None
    if picture.format in _PROGRAMS:
        # Pillow would pass the file, or what an IPTC file contains, to Ghostscript if that is installed.
        raise _of_other_kind(subject, f"it is {_PROGRAMS[picture.format]}", "Save it as PNG")
    _check_shape(picture, subject)
    return picture


def _check_shape(picture: Image.Image, subject: Subject) -> None:
    shorter, longer = sorted(picture.size)
    if not shorter:
        raise _unreadable(subject, "it has no pixels")
    if shorter * longer > MAX_PIXELS:
        raise _too_large(subject)
    if longer > MAX_RATIO * shorter:
        raise ImageError(
            f"{subject.name} is {picture.width} x {picture.height} pixels: one side is more than {MAX_RATIO} times the "
            "other. Crop it or remove it."
        )


@contextlib.contextmanager
def _refusing(subject: Subject) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # as in `_open`
        raise _damaged(subject, error) from None


def _damaged(subject: Subject, error: Exception) -> ImageError:
    reason = str(error) or type(error).__name__
    return ImageError(f"{subject.name} is damaged or cut off: {reason.rstrip('.')}. {subject.if_damaged}")


def _unreadable(subject: Subject, reason: object) -> ImageError:
    return ImageError(f"{subject.name} cannot be read: {reason}. {subject.if_damaged}")


def _of_other_kind(subject: Subject, reason: str, remedy: str) -> ImageError:
    """An image that is not damaged: the same file again would not help."""
    return ImageError(f"{subject.name} cannot be read: {reason}. {remedy}, or remove it.")


def _too_large(subject: Subject) -> ImageError:
    return ImageError(
        f"{subject.name} has more than {MAX_PIXELS:,} pixels and is not decoded. Make it smaller or remove it."
    )


def _orientation(picture: Image.Image) -> object:
    """EXIF orientation, 1 to 8; 1 if the metadata cannot be read, which is common."""
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # EXIF is parsed by the same decoders
        log.debug("EXIF orientation ignored: %s", error)
        return 1


def to_rgb(loaded: Image.Image, subject: Subject) -> Image.Image:
    """Rotate a decoded image upright and convert it to RGB.

    Raises:
        ImageError: its pixel values have no known range.
        ValueError: Pillow cannot convert its colours.
    """
    orientation = _orientation(loaded)
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    picture = loaded if turn is None else loaded.transpose(turn)
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    if picture.mode == "F":
        raise _of_other_kind(subject, "its pixels are floating point numbers", "Save it with 8 bits per channel")
    if picture.mode == "I" and loaded.format not in ("PNG", "PPM"):
        # These two formats have at most 16 bits, which older versions of Pillow store as 32.
        raise _of_other_kind(subject, "its pixels are 32-bit integers", "Save it with 8 bits per channel")
    if picture.mode.startswith("I"):
        # Pillow's own conversion would clip 16-bit grey at 255 and give a white image.
        values = np.asarray(picture)
        grey = (values >> 8).astype(np.uint8)
        if isinstance(clear := picture.info.get("transparency"), int):
            grey[values == clear] = 255
        return Image.fromarray(grey).convert("RGB")
    if picture.has_transparency_data:
        layered = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        white = Image.new("RGB", layered.size, "white")
        white.paste(layered, mask=layered)
        return white
    return picture.convert("RGB")
