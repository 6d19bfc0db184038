"""Parquet files with named columns; pictures in them are used in place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from degla.data.cells import SUFFIXES, cell_place, holds_pictures
from degla.data.places import base_of, files_of, is_folder
from degla.data.prepared import fetched
from degla.data.sources import Columns, Placed, captions_of_row
from degla.errors import InputError
from degla.parse import in_one_line
from degla.records import NEW_FIELDS, NegativeRecord, validate

PATTERNS: Final = True
_ROWS = 4096  # rows decoded at a time: a few megabytes of text
_PACKED = b"degla.packed"  # in the schema's metadata of files that `degla negatives pack` wrote


def claims(path: Path) -> bool:
    """Files and patterns that end in .parquet or .pq, and folders with such files that hold no tars."""
    if is_folder(path):
        return bool(files_of(path, *SUFFIXES)) and not files_of(path, ".tar")
    return path.suffix.lower() in SUFFIXES


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """One caption (or list of captions) a row. Rows without ids are numbered through all files.

    Raises:
        InputError: it is no Parquet file, a column is missing, or a row has a wrong field.
    """
    base, number = base_of(path), 0
    for each in files_of(path, *SUFFIXES):
        file = _open(fetched(each))
        schema = file.schema_arrow
        twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{each}: two columns are called {twice!r}. Give each its own name.")
        own = columns.settle(schema.names, where=str(each))
        optional = [name for name in schema.names if NEW_FIELDS.get(name, name) in columns.optional]
        names = list(dict.fromkeys(own.names() + optional))
        inside = holds_pictures(schema.field(own.image).type)
        if inside:
            if each.suffix.lower() not in SUFFIXES:
                raise InputError(f"{each}: holds pictures, so its name must end in .parquet. Call it so.")
            names.remove(own.image)
        for place, row in enumerate(_rows(file, names, path=each)):
            if inside:
                row[own.image] = cell_place(str(each.relative_to(base)), column=own.image, row=place)
            yield from captions_of_row(row, columns=own, where=f"{each} row {place}", number=number)
            number += 1


def negatives(path: Path) -> Iterator[NegativeRecord]:
    """One `NegativeRecord` a row. The captions that `degla negatives pack` puts beside them are passed over.

    Raises:
        InputError: it is not a Parquet file, or a row has a wrong field.
    """
    file = _open(path)
    names: list[str] = file.schema_arrow.names
    if _PACKED in (file.schema_arrow.metadata or {}):
        names = [name for name in names if name in NegativeRecord.model_fields]
    for number, row in enumerate(_rows(file, names, path=path)):
        yield validate(NegativeRecord, row, where=f"{path} row {number}")


def _open(path: Path) -> Any:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(path, page_checksum_verification=True)  # of files that have checksums, as ours do
    except (arrow.ArrowException, OSError, ValueError) as error:
        said = in_one_line(error).rstrip(".")
        raise InputError(f"{path}: not a Parquet file that can be read: {said}. Get or make it again.") from None


def _rows(file: Any, names: list[str] | None, *, path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as arrow

    try:
        for batch in file.iter_batches(batch_size=_ROWS, columns=names):
            columns = [_values(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield dict(zip(batch.schema.names, values, strict=True))
    except (arrow.ArrowException, OSError, ValueError, SystemError) as error:  # also texts that are not UTF-8
        raise InputError(f"{path}: the Parquet file is damaged: {in_one_line(error)}") from None


def _values(column: Any) -> list[Any]:
    """A column as Python values. Texts go through numpy, which is several times faster than `to_pylist`."""
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_string(column.type) or types.is_large_string(column.type):
        values: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
    else:
        values = column.to_pylist()
    return values
