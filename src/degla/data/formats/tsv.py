"""Tab-separated values with a header line; negatives in the form of NegCLIP, a list in a cell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from degla.data.formats.csv import read_negatives, read_table
from degla.data.sources import Columns, Placed
from degla.records import NegativeRecord


def claims(path: Path) -> bool:
    """Files called .tsv or .tab."""
    return path.suffix.lower() in (".tsv", ".tab")


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """One caption a row.

    Raises:
        InputError: the header lacks a column, or a row has a wrong number of cells or an empty one.
    """
    return read_table(path, columns, delimiter="\t")


def negatives(path: Path) -> Iterator[NegativeRecord]:
    """Every text of the lists in the column "neg_caption", as an accepted negative.

    Raises:
        InputError: see `csv.read_negatives`.
    """
    return read_negatives(path, delimiter="\t")
