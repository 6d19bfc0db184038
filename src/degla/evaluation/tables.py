"""Annotation tables of published benchmarks in any form: CSV, JSON, JSONL, Parquet or Arrow enter, records leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from degla import parse
from degla.data.formats.csv import read_rows
from degla.errors import InputError
from degla.evaluation.annotations import Published, published_row, read_lines, read_list
from degla.evaluation.data_sets import embedded
from degla.records import RecordType

_PICKLED = (".pt", ".pth", ".pkl", ".pickle")


def read_records(kind: type[RecordType], file: Path, published: Published) -> Iterator[tuple[str, RecordType]]:
    """Every row, validated, behind its place: ("cc_neg.jsonl line 3", row).

    Args:
        kind: of a row.
        file: its ending says its form. In Parquet and Arrow, the cell of a column of pictures is the picture's name
            (`data_sets.embedded`).
        published: where to get the file.

    Raises:
        InputError: the file is missing, empty or of another form, or a row is wrong; file, row and field are named.
    """
    empty = True
    for where, row in read_table(file, published):
        empty = False
        yield where, published_row(kind, row, where=where)
    if empty:
        raise InputError(f"{file}: holds no row. Get it again from {published.source}.")


def read_table(file: Path, published: Published) -> Iterator[tuple[str, Any]]:
    """Every row as it is, behind its place; arguments and errors as for `read_records`."""
    form = file.suffix.lower()
    if form in _PICKLED:
        raise InputError(
            f"{file}: a pickle, which can run any program where it is opened, so that it is not read here. Have its "
            f"rows written as JSON, one a line:\n{published.layout}"
        )
    parse.check_regular(file, remedy=f"Get it from {published.source}; the files must lie so:\n{published.layout}")
    if form == ".csv":
        yield from read_rows(file, delimiter=",")
    elif form == ".jsonl":
        for number, row in read_lines(file, published):
            yield f"{file} line {number}", row
    elif form == ".json":
        for number, row in enumerate(read_list(file, published)):
            yield f"{file} item {number}", row
    elif form in embedded.SUFFIXES:
        yield from embedded.read_rows(file)
    else:
        raise InputError(f"{file}: must end in .csv, .json, .jsonl, {' or '.join(embedded.SUFFIXES)}.")


def find_files(root: Path, patterns: Sequence[str], published: Published) -> list[Path]:
    """The files of the first pattern that any file fits, by name.

    Raises:
        InputError: there is none.
    """
    for pattern in patterns:
        found = sorted(root.glob(pattern))
        if found:
            return found
    raise InputError(
        f"{root}: holds no {' nor '.join(patterns)}. Get it from {published.source}; the files must lie so:\n"
        f"{published.layout}"
    )
