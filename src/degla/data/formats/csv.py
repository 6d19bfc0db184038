"""Comma-separated values with a header line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from degla.data.columns import Columns, Placed, captions_of_row
from degla.errors import InputError


def claims(path: Path) -> bool:
    """Files called .csv."""
    return path.suffix.lower() == ".csv"


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """One caption a row.

    Raises:
        InputError: the header lacks a column, or a row has a wrong number of cells or an empty one.
    """
    return read_table(path, columns, delimiter=",")


def read_table(path: Path, columns: Columns, *, delimiter: str) -> Iterator[Placed]:
    """Read the captions of a text table with a header line and quotes as RFC 4180 writes them.

    Raises:
        InputError: names the file, the line and the column.
    """
    kind = "comma" if delimiter == "," else "tab"
    try:
        # Spreadsheets put a byte order mark before the first column's name; utf-8-sig takes it away.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            header = next(reader, None)
            if header is None:
                return
            columns = columns.settle(header, where=f"{path} line 1 ({kind}-separated header)")
            number = 0
            for cells in reader:
                if not cells:
                    continue
                where = f"{path} line {reader.line_num}"
                if len(cells) != len(header):
                    raise InputError(
                        f"{where}: {len(cells)} cells where the header has {len(header)}. "
                        f"Put text that holds a {kind} into double quotes."
                    )
                row = dict(zip(header, cells, strict=True))
                yield from captions_of_row(row, columns=columns, where=where, number=number)
                number += 1
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: not {kind}-separated values: {error}.") from None
