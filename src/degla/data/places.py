"""Locations of captions and their images: a file, a folder of files, or the files of a pattern; local or remote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from degla.errors import InputError
from degla.parse import open_file
from degla.remote import address_of, display_path, list_files

_WILD: Final = re.compile(r"[*?\[{]")
_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_RANGE: Final = re.compile(r"([0-9]+)\.\.([0-9]+)")
_HUB: Final = re.compile(r"hf://datasets/[^/]+/[^/]+")
_TRAIN: Final = re.compile(r"(?<![a-z0-9])train(?![a-z])", re.IGNORECASE)
_MOST: Final = 1_000_000
"""Largest number of files that a range in a pattern may expand to."""
_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\3\4": "zip",
}
"""First bytes of compressed files."""

_OLD_WORKBOOK: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern for several files: `shards/{00000..00099}.tar`, `train-*.parquet`."""
    return bool(_WILD.search(str(path))) and not path.exists()


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; a remote address counts as one if its name has no extension, or is a hub data set."""
    address = address_of(path)
    return path.is_dir() or (address is not None and (not path.suffix or bool(_HUB.fullmatch(address))))


def check_unpacked(path: Path) -> None:
    """Refuse a compressed file or an old workbook.

    Raises:
        InputError: the file is compressed, an old workbook, or cannot be read.
    """
    with open_file(path) as stream:
        begins = stream.read(len(_OLD_WORKBOOK))  # the longest
    for start, name in _COMPRESSED.items():
        if begins.startswith(start):
            table = " A workbook (.xlsx) is not read: save its table as CSV in UTF-8." if name == "zip" else ""
            raise InputError(f"{path}: is compressed ({name}). Unpack it first.{table}")
    if begins.startswith(_OLD_WORKBOOK):
        raise InputError(f"{path}: is an old Office file (.xls), which is not read. Save its table as CSV in UTF-8.")


def place_of(path: Path) -> str:
    """Return a location that does not depend on the working directory: an address or an absolute path."""
    return address_of(path) or str(path.absolute())


def base_of(path: Path) -> Path:
    """Return the default base of relative image paths: the folder of the captions.

    Args:
        path: a file, a folder or a pattern.
    """
    if is_pattern(path):
        # An existing folder may have brackets in its name.
        return next(folder for folder in path.parents if not _WILD.search(str(folder)) or folder.is_dir())
    return path if is_folder(path) else path.parent


def files_of(path: Path, *suffixes: str) -> list[Path]:
    """List the files of a path, sorted by name: itself, those of a folder with a suffix, or those of a pattern, once.

    A data set of the hub, `hf://datasets/OWNER/NAME`, may have them in a subfolder.

    Raises:
        InputError: a pattern matches no file or expands to too many, or a hub data set has several such subfolders.
    """
    if is_folder(path):
        address = address_of(path)
        inside = path.iterdir() if address is None else map(Path, list_files(f"{address}/*"))
        files = sorted(file for file in inside if file.suffix.lower() in suffixes and (address or file.is_file()))
        return files or (_of_hub(path, address, suffixes) if address and _HUB.fullmatch(address) else [])
    if not is_pattern(path):
        return [path]
    paths: list[Path] = []
    base = base_of(path)
    for name in _written_out(str(path.relative_to(base))):
        if not re.search(r"[*?\[]", name):
            paths.append(base / name)
        elif (address := address_of(base / name)) is not None:
            paths += map(Path, list_files(address))
        else:
            paths += sorted(file for file in base.glob(name) if file.is_file())
    if not paths:
        raise InputError(f"{display_path(path)}: no file matches this pattern.")
    return list(dict.fromkeys(paths))


def _of_hub(path: Path, address: str, suffixes: tuple[str, ...]) -> list[Path]:
    """List the files of a hub data set in its subfolders: those of the training split, if any are named so."""
    files = [file for file in map(Path, list_files(address)) if file.suffix.lower() in suffixes]
    files = [file for file in files if _TRAIN.search(file.relative_to(path).as_posix())] or files
    folders = sorted({file.parent.relative_to(path).as_posix() for file in files})
    if len(folders) > 1:
        raise InputError(
            f"{address}: has files in several folders ({', '.join(folders[:5])}{', ...' if folders[5:] else ''}). "
            f"Give the address of one, for example {address}/{folders[0]}."
        )
    return sorted(files)


def _written_out(text: str) -> Iterator[str]:
    """Expand braces: "{8..10}" to numbers with as many digits as the first, "{a,b}" to each choice."""
    match = _BRACES.search(text)
    if match is None:
        yield text
        return
    ends = _RANGE.fullmatch(match[1])
    if ends is None:
        choices = iter(match[1].split(","))
    else:
        first, last = int(ends[1]), int(ends[2])
        if not first <= last < first + _MOST:
            raise InputError(f"{text}: the range {{{match[1]}}} must be ascending and have at most {_MOST:,} numbers.")
        choices = (f"{number:0{len(ends[1])}d}" for number in range(first, last + 1))
    for choice in choices:
        yield from _written_out(text[: match.start()] + choice + text[match.end() :])
