"""Where captions and their pictures lie: one file, a folder of files, or the files of a pattern; here or elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from degla.errors import InputError
from degla.parse import open_file
from degla.remote import address_of, list_files, told

_WILD: Final = re.compile(r"[*?\[{]")
_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_RANGE: Final = re.compile(r"([0-9]+)\.\.([0-9]+)")
_MOST: Final = 1_000_000
"""Files that one pattern may stand for."""
_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\3\4": "zip",
}
"""What compressed files begin with."""


def is_pattern(path: Path) -> bool:
    """Whether a path stands for several files: `shards/{00000..00099}.tar`, `train-*.parquet`."""
    return bool(_WILD.search(str(path))) and not path.exists()


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; at an address, one whose name has no ending."""
    return path.is_dir() or (address_of(path) is not None and not path.suffix)


def check_unpacked(path: Path) -> None:
    """Refuse a compressed file.

    Raises:
        InputError: it is one, or cannot be read.
    """
    with open_file(path) as stream:
        begins = stream.read(max(map(len, _COMPRESSED)))
    for start, name in _COMPRESSED.items():
        if begins.startswith(start):
            raise InputError(f"{path}: is compressed ({name}). Unpack it first.")


def place_of(path: Path) -> str:
    """A path that means the same from everywhere: an address, or a path from the root."""
    return address_of(path) or str(path.absolute())


def base_of(path: Path) -> Path:
    """The folder that names of pictures are relative to where nobody says another: that of the captions.

    Args:
        path: a file, a folder or a pattern.
    """
    if is_pattern(path):
        # A folder that is there may itself have brackets in its name.
        return next(folder for folder in path.parents if not _WILD.search(str(folder)) or folder.is_dir())
    return path if is_folder(path) else path.parent


def files_of(path: Path, *suffixes: str) -> list[Path]:
    """The files that a path stands for, by name: itself, those of a folder with an ending, or those of a pattern.

    Raises:
        InputError: a pattern stands for no file, or for too many.
    """
    if is_folder(path):
        address = address_of(path)
        inside = path.iterdir() if address is None else map(Path, list_files(f"{address}/*"))
        return sorted(file for file in inside if file.suffix.lower() in suffixes and (address or file.is_file()))
    if not is_pattern(path):
        return [path]
    found: list[Path] = []
    base = base_of(path)
    for name in _written_out(str(path.relative_to(base))):
        if not re.search(r"[*?\[]", name):
            found.append(base / name)
        elif (address := address_of(base / name)) is not None:
            found += map(Path, list_files(address))
        else:
            found += sorted(file for file in base.glob(name) if file.is_file())
    if not found:
        raise InputError(f"{told(path)}: no file has a name like this.")
    return found


def _written_out(text: str) -> Iterator[str]:
    """Every text that braces stand for: "{8..10}" with as many digits as its first number, "{a,b}" each of them."""
    found = _BRACES.search(text)
    if found is None:
        yield text
        return
    ends = _RANGE.fullmatch(found[1])
    if ends is None:
        choices = iter(found[1].split(","))
    else:
        first, last = int(ends[1]), int(ends[2])
        if not first <= last < first + _MOST:
            raise InputError(
                f"{text}: {{{found[1]}}} must go from a number to a larger one, at most {_MOST:,} of them."
            )
        choices = (f"{number:0{len(ends[1])}d}" for number in range(first, last + 1))
    for choice in choices:
        yield from _written_out(text[: found.start()] + choice + text[found.end() :])
