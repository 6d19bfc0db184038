"""Parquet files with named columns; images in them are used in place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from degla.data.columns import Columns, Placed, captions_of_row
from degla.data.containers import cell_place, holds_images
from degla.data.places import base_of, files_of, is_folder
from degla.data.prepared import fetched
from degla.errors import DeglaError, InputError
from degla.parse import PARQUET_ENDINGS, in_one_line, open_parquet, parse_json, require_form
from degla.records import NegativeRecord, validate
from degla.remote import RemoteFile, address_of, display_path

PATTERNS: Final = True
ENDINGS: Final = PARQUET_ENDINGS
_ROWS = 4096  # rows decoded at a time: a few megabytes of text
_IMAGES = 16  # images read at a time where only the first is needed
_PACKED = b"degla.packed"  # in the schema's metadata of files written by `degla negatives pack`
_ANEW = "Download or create it again."


def claims(path: Path) -> bool:
    """Claim files and patterns with these suffixes, and folders with such files but no tars."""
    return not is_folder(path) or (bool(files_of(path, *ENDINGS)) and not files_of(path, ".tar"))


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """Yield one caption (or list of captions) per row. Rows without ids are numbered across all files.

    Raises:
        InputError: it is not a Parquet file, a column is missing or not in all files, or a row has an invalid field.
    """
    base, number = base_of(path), 0
    own: Columns | None = None
    for each in files_of(path, *ENDINGS):
        address, shown = address_of(each), display_path(each)
        file = open_parquet(shown if address else each, None if address is None else RemoteFile(address))
        schema = file.schema_arrow
        twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{shown}: two columns are named {twice!r}. Give each its own name.")
        own = own or columns.settle(schema.names, where=shown)
        own.require(schema.names, where=shown)
        names = own.read_from(schema.names)
        paths = _holds_paths(file, own.image)
        inside = not paths and holds_images(schema.field(own.image).type)
        if inside:
            if each.suffix.lower() not in ENDINGS:
                raise InputError(f"{shown}: contains images, so its name must end in .parquet. Rename it.")
            names.remove(own.image)
        elif address is not None:
            file = open_parquet(fetched(each))
        for place, row in enumerate(_rows(file, names, path=shown)):
            if inside:
                row[own.image] = cell_place(str(each.relative_to(base)), column=own.image, row=place)
            elif paths and row[own.image] is not None:
                row[own.image] = row[own.image]["path"]
            yield from captions_of_row(row, columns=own, where=f"{shown} row {place}", number=number)
            number += 1


def negatives(path: Path) -> Iterator[NegativeRecord]:
    """Yield one `NegativeRecord` per row. The captions that `degla negatives pack` adds are ignored.

    Raises:
        InputError: it is not a Parquet file, a newer version packed it, or a row has an invalid field.
    """
    file = open_parquet(path)
    names: list[str] = file.schema_arrow.names
    if (packed := (file.schema_arrow.metadata or {}).get(_PACKED)) is not None:
        where = f"{path}: '{_PACKED.decode()}' in the schema's metadata"
        about = parse_json(packed, where=where, remedy=_ANEW, lines=False)
        require_form(about if isinstance(about, dict) else {}, where=where, remedy=_ANEW)
        names = [name for name in names if name in NegativeRecord.model_fields]
    for number, row in enumerate(_rows(file, names, path=path)):
        yield validate(NegativeRecord, row, where=f"{path} row {number}")


def _holds_paths(file: Any, column: str) -> bool:
    """Whether a column is a struct with paths and no bytes, as `datasets` writes images that are files."""
    from pyarrow import types

    kind = file.schema_arrow.field(column).type
    if not types.is_struct(kind) or "path" not in [each.name for each in kind]:
        return False
    stored = f"{column}.bytes"
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        for part in (group.column(place) for place in range(group.num_columns)):
            if part.path_in_schema == stored and not _is_null(file, part, group=number):
                return False
    return True


def _is_null(file: Any, part: Any, *, group: int) -> bool:
    """Whether a column has no value in a row group; it is read, up to the first value, if no statistics tell."""
    if part.statistics is not None and part.statistics.null_count is not None:
        return bool(part.statistics.null_count == part.num_values)
    batches = file.iter_batches(batch_size=_IMAGES, row_groups=[group], columns=[part.path_in_schema])
    return all(leaf.null_count == len(leaf) for batch in batches for leaf in batch.column(0).flatten())


def _rows(file: Any, names: list[str] | None, *, path: Path | str) -> Iterator[dict[str, Any]]:
    import pyarrow as arrow

    try:
        for batch in file.iter_batches(batch_size=_ROWS, columns=names):
            columns = [_values(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield dict(zip(batch.schema.names, values, strict=True))
    except MemoryError:  # `ArrowException`, too, although the file is not damaged
        raise DeglaError(
            f"{path}: {_ROWS:,} rows do not fit in memory. Remove texts of that size; if it has none, it is damaged."
        ) from None
    except (arrow.ArrowException, OSError, ValueError, SystemError) as error:  # also texts that are not UTF-8
        raise InputError(f"{path}: the Parquet file is damaged: {in_one_line(error)}") from None


def _values(column: Any) -> list[Any]:
    """Convert a column to Python values. Texts go through numpy, which is several times faster than `to_pylist`."""
    from pyarrow import types

    if types.is_string(column.type) or types.is_large_string(column.type):
        values: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
    else:
        values = column.to_pylist()
    return values
