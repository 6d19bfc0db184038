"""Read images and labels from single files without unpacking: WebDataset archives (`*.tar`), CIFAR's pickled batches,
and Parquet and Arrow files, where `a.parquet#image/17` is row 17 of the column `image`.

An image column has the bytes of image files, either directly or in a struct with the field `bytes`, as written by
Hugging Face `datasets`. Rows are read in place, a few hundred at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from degla.data.containers import IMAGE, records_of
from degla.errors import InputError
from degla.pages.words import counted
from degla.parse import in_one_line, open_parquet, unpickle
from degla.remote import remembered

MARK = "#"
"""Separates a file with several images from the name of one of them."""
LABEL_SUFFIX = ".cls"
_NUMBER = re.compile("[0-9]{1,9}")
SIDE = 32
"""Side length of CIFAR's images, in pixels."""
SUFFIXES = (".parquet", ".arrow")
_READING = RLock()
"""Pyarrow's Parquet reader is not thread-safe: two threads in one file crash the process."""
_MEMBER = re.compile(r"(?P<column>[^/]+)/(?P<row>[0-9]{1,12})")


def find_tars(folder: Path) -> list[Path]:
    """Return the archives of a folder, or of its subfolder `test`, sorted by name."""
    return sorted(folder.glob("*.tar")) or sorted((folder / "test").glob("*.tar"))


def labelled_members(tar: Path) -> Iterator[tuple[str, int]]:
    """Yield name and label of each image; members whose names are equal up to the first dot belong together.

    Raises:
        InputError: an image without a label, a label without an image, or a label that is not a number.
    """
    for key, group in records_of(tar, {LABEL_SUFFIX[1:]: "label"}).items():
        for kind, suffix in (("image", "an image extension"), ("label", LABEL_SUFFIX)):
            if kind not in group:
                raise InputError(f"{tar}: record {key!r} has no {kind} (a member with {suffix}).")
        text = (group["label"].content or b"").decode("ascii", errors="replace").strip()
        if not _NUMBER.fullmatch(text):
            raise InputError(
                f"{tar}: member {group['label'].name!r} must be a class number, 0 or more; got {text[:40]!r}."
            )
        yield group[IMAGE].name, int(text)


@remembered(2)
def read_batch(file: Path) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """Read images `[N, 3, 32, 32]` and labels of one file of the Python version.

    Raises:
        InputError: the file cannot be read, or is not a batch of CIFAR-10 or CIFAR-100.
    """
    try:
        content = unpickle(file.read_bytes(), encoding="bytes")
        fields = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
        labels = tuple(int(label) for label in fields["fine_labels" if "fine_labels" in fields else "labels"])
        images = np.asarray(fields["data"], dtype=np.uint8).reshape(len(labels), 3, SIDE, SIDE)
    except Exception as error:  # a damaged pickle may raise anything
        raise InputError(f"{file}: not a CIFAR batch ({error}). Fetch the file again.") from None
    return images, labels


def as_image_file(file: Path, number: int) -> bytes:
    """Return one image as the bytes of a PPM file, which every image library can read.

    Raises:
        InputError: see `read_batch`; or there is no image with this number.
    """
    images, _ = read_batch(file)
    if not 0 <= number < len(images):
        raise InputError(f"{file}: has {counted(len(images), 'image')}, so there is no number {number}.")
    pixels: bytes = images[number].transpose(1, 2, 0).tobytes()
    return f"P6 {SIDE} {SIDE} 255\n".encode() + pixels


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every row with its location; the cell of an image column is the image's name, "a.parquet#image/17".

    Raises:
        InputError: the file has another format, or is damaged.
    """
    table = _open(file)
    others = [name for name in table.names if name not in table.image_columns]
    number = 0
    for group, size in enumerate(table.sizes):
        for row in table.read(group, others).to_pylist() if others else [{}] * size:
            images = {name: f"{file.name}{MARK}{name}/{number}" for name in table.image_columns}
            yield f"{file} row {number}", row | images
            number += 1


def has_bytes(file: Path, member: str) -> bool:
    """Whether that row has an image; its content is not read.

    Raises:
        InputError: the file is damaged.
    """
    cell = _cell(file, member)
    return cell is not None and cell.is_valid


def read_bytes(file: Path, member: str) -> bytes:
    """Return the image file in a row, byte for byte.

    Raises:
        InputError: there is no such image, or the file is damaged.
    """
    cell = _cell(file, member)
    content: bytes | None = None if cell is None else cell.as_py()
    if content is None:
        raise InputError(f"{file}{MARK}{member}: the file has no such image. Fetch the file again.")
    return content


def _cell(file: Path, member: str) -> Any:
    """The Arrow value with an image's bytes; None if there is no such row or column."""
    match = _MEMBER.fullmatch(member)
    table = _open(file)
    if match is None or match["column"] not in table.image_columns:
        return None
    row = int(match["row"])
    for group, size in enumerate(table.sizes):
        if row < size:
            with _READING:  # threads that need the same row group read it once
                column = _image_column(file, match["column"], group)
            return column[row]
        row -= size
    return None


@remembered(4)
def _image_column(file: Path, column: str, group: int) -> Any:
    """The bytes of one column in one row group."""
    import pyarrow.compute as compute
    from pyarrow import types

    values = _open(file).read(group, [column]).column(column).combine_chunks()
    return compute.struct_field(values, "bytes") if types.is_struct(values.type) else values


class _RowGroups:
    """A Parquet file, or an Arrow stream as written by `save_to_disk`, as row groups."""

    def __init__(self, path: Path) -> None:
        import pyarrow as arrow

        from degla.data.containers import holds_images

        self.path = path
        try:
            if path.suffix.lower() == ".parquet":
                self._parquet = open_parquet(path)
                schema = self._parquet.schema_arrow
                about = self._parquet.metadata
                self.sizes = [about.row_group(at).num_rows for at in range(about.num_row_groups)]
            else:
                self._parquet = None
                # Memory-mapped: only the rows that are read are in memory.
                self._batches = list(arrow.ipc.open_stream(arrow.memory_map(str(path))))
                schema = self._batches[0].schema if self._batches else arrow.schema([])
                self.sizes = [batch.num_rows for batch in self._batches]
            self.names: list[str] = schema.names  # ValueError if one is not UTF-8
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from None
        self.image_columns = [name for name, kind in zip(self.names, schema.types, strict=True) if holds_images(kind)]

    def read(self, group: int, columns: list[str]) -> Any:
        """Read columns of one row group as a table."""
        import pyarrow as arrow

        try:
            if self._parquet is not None:
                with _READING:
                    table = self._parquet.read_row_group(group, columns=columns)
            else:
                table = arrow.Table.from_batches([self._batches[group]]).select(columns)
            # Arrow trusts its files: a damaged offset would be followed out of bounds, and texts need not be UTF-8.
            table.validate(full=True)
            return table
        except (arrow.ArrowException, OSError, ValueError, SystemError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> InputError:
        form = "a Parquet file" if self.path.suffix.lower() == ".parquet" else "an Arrow stream"
        return InputError(f"{self.path}: cannot be read as {form}: {in_one_line(error)}. Fetch the file again.")


@remembered(16)
def _open(file: Path) -> _RowGroups:
    return _RowGroups(file)
