"""Archives: the members that a source names, each at its place under the root; what is there whole is left alone."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from degla.errors import DeglaError
from degla.files import PARTIAL, cannot_write

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)


def unpack_archive(archive: Path, root: Path, *, moves: Mapping[str, str], inner: str = "") -> int:
    """Put the members that `moves` names under the root.

    Args:
        archive: a zip, or a tar packed in any way.
        root: folder that the places are relative to.
        moves: beginning of a member's path, ending in "/", or the whole path, to what takes its place.
        inner: member that is itself the archive of those members.

    Returns:
        Number of files that the archive has of them.

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
        raise DeglaError(f"{archive}: damaged ({error}). {_REMEDY}") from None
    if not count:
        raise DeglaError(f"{archive}: has no member that begins with {', '.join(moves)}. {_REMEDY}")
    return count


_REMEDY = "Delete it and run the command again."


def _place(name: str, moves: Mapping[str, str]) -> str | None:
    """Path under the root of a member; None where it is none of those wanted, or would leave the root."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        return None
    name = "/".join(parts)
    for begin, instead in moves.items():
        if name == begin or (begin.endswith("/") and name.startswith(begin)):
            return instead + name.removeprefix(begin)
    return None


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of every file in an archive, in its order."""
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
