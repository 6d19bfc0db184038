"""Unpack archives: the members that a source lists, each to its path under the root; complete files are kept."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from degla.errors import DeglaError
from degla.files import PARTIAL, cannot_write

# RuntimeError: an encrypted member, or a form of compression that Python lacks. ValueError: numbers in headers.
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


def unpack_archive(archive: Path, root: Path, *, moves: Mapping[str, str], inner: str = "") -> int:
    """Extract the members listed in `moves` under the root.

    Args:
        archive: a zip, or a tar with any compression.
        root: base folder of the extracted paths.
        moves: maps a prefix of member paths, ending in "/", or a whole path to its replacement.
        inner: member that is itself the archive of those members.

    Returns:
        Number of matching files in the archive.

    Raises:
        DeglaError: the archive is damaged or has no such member, or the disk is full.
    """
    if inner:
        packed = archive.with_name(f"{archive.name}.inner")
        try:
            unpack_archive(archive, archive.parent, moves={inner: packed.name})
            return unpack_archive(packed, root, moves=moves)
        finally:
            packed.unlink(missing_ok=True)
    count = 0
    try:
        for name, size, stream in _members(archive):
            place = _place(name, moves)
            if place is None:
                continue
            count += 1
            target = root / place
            try:
                if not (target.is_file() and target.stat().st_size == size):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    partial = target.with_name(target.name + PARTIAL)
                    with partial.open("wb") as out:
                        shutil.copyfileobj(stream, out)
                    partial.replace(target)
            except OSError as error:
                raise cannot_write(target, error, remedy="Choose another --root.") from None
    except _DAMAGED as error:
        raise DeglaError(f"{archive}: is damaged ({error}). {_REMEDY}") from None
    if not count:
        raise DeglaError(f"{archive}: has no member that starts with {', '.join(moves)}. {_REMEDY}")
    return count


_REMEDY = "Delete it and run the command again."


def _place(name: str, moves: Mapping[str, str]) -> str | None:
    """Path of a member under the root; None if it is not wanted or would leave the root."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        return None
    name = "/".join(parts)
    for begin, instead in moves.items():
        if name == begin or (begin.endswith("/") and name.startswith(begin)):
            return instead + name.removeprefix(begin)
    return None


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of every file in an archive, in order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for about in packed.infolist():
                if not about.is_dir():
                    with packed.open(about) as stream:
                        yield about.filename, about.file_size, stream
        return
    with tarfile.open(archive, mode="r|*") as opened:
        for member in opened:
            content = opened.extractfile(member) if member.isfile() else None
            if content is not None:
                yield member.name, member.size, content
