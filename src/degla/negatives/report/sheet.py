"""Sheets for people to read: drawn negatives, shuffled, without a word on what made them; the key is another file.

A sheet is a TSV file with the columns of `COLUMNS`. The reader writes y or n into "different" (is it grammatical and
really different from the caption?) and "plausible" (could there be such a picture?), and remarks into "note". Neither
the rule nor the file stands in it: both are in the key, which has one line for each file that a text came from. Several
readers get the same texts, each in an order of its own, so that their agreement can be measured.
"""

from __future__ import annotations

import csv
import hashlib
import re
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Final

from degla.errors import InputError
from degla.files import whole_file
from degla.negatives.files.caption_index import CaptionIndex
from degla.negatives.report.counts import Drawn
from degla.records import NegativeRecord

COLUMNS: Final = ("id", "caption", "negative", "different", "plausible", "note")
KEY_COLUMNS: Final = ("id", "file", "rule", "source", "form", "caption_id")

_READER: Final = re.compile(r"\.\d+$")


def key_path(sheet: Path) -> Path:
    """Where the key of a sheet lies: ``x.tsv``, ``x.1.tsv`` and ``x.2.tsv`` have ``x.key.tsv``."""
    return sheet.with_name(f"{_READER.sub('', sheet.stem)}.key{sheet.suffix}")


def reader_paths(sheet: Path, readers: int) -> list[Path]:
    """The sheet itself for one reader; ``sheet.1.tsv``, ``sheet.2.tsv``, ... for several."""
    if readers == 1:
        return [sheet]
    return [sheet.with_name(f"{sheet.stem}.{number}{sheet.suffix}") for number in range(1, readers + 1)]


def draw_sheet(
    records: Iterable[NegativeRecord], captions: CaptionIndex, *, per_rule: int, seed: int
) -> dict[str, list[Drawn]]:
    """Accepted negatives of each rule, drawn by the hash of their caption.

    Several files are so read on the same captions as far as they have negatives of them.

    Args:
        records: of one file.
        captions: what they were made from.
        per_rule: negatives a rule, at most.
        seed: of the draw.

    Raises:
        InputError: no accepted negative belongs to any caption.
    """
    kept: dict[str, list[tuple[bytes, Drawn]]] = {}
    for record in records:
        if not record.accepted or record.text is None or (caption := captions.find(record.caption_id)) is None:
            continue
        lot = hashlib.sha256(f"{seed}\n{record.rule}\n{record.caption_id}".encode()).digest()[:8]
        own = kept.setdefault(record.rule, [])
        insort(own, (lot, Drawn(record.caption_id, caption, record)), key=itemgetter(0))
        del own[per_rule:]
    if not kept:
        raise InputError("there is nothing to read: no accepted negative belongs to any caption of the captions file.")
    return {rule: [drawn for _, drawn in own] for rule, own in kept.items()}


def write_sheet(
    drawn: Mapping[str, Mapping[str, Sequence[Drawn]]], sheet: Path, *, seed: int, readers: int = 1
) -> list[Path]:
    """Write a sheet for each reader, and their key; a text that several files have is read once.

    Args:
        drawn: label of the file to rule to what was drawn from it.
        sheet: the TSV file; see `reader_paths`.
        seed: of the orders.
        readers: number of people who read the same texts.

    Returns:
        The paths of the sheets, and of the key as the last.

    Raises:
        InputError: a sheet or the key exists already, or cannot be written.
    """
    sheets, key = reader_paths(sheet, readers), key_path(sheet)
    for path in (*sheets, key):
        if path.exists():
            raise InputError(f"{path}: exists, perhaps with verdicts in it. Move it away or choose another --sheet.")
    origins: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for label, rules in drawn.items():
        for rule, rows in rules.items():
            for row in rows:
                text = (" ".join(row.caption.text.split()), " ".join(row.negative.split()))
                origin = (label, rule, row.record.source, row.record.form, row.caption_id)
                origins.setdefault(text, []).append(origin)
    texts = sorted(origins)
    Random(seed).shuffle(texts)
    width = len(str(len(texts)))
    named = [(f"{number:0{width}}", text) for number, text in enumerate(texts, start=1)]
    _write(key, KEY_COLUMNS, ((name, *origin) for name, text in named for origin in origins[text]))
    for number, path in enumerate(sheets):
        order = list(named)
        if number:
            Random(f"{seed} {number}").shuffle(order)
        _write(path, COLUMNS, ((name, *text, "", "", "") for name, text in order))
    return [*sheets, key]


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with whole_file(path, newline="", remedy="Choose another --sheet.") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_sheet(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a sheet or key with their lines; columns may stand in any order and there may be more.

    Raises:
        InputError: the file cannot be read, lacks a column, or a row has too few cells.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            # Editors and spreadsheets take empty cells off a line's end.
            reader = csv.DictReader(stream, delimiter="\t", strict=True, restval="")
            header = reader.fieldnames or ()
            if lacking := [name for name in columns if name not in header]:
                raise InputError(
                    f"{path} line 1: no column {lacking[0]!r}; a tab-separated table with the columns "
                    f"{', '.join(columns)} is needed."
                )
            for row in reader:
                more = row.pop(None, ())  # cells beyond the header's
                if not any(cell.strip() for cell in (*row.values(), *more)):
                    continue
                if more:
                    cells = len(header) + len(more)
                    raise InputError(f"{path} line {reader.line_num}: {cells} cells, the header has {len(header)}.")
                yield reader.line_num, row
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except csv.Error as error:
        raise InputError(
            f"{path} line {reader.reader.line_num}: not tab-separated values: {error}. A cell that begins with a "
            "quotation mark ends with one, and marks inside it are doubled: take them out of the note."
        ) from None
