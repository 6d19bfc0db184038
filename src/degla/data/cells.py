"""Pictures in Parquet files: `a.parquet#image/17` is row 17 of the column `image`.

Parquet gives whole groups of rows at once, so a picture at random would cost hundreds. The column is therefore copied
once, as Arrow batches that all processes map into memory; it takes as much of the disk as the pictures do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as arrow
import pyarrow.compute as compute
import pyarrow.parquet as parquet
from pyarrow import types

from degla.data.places import place_of
from degla.data.prepared import fetched, open_batches, prepare
from degla.data.tars import file_state
from degla.errors import InputError
from degla.parse import PARQUET_ENDINGS, in_one_line
from degla.progress import TaskProgress

_CELL: Final = re.compile(
    r"(?P<file>.+\.(?:parquet|pq))#(?P<column>.+)/(?P<row>[0-9]{1,12})", re.DOTALL | re.IGNORECASE
)
_NAME: Final = "pictures.arrow"
_ROWS: Final = 64
"""Pictures that are copied at a time."""


def holds_pictures(kind: Any) -> bool:
    """Whether a column of that Arrow type holds the bytes of pictures, as they are or as `datasets` writes them."""
    if types.is_struct(kind):
        return any(kind.field(at).name == "bytes" for at in range(kind.num_fields))
    if arrow.types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_kind(kind) for is_kind in (types.is_binary, types.is_large_binary, types.is_binary_view))


def cell_place(file: str, *, column: str, row: int) -> str:
    """How `CaptionRecord.image` names a picture in a Parquet file."""
    return f"{file}#{column}/{row}"


def name_that_counts(file: Path) -> str:
    """What of a file's name its records depend on: its ending; all of it where they tell pictures by it."""
    suffix = file.suffix.lower()
    return file.name if suffix in PARQUET_ENDINGS else suffix


def parsed_cell(place: str) -> tuple[Path, str, int] | None:
    """File, column and row of a place of `cell_place`; None where it is none."""
    found = _CELL.fullmatch(place)
    return None if found is None else (Path(found["file"]), found["column"], int(found["row"]))


def read_cell(file: Path, column: str, row: int) -> bytes:
    """The bytes of a picture; raises like `find_cell`."""
    content: bytes = find_cell(file, column, row).as_py()
    return content


def find_cell(file: Path, column: str, row: int) -> Any:
    """The Arrow value of a picture's bytes; the first call for a file copies its column.

    Raises:
        InputError: there is no such file, column, row or picture, or the file is damaged.
    """
    batches, starts = _pictures(file, column, *file_state(file))
    number = int(np.searchsorted(starts, row, side="right")) - 1
    if row >= starts[-1]:
        raise InputError(f"{file}: has {starts[-1]} rows, and row {row} is asked for. Fetch the file again.")
    cell = batches[number].column(0)[row - int(starts[number])]
    if not cell.is_valid:
        raise InputError(f"{file} row {row}: column {column!r} holds no picture. Take the row out.")
    return cell


@lru_cache(maxsize=256)
def _pictures(file: Path, column: str, modified: int, size: int) -> tuple[list[Any], Any]:
    """The copied batches of a column, and the row that each begins with, and at last their number of rows."""

    def copy(folder: Path) -> dict[str, Any]:
        _copy(file, column, folder / _NAME)
        return {}

    folder, _ = prepare({"pictures": [place_of(file), modified, size, column]}, copy)
    _, batches = open_batches(folder / _NAME)
    return batches, np.cumsum([0, *(batch.num_rows for batch in batches)])


def _copy(file: Path, column: str, out: Path) -> None:
    # What goes wrong in writing is no damage of the file that is read.
    schema = arrow.schema([(column, arrow.large_binary())])
    with arrow.ipc.new_file(str(out), schema) as writer:
        for values in _read(file, column):
            writer.write_batch(arrow.record_batch([values], schema))


def _read(file: Path, column: str) -> Iterator[Any]:
    """The pictures of a column, some rows at a time."""
    copy = fetched(file)
    try:
        source = parquet.ParquetFile(copy, page_checksum_verification=True)
        if column not in source.schema_arrow.names or not holds_pictures(source.schema_arrow.field(column).type):
            raise InputError(f"{file}: there is no column {column!r} of pictures. Fetch the file again.")
        with TaskProgress(True).task(f"pictures of {file.name}", source.metadata.num_rows) as advance:
            for batch in source.iter_batches(batch_size=_ROWS, columns=[column]):
                values = batch.column(0)
                if types.is_struct(values.type):
                    values = compute.struct_field(values, "bytes")
                yield values.cast(arrow.large_binary())
                advance(batch.num_rows)
    except (arrow.ArrowException, OSError, ValueError, SystemError) as error:
        raise InputError(f"{file}: the Parquet file is damaged: {in_one_line(error)}. Fetch it again.") from None
