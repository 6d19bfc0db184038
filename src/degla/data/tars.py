"""Uncompressed tar archives, read in place: their members, and those that belong together as WebDataset says."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from degla.data.decoding import IMAGE_SUFFIXES, Subject, read_file
from degla.errors import InputError
from degla.parse import LONGEST_LINE
from degla.remote import address_of, open_remote, state_numbers

PICTURE: Final = "picture"
LINK: Final = -1
"""The place of what an archive holds under another name or not at all: hard and symbolic links."""
# Numbers that a file's size can have: longer ones are no reference.
_PACKED: Final = re.compile(
    r"(?P<shard>.+\.tar)@(?P<start>[0-9]{1,18})\+(?P<size>[0-9]{1,18})", re.DOTALL | re.IGNORECASE
)
_REMEDY: Final = "Fetch the file again."


def packed_place(shard: str, *, start: int, size: int) -> str:
    """How `CaptionRecord.image` names bytes of a shard: ``SHARD.tar@START+SIZE``."""
    return f"{shard}@{start}+{size}"


def parsed_place(place: str) -> tuple[Path, dict[str, int]]:
    """The file, and the part of it that is the image where it is not all of it."""
    packed = _PACKED.fullmatch(place)
    if packed is None:
        return Path(place), {}
    return Path(packed["shard"]), {"start": int(packed["start"]), "size": int(packed["size"])}


@dataclass(frozen=True)
class TarMember:
    """A file in an archive, or a link to one.

    Attributes:
        name: in the archive.
        start: its first byte in the archive; `LINK` for a link, which has none.
        size: bytes.
        content: its bytes, where they were asked for.
    """

    name: str
    start: int
    size: int
    content: bytes | None = None


def walk_tar(tar: Path, *, wanted: Callable[[str], bool] = lambda name: False) -> Iterator[TarMember]:
    """Every file and link in an archive, in its order; the archive is gone through once.

    Args:
        tar: the archive.
        wanted: whether the content of a file of that name is read too.

    Raises:
        InputError: it is no uncompressed tar, is damaged or cut off, or holds a name twice; or a file that is to be
            read has more than `LONGEST_LINE` bytes.
    """
    seen: set[str] = set()
    try:
        address = address_of(tar)
        with tar.open("rb") if address is None else open_remote(address) as stream:
            length = stream.seek(0, 2)
            stream.seek(0)
            archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115  # The stream is what must be closed.
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # Those of an archive of millions would stay.
                if member.islnk() or member.issym():
                    yield TarMember(member.name, LINK, 0)
                if not member.isfile():
                    continue
                if member.name in seen:
                    raise InputError(f"{tar}: member {member.name!r} stands there twice; names must be unique.")
                seen.add(member.name)
                if member.offset_data + member.size > length:
                    raise InputError(f"{tar}: ends inside member {member.name!r}. {_REMEDY}")
                content = None
                if wanted(member.name):
                    if member.size > LONGEST_LINE:
                        about = f"member {member.name!r} has {member.size:,} bytes"
                        raise InputError(f"{tar}: {about}: that is no caption or label.")
                    stream.seek(member.offset_data)
                    content = stream.read(member.size)
                yield TarMember(member.name, member.offset_data, member.size, content)
            # Behind a damaged or missing header the library ends as if all had been read.
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise InputError(f"{tar}: is damaged or cut off at byte {archive.offset}. {_REMEDY}")
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:  # numbers and names in headers may be anything
        raise InputError(f"{tar}: cannot be read as an uncompressed tar: {error}. {_REMEDY}") from None


def tar_members(tar: Path) -> dict[str, tuple[int, int]]:
    """Name of each file in an archive to its first byte and its size in bytes; links as `TarMember` has them.

    Raises:
        InputError: see `walk_tar`.
    """
    return _members(tar, *file_state(tar))


@lru_cache(maxsize=4096)
def _members(tar: Path, modified: int, size: int) -> dict[str, tuple[int, int]]:
    return {member.name: (member.start, member.size) for member in walk_tar(tar)}


def file_state(file: Path) -> tuple[int, int]:
    """Time of change and size: what is remembered of a file holds as long as both are the same."""
    if (address := address_of(file)) is not None:
        return state_numbers(address)
    try:
        state = file.stat()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}.") from None
    return state.st_mtime_ns, state.st_size


def read_tar_member(tar: Path, name: str) -> bytes:
    """Content of one member.

    Raises:
        InputError: the archive cannot be read, or has no such member, or it is a link.
    """
    try:
        start, size = tar_members(tar)[name]
    except KeyError:
        raise InputError(f"{tar}: has no member {name!r}. {_REMEDY}") from None
    _refuse_link(tar, name, start)
    return read_file(tar, Subject(f"{tar}: member {name!r}"), start=start, size=size)


def _refuse_link(tar: Path, name: str, start: int) -> None:
    if start == LINK:
        raise InputError(
            f"{tar}: member {name!r} is a link, which has no content of its own. Pack the files anew with "
            "tar --hard-dereference --dereference."
        )


def records_of(tar: Path, kinds: Mapping[str, str]) -> dict[str, dict[str, TarMember]]:
    """The members of an archive that matter, by record and by what they are in it.

    By WebDataset's rule members belong to one record that are equal up to the first dot behind their folder; those
    whose names begin with a dot are passed over.

    Args:
        tar: the archive.
        kinds: what a member is by all that stands behind that dot; its content is read. Pictures are known by the last
            part of their name, and are of the kind `PICTURE`.

    Raises:
        InputError: see `walk_tar`; or a record has two members of one kind, or one that is a link.
    """

    def place(name: str) -> tuple[str, str]:
        folder, slash, file = name.rpartition("/")
        stem, dot, rest = file.partition(".")
        suffix = f".{rest.rpartition('.')[2].lower()}" if dot else ""
        if not stem:  # "._0.jpg", which macOS puts beside each file
            return "", ""
        return folder + slash + stem, PICTURE if suffix in IMAGE_SUFFIXES else kinds.get(rest.lower(), "")

    groups: dict[str, dict[str, TarMember]] = {}
    for member in walk_tar(tar, wanted=lambda name: place(name)[1] not in ("", PICTURE)):
        key, kind = place(member.name)
        if not kind:
            continue
        _refuse_link(tar, member.name, member.start)
        group = groups.setdefault(key, {})
        if kind in group:
            both = f"{group[kind].name!r}, {member.name!r}"
            raise InputError(f"{tar}: record {key!r} has two members for its {kind}: {both}.")
        group[kind] = member
    return groups
