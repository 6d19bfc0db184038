"""Comma-separated values with a header line; negatives in NegCLIP's format, a list in a cell."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from degla.data.columns import Columns, Placed, captions_of_row, published_negative
from degla.errors import InputError
from degla.pages.words import counted
from degla.parse import open_file
from degla.records import LISTS, NegativeRecord
from degla.shelf import did_you_mean

ENDINGS = (".csv",)
Item = TypeVar("Item", str, int)
_TEXTS, _RULES = "neg_caption", "neg_rule"
_LIST = re.compile(r"""\[\s*(['"{].*)?\]""", re.DOTALL)
_APART = re.compile(r"""['"]\s+['"]""")


def read_table(path: Path, columns: Columns, *, delimiter: str) -> Iterator[Placed]:
    """Read the captions of a text table with a header line and RFC 4180 quotes, one per row.

    The text, and each optional field that is a list, may be a list in JSON or Python notation.

    Raises:
        InputError: the header lacks a column, or a row has the wrong number of cells or an empty one; names the file,
            the line and the column.
    """
    for number, (where, row) in enumerate(read_rows(path, delimiter=delimiter)):
        if number == 0:
            if len(row) == 1:
                raise _one_cell(path, *row)
            columns = columns.settle(list(row), where=f"{path} line 1 ({_kind(delimiter)}-separated header)")
        for name in (columns.text, *(name for name in columns.optional if name in LISTS)):
            if _LIST.fullmatch(row.get(name, "")):
                row[name] = _parsed(row[name], column=name, where=where)
        yield from captions_of_row(row, columns=columns, where=where, number=number)


def read_negatives(path: Path, *, delimiter: str) -> Iterator[NegativeRecord]:
    """Yield every text of a table in NegCLIP's format (github.com/vinid/neg_clip) as an accepted negative.

    A row's caption id is in the column "id" or, if there is none, is the row's number from 0, as in `read_table`. The
    cell "neg_caption" is a list of texts in Python notation; the optional column "neg_rule" is a list of the same
    length with the rule that made each.

    Raises:
        InputError: names the file, the line and the column.
    """
    for number, (where, row) in enumerate(read_rows(path, delimiter=delimiter)):
        if _TEXTS not in row:
            raise InputError(
                f"{path} line 1: has no column {_TEXTS!r}.{did_you_mean(_TEXTS, row)} Each of its cells holds a list "
                f"""of negatives, for example ['A cat.', "A dog's bed."]. Found: {", ".join(row)}."""
            )
        texts = list_in_cell(row[_TEXTS], column=_TEXTS, where=where)
        rules = list_in_cell(row[_RULES], column=_RULES, where=where) if _RULES in row else ["published"] * len(texts)
        if len(rules) != len(texts):
            raise InputError(
                f"{where}: {counted(len(texts), 'text')} in {_TEXTS!r} but {counted(len(rules), 'name')} in {_RULES!r}."
            )
        for draw, (text, rule) in enumerate(zip(texts, rules, strict=True)):
            yield published_negative(text, caption_id=row.get("id") or str(number), rule=rule or "published", draw=draw)


captions = partial(read_table, delimiter=",")
negatives = partial(read_negatives, delimiter=",")


def list_in_cell(cell: str, *, column: str, where: str, kind: type[Item] = str) -> list[Item]:  # type: ignore[assignment]
    """Parse a list of texts, or of another type, in Python notation; nothing in the cell is executed.

    Raises:
        InputError: the cell is anything else.
    """
    texts = _parsed(cell, column=column, where=where)
    if not isinstance(texts, list) or not all(type(text) is kind for text in texts):
        what = "texts" if kind is str else "whole numbers"
        raise InputError(f"{where}: column {column!r} must be a Python list of {what}, found {cell[:60]!r}.")
    return texts


def _parsed(cell: str, *, column: str, where: str) -> Any:
    """Return the value that a cell holds in JSON or Python notation, or the cell itself.

    Raises:
        InputError: texts are not separated by commas, as NumPy prints them; Python would join them.
    """
    with suppress(ValueError, RecursionError):
        return json.loads(cell)
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell
    if _APART.search(cell):
        read = tokenize.generate_tokens(io.StringIO(cell).readline)
        kinds = [token.type for token in read if token.type != tokenize.NL]
        if (tokenize.STRING, tokenize.STRING) in pairwise(kinds):
            raise InputError(
                f"{where}: column {column!r} holds texts without commas between them, as NumPy prints an array: "
                f"{cell[:60]!r}. Write a list: in pandas, column.map(list) before to_csv."
            )
    return value


def _one_cell(path: Path, header: str) -> InputError:
    return InputError(
        f"{path} line 1: the header has only one cell, {header!r}. Cells are separated by commas in .csv and by tabs "
        "in .tsv. Save the table as one of these."
    )


def _kind(delimiter: str) -> str:
    return "comma" if delimiter == "," else "tab"


def read_rows(path: Path, *, delimiter: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place and the fields, by the header's names, of every non-blank row: ("captions.csv line 3", {...}).

    Raises:
        InputError: names the file and the line.
    """
    kind = _kind(delimiter)
    # A cell may hold a caption's whole list of negatives.
    csv.field_size_limit(max(csv.field_size_limit(), 1 << 24))
    try:
        # Spreadsheets put a byte order mark before the first column's name; utf-8-sig removes it.
        with io.TextIOWrapper(open_file(path), encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            header = next(reader, None)
            if header is None:
                return
            if not header:
                raise InputError(f"{path} line 1: is blank, but must be the header. Remove the line.")
            twice = next((name for name in header if header.count(name) > 1), None)
            if twice is not None:
                raise InputError(f"{path} line 1: two columns are named {twice!r}. Give each its own name.")
            for cells in reader:
                if not cells:
                    continue
                where = f"{path} line {reader.line_num}"
                if len(cells) != len(header) == 1:
                    raise _one_cell(path, *header)
                if len(cells) != len(header):
                    raise InputError(
                        f"{where}: has {counted(len(cells), 'cell')}, but the header has {len(header)}. Put text that "
                        f"contains a {kind} in double quotes."
                    )
                yield where, dict(zip(header, cells, strict=True))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except csv.Error as error:
        raise InputError(
            f"{path} line {reader.line_num}: not {kind}-separated values: {error}. "
            "Put text that contains double quotes in double quotes, and double the quotes inside it."
        ) from None
