"""Images inside other files, read in place: members of tar archives, rows of Parquet files.

`a.tar@1536+20418` is a byte range of an uncompressed archive. `a.parquet#image/17` is row 17 of the column `image`.
Parquet is read in row groups, so fetching one image would decode hundreds. The column is therefore copied once into
Arrow batches that all processes memory-map; the copy takes as much disk space as the images.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from degla.data.decoding import IMAGE_SUFFIXES, Subject, read_file
from degla.data.places import place_of
from degla.data.prepared import fetched, open_batches, prepare
from degla.errors import DeglaError, InputError
from degla.pages.words import counted
from degla.parse import LONGEST_LINE, in_one_line
from degla.progress import TaskProgress
from degla.records import CaptionRecord
from degla.remote import PIECE, address_of, display_path, file_state, open_remote, remembered

IMAGE: Final = "image"
SECOND_IMAGE: Final = "distractor_image"
"""Kinds of members of an archive whose content is not read when it is scanned."""
LINK: Final = -1
"""Offset given for links, which have no content of their own, and sparse files, whose content is not in one piece."""
# At most 18 digits: longer numbers cannot be an offset or a size.
_PACKED: Final = re.compile(
    r"(?P<shard>.+\.tar)@(?P<start>[0-9]{1,18})\+(?P<size>[0-9]{1,18})", re.DOTALL | re.IGNORECASE
)
_CELL: Final = re.compile(
    r"(?P<file>.+\.(?:parquet|pq))#(?P<column>.+)/(?P<row>[0-9]{1,12})", re.DOTALL | re.IGNORECASE
)
_NAME: Final = "images.arrow"
_ROWS: Final = 64
"""Images copied at a time."""
_REMEDY: Final = "Fetch the file again."


def packed_place(shard: str, *, start: int, size: int) -> str:
    """Return the reference that `CaptionRecord.image` uses for bytes of a shard: ``SHARD.tar@START+SIZE``."""
    return f"{shard}@{start}+{size}"


def parsed_place(place: str) -> tuple[Path, dict[str, int]]:
    """Split a reference into the file and the byte range of the image; no range if the image is the whole file."""
    packed = _PACKED.fullmatch(place)
    if packed is None:
        return Path(place), {}
    return Path(packed["shard"]), {"start": int(packed["start"]), "size": int(packed["size"])}


def containers_of(images: Any) -> Any:
    """Return the archive or Parquet file of each reference in an Arrow array; null for an image that is a file."""
    from pyarrow import compute

    return compute.coalesce(
        *(
            compute.struct_field(compute.extract_regex(images, rf"(?is)\A(?:{pattern.pattern})\z"), name)
            for pattern, name in ((_PACKED, "shard"), (_CELL, "file"))
        )
    )


@dataclass(frozen=True)
class TarMember:
    """A file in an archive, or a link to one.

    Attributes:
        name: in the archive.
        start: offset of its first byte in the archive; `LINK` for a link or a sparse file.
        size: bytes.
        content: its bytes, if requested.
    """

    name: str
    start: int
    size: int
    content: bytes | None = None


def walk_tar(tar: Path, *, wanted: Callable[[str], bool] = lambda name: False) -> Iterator[TarMember]:
    """Yield every file and link in an archive, in order, in a single pass.

    Args:
        tar: the archive.
        wanted: whether to read the content of a file with that name.

    Raises:
        InputError: it is not an uncompressed tar, is damaged or truncated, has data after its end, or contains a name
            twice; or a file to be read has more than `LONGEST_LINE` bytes.
    """
    names, shown = set[str](), display_path(tar)
    try:
        address = address_of(tar)
        with tar.open("rb") if address is None else open_remote(address) as stream:
            length = stream.seek(0, 2)
            stream.seek(0)
            archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115  # The stream is what must be closed.
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # Else millions of members stay in memory.
                if member.islnk() or member.issym() or member.issparse():
                    yield TarMember(member.name, LINK, 0)
                    continue
                if not member.isfile():
                    continue
                if member.name in names:
                    raise InputError(f"{shown}: member {member.name!r} occurs twice; names must be unique.")
                names.add(member.name)
                if member.offset_data + member.size > length:
                    raise InputError(f"{shown}: ends inside member {member.name!r}. {_REMEDY}")
                content = None
                if wanted(member.name):
                    if member.size > LONGEST_LINE:
                        about = f"member {member.name!r} has {counted(member.size, 'byte')}"
                        raise InputError(f"{shown}: {about}, too many for a caption or label.")
                    stream.seek(member.offset_data)
                    content = stream.read(member.size)
                yield TarMember(member.name, member.offset_data, member.size, content)
            # After a damaged or missing header the library stops as if it had reached the end.
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise InputError(f"{shown}: is damaged or cut off at byte {archive.offset}. {_REMEDY}")
            while piece := stream.read(PIECE):
                if piece.strip(b"\0"):
                    raise InputError(
                        f"{shown}: has data after the end of the archive at byte {archive.offset}, as archives joined "
                        "with cat have. Join them with tar --concatenate, or give them one by one."
                    )
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:  # numbers and names in headers may be anything
        raise InputError(f"{shown}: cannot be read as an uncompressed tar: {error}. {_REMEDY}") from None


@remembered(4096)
def tar_members(tar: Path) -> dict[str, tuple[int, int]]:
    """Map the name of each file in an archive to its offset and size in bytes; links as in `TarMember`.

    Raises:
        InputError: see `walk_tar`.
    """
    return {member.name: (member.start, member.size) for member in walk_tar(tar)}


def read_tar_member(tar: Path, name: str) -> bytes:
    """Return the content of one member.

    Raises:
        InputError: the archive cannot be read or has no such member, or the member is a link or a sparse file.
    """
    try:
        start, size = tar_members(tar)[name]
    except KeyError:
        raise InputError(f"{display_path(tar)}: has no member {name!r}. {_REMEDY}") from None
    _refuse_link(tar, name, start)
    return read_file(tar, Subject(f"{display_path(tar)}: member {name!r}"), start=start, size=size)


def _refuse_link(tar: Path, name: str, start: int) -> None:
    if start == LINK:
        raise InputError(
            f"{display_path(tar)}: member {name!r} is a link or sparse, so its content is not here in one piece. "
            "Pack the files again with tar --hard-dereference --dereference, without --sparse."
        )


def records_of(tar: Path, kinds: Mapping[str, str]) -> dict[str, dict[str, TarMember]]:
    """Group the relevant members of an archive by record and by kind.

    As in WebDataset, members whose names agree up to the first dot after their folder form one record; those whose
    names begin with a dot are ignored.

    Args:
        tar: the archive.
        kinds: kind of a member, by everything after that dot; its content is read, unless it is `IMAGE` or
            `SECOND_IMAGE`. Other images are recognised by their file extension and have the kind `IMAGE`.

    Raises:
        InputError: see `walk_tar`; or a record has two members of one kind, or a link or sparse member.
    """

    def place(name: str) -> tuple[str, str]:
        folder, slash, file = name.rpartition("/")
        stem, dot, rest = file.partition(".")
        suffix = f".{rest.rpartition('.')[2].lower()}" if dot else ""
        if not stem:  # "._0.jpg", which macOS puts beside each file
            return "", ""
        return folder + slash + stem, IMAGE if suffix in IMAGE_SUFFIXES else kinds.get(rest.lower(), "")

    groups: dict[str, dict[str, TarMember]] = {}
    for member in walk_tar(tar, wanted=lambda name: place(name)[1] not in ("", IMAGE, SECOND_IMAGE)):
        key, kind = place(member.name)
        if not kind:
            continue
        _refuse_link(tar, member.name, member.start)
        group = groups.setdefault(key, {})
        if kind in group:
            both = f"{group[kind].name!r}, {member.name!r}"
            raise InputError(f"{display_path(tar)}: record {key!r} has two members for its {kind}: {both}.")
        group[kind] = member
    return groups


def holds_images(kind: Any) -> bool:
    """Whether a column of this Arrow type holds image bytes, as plain binary or as `datasets` writes them."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(kind.field(at).name == "bytes" for at in range(kind.num_fields))
    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_kind(kind) for is_kind in (types.is_binary, types.is_large_binary, types.is_binary_view))


def cell_place(file: str, *, column: str, row: int) -> str:
    """Return the reference that `CaptionRecord.image` uses for an image in a Parquet file."""
    return f"{file}#{column}/{row}"


def parsed_cell(place: str) -> tuple[Path, str, int] | None:
    """Return file, column and row of a `cell_place` reference; None for anything else."""
    match = _CELL.fullmatch(place)
    return None if match is None else (Path(match["file"]), match["column"], int(match["row"]))


def find_cell(file: Path, column: str, row: int, *, copy: Path | None = None) -> Any:
    """Return the Arrow value of an image's bytes; the first call for a file copies its column.

    Args:
        file: the Parquet file.
        column: of the images.
        row: of the image.
        copy: one that `copy_images` wrote, to be read instead.

    Raises:
        InputError: the file, column, row or image does not exist, or the file is damaged.
    """
    shown = display_path(file)
    batches, starts = _image_column(file, column) if copy is None else _last_opened(copy)
    number = int(np.searchsorted(starts, row, side="right")) - 1
    if row >= starts[-1]:
        raise InputError(f"{shown}: has {counted(starts[-1], 'row')}, but row {row} is needed. Fetch the file again.")
    cell = batches[number].column(0)[row - int(starts[number])]
    if not cell.is_valid:
        raise InputError(f"{shown} row {row}: column {column!r} holds no image. Remove the row.")
    return cell


def one_image_per_picture(captions: Iterable[CaptionRecord], *, base: Path) -> Iterator[CaptionRecord]:
    """Give rows of local Parquet files that hold the same picture, byte for byte, the image of the first of them.

    Args:
        captions: those whose `image_id` is a column of its own stay as they are.
        base: folder that their images are relative to. Rows whose image cannot be read stay as they are, too.
    """
    first: dict[bytes, str] = {}
    for caption in captions:
        cell = parsed_cell(caption.image) if caption.image == caption.image_id else None
        if cell is not None and (file := base / cell[0]).is_file():
            with suppress(InputError):  # Training refuses the row, or skips it.
                digest = hashlib.sha256(find_cell(file, *cell[1:]).as_py()).digest()
                image = first.setdefault(digest, caption.image)
                caption = caption.model_copy(update={"image": image, "image_id": image})
        yield caption


@remembered(256)
def _image_column(file: Path, column: str) -> tuple[list[Any], Any]:
    """The copied batches of a column, the first row of each, and finally the total number of rows."""

    def copy(folder: Path) -> dict[str, Any]:
        with (folder / _NAME).open("wb") as out:
            copy_images(file, column, out)
        return {}

    folder, _ = prepare({"images": [place_of(file), *file_state(file), column]}, copy)
    return _opened(folder / _NAME)


def _opened(copy: Path) -> tuple[list[Any], Any]:
    _, batches = open_batches(copy)
    return batches, np.cumsum([0, *(batch.num_rows for batch in batches)])


_last_opened = lru_cache(maxsize=8)(_opened)  # A copy that is open takes space on the disk even if it is deleted.


def copy_images(
    file: Path,
    column: str,
    out: IO[bytes],
    *,
    source: io.RawIOBase | None = None,
    before_each: Callable[[], None] = lambda: None,
) -> None:
    """Copy a column of images.

    Args:
        file: the Parquet file.
        column: of the images.
        out: where the copy is written.
        source: stream of a remote file, of which only that column is read; None copies the whole file first.
        before_each: called before some images are written.

    Raises:
        InputError: the file has no such column, or is damaged.
    """
    import pyarrow as arrow

    # Errors in writing do not mean that the source file is damaged.
    schema = arrow.schema([(column, arrow.large_binary())])
    with arrow.ipc.new_file(out, schema) as writer:
        for values in _read(file, column, source):
            before_each()
            writer.write_batch(arrow.record_batch([values], schema))


def _read(file: Path, column: str, stream: io.RawIOBase | None) -> Iterator[Any]:
    """The images of a column, some rows at a time."""
    import pyarrow as arrow
    from pyarrow import compute, parquet, types

    shown = display_path(file)
    copy, buffer = (fetched(file), 0) if stream is None else (stream, PIECE)
    try:
        source = parquet.ParquetFile(copy, page_checksum_verification=True, buffer_size=buffer)
        if column not in source.schema_arrow.names or not holds_images(source.schema_arrow.field(column).type):
            raise InputError(f"{shown}: has no image column {column!r}. Fetch the file again.")
        with TaskProgress(stream is None).task(f"images of {file.name}", source.metadata.num_rows) as advance:
            for batch in source.iter_batches(batch_size=_ROWS, columns=[column]):
                values = batch.column(0)
                if types.is_struct(values.type):
                    values = compute.struct_field(values, "bytes")
                yield values.cast(arrow.large_binary())
                advance(batch.num_rows)
    except MemoryError:  # `ArrowException`, too, although the file is not damaged
        raise DeglaError(
            f"{shown}: {_ROWS} rows of column {column!r} do not fit in memory. Use smaller images; if they are small, "
            "it is damaged."
        ) from None
    except (arrow.ArrowException, OSError, ValueError, SystemError) as error:
        raise InputError(f"{shown}: the Parquet file is damaged: {in_one_line(error)}. Fetch it again.") from None
