"""Pictures inside Parquet and Arrow files, byte for byte: `a.parquet#image/17` is row 17 of its column `image`.

Such a column holds the bytes of image files, as they are or in a struct with the field `bytes`, which is what Hugging
Face `datasets` writes. Nothing is unpacked: rows are read where they lie, some hundred at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any

from degla.data.tars import file_state
from degla.errors import InputError
from degla.evaluation.data_sets.archives import MARK
from degla.parse import check_regular, in_one_line

SUFFIXES = (".parquet", ".arrow")
_READING = RLock()
"""Pyarrow's reader of Parquet files is not safe to share: two threads in one file end the process."""
_MEMBER = re.compile(r"(?P<column>[^/]+)/(?P<row>[0-9]{1,12})")


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row behind its place; the cell of a column of pictures is the picture's name, "a.parquet#image/17".

    Raises:
        InputError: it is not a file of that form, or damaged.
    """
    table = _open(file)
    others = [name for name in table.names if name not in table.pictures]
    number = 0
    for group in range(table.groups):
        values = table.read(group, others)
        for row in values.to_pylist() if others else [{} for _ in range(table.sizes[group])]:
            yield f"{file} row {number}", row | {name: f"{file.name}{MARK}{name}/{number}" for name in table.pictures}
            number += 1


def has_bytes(file: Path, member: str) -> bool:
    """Whether that row's picture is there; what it holds is not looked at.

    Raises:
        InputError: the file is damaged.
    """
    place = _place(file, member)
    return place is not None and place[0][place[1]].is_valid


def read_bytes(file: Path, member: str) -> bytes:
    """The image file in a row, byte for byte.

    Raises:
        InputError: there is no such picture, or the file is damaged.
    """
    place = _place(file, member)
    content: bytes | None = None if place is None else place[0][place[1]].as_py()
    if content is None:
        raise InputError(f"{file}{MARK}{member}: there is no such picture in the file. Fetch the file again.")
    return content


def _place(file: Path, member: str) -> tuple[Any, int] | None:
    """The column of the group of rows that a picture is in, and its row there; None where there is none."""
    found = _MEMBER.fullmatch(member)
    table = _open(file)
    if found is None or found["column"] not in table.pictures:
        return None
    row = int(found["row"])
    for group, size in enumerate(table.sizes):
        if row < size:
            with _READING:  # threads that want one group of rows read it once
                return _pictures(file, *_state(file), found["column"], group), row
        row -= size
    return None


@lru_cache(maxsize=4)
def _pictures(file: Path, modified: int, size: int, column: str, group: int) -> Any:
    """The bytes of one column in one group of rows."""
    import pyarrow.compute as compute
    from pyarrow import types

    values = _open(file).read(group, [column]).column(column).combine_chunks()
    return compute.struct_field(values, "bytes") if types.is_struct(values.type) else values


class _RowGroups:
    """A Parquet file, or an Arrow stream as `save_to_disk` writes it, as groups of rows."""

    def __init__(self, path: Path) -> None:
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        from degla.data.cells import holds_pictures

        self.path = path
        try:
            if path.suffix.lower() == ".parquet":
                self._parquet = parquet.ParquetFile(path, page_checksum_verification=True)
                schema = self._parquet.schema_arrow
                groups = range(self._parquet.num_row_groups)
                self.sizes = [self._parquet.metadata.row_group(at).num_rows for at in groups]
            else:
                self._parquet = None
                # A memory map: only the rows that are read are ever in memory.
                self._batches = list(arrow.ipc.open_stream(arrow.memory_map(str(path))))
                schema = self._batches[0].schema if self._batches else arrow.schema([])
                self.sizes = [batch.num_rows for batch in self._batches]
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from None
        self.names: list[str] = schema.names
        self.pictures = [name for name, kind in zip(schema.names, schema.types, strict=True) if holds_pictures(kind)]
        self.groups = len(self.sizes)

    def read(self, group: int, columns: list[str]) -> Any:
        """Columns of one group of rows, as a table."""
        import pyarrow as arrow

        try:
            if self._parquet is not None:
                with _READING:
                    return self._parquet.read_row_group(group, columns=columns)
            table = arrow.Table.from_batches([self._batches[group]]).select(columns)
            # Arrow trusts the offsets in its files: a damaged one would be followed out of the file's memory.
            table.validate(full=True)
            return table
        except (arrow.ArrowException, OSError, ValueError, SystemError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> InputError:
        form = "a Parquet file" if self.path.suffix.lower() == ".parquet" else "an Arrow stream"
        return InputError(f"{self.path}: cannot be read as {form}: {in_one_line(error)}. Fetch the file again.")


def _open(file: Path) -> _RowGroups:
    return _opened(file, *_state(file))


@lru_cache(maxsize=16)
def _opened(file: Path, modified: int, size: int) -> _RowGroups:
    return _RowGroups(file)


def _state(file: Path) -> tuple[int, int]:
    """Time of change and size: what is remembered of a file holds as long as both are the same."""
    check_regular(file, remedy="Fetch the file again.")
    return file_state(file)
