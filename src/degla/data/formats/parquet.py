"""Parquet files with named columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from degla.data.columns import Columns, Placed, captions_of_row
from degla.errors import InputError
from degla.records import NegativeRecord, validate

_ROWS = 4096  # rows decoded at a time: a few megabytes of text


def claims(path: Path) -> bool:
    """Files called .parquet or .pq."""
    return path.suffix.lower() in (".parquet", ".pq")


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """One caption (or list of captions) a row.

    Raises:
        InputError: it is no Parquet file, a column is missing or holds pictures, or a row has a wrong field.
    """
    file = _open(path)
    columns = columns.settle(file.schema_arrow.names, where=str(path))
    for number, row in enumerate(_rows(file, columns.names(), path=path)):
        where = f"{path} row {number}"
        if isinstance(row[columns.image], bytes | dict):
            raise InputError(
                f"{where}: column {columns.image!r} holds the pictures themselves; a path is needed. Open "
                "the file with the `datasets` library, call save_to_disk(FOLDER) and give that folder."
            )
        yield from captions_of_row(row, columns=columns, where=where, number=number)


def negatives(path: Path) -> Iterator[NegativeRecord]:
    """One `NegativeRecord` a row.

    Raises:
        InputError: it is not a Parquet file, or a row has a wrong field.
    """
    for number, row in enumerate(_rows(_open(path), None, path=path)):
        yield validate(NegativeRecord, row, where=f"{path} row {number}")


def _open(path: Path) -> Any:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(path)
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a Parquet file that can be read: {error}") from None


def _rows(file: Any, names: list[str] | None, *, path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as arrow

    try:
        for batch in file.iter_batches(batch_size=_ROWS, columns=names):
            yield from batch.to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: the Parquet file is damaged: {error}") from None
