"""A JSON list of records, `[{"image": "0001.jpg", "caption": "A dog on a sofa."}, ...]`, with the fields of JSONL.

Records with `false_caption`, a negative or a list of them, are those of Structure-CLIP's files, in which `image_path`
and `true_caption` are image and text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from degla.data.columns import Columns, Placed, as_name, captions_of_rows, published_negative
from degla.errors import InputError
from degla.parse import describe_json, open_file, read_json
from degla.records import NegativeRecord

ENDINGS = (".json",)
_FALSE = "false_caption"
_PUBLISHED = {"image": "image_path", "text": "true_caption"}


def claims(path: Path) -> bool:
    """Claim a file that starts with a list; the format of the published DeGLA file, which also does, is tried first."""
    return beginning(path).startswith(b"[")


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """Yield one caption (or list of captions) per record.

    Raises:
        InputError: the file has another structure, or a record has an invalid field.
    """
    rows = list(_rows(path))
    if rows and isinstance(first := rows[0][1], dict) and _FALSE in first:
        usual = {role: name for role, name in _PUBLISHED.items() if getattr(columns, role) == getattr(Columns, role)}
        columns = replace(columns, **{role: name for role, name in usual.items() if name in first})  # type: ignore[arg-type]
    return captions_of_rows(rows, columns)


def negatives(path: Path) -> Iterator[NegativeRecord]:
    """Yield the texts in `false_caption` as accepted negatives of unknown rule; blank ones are rejected as "empty".

    A record's caption id is its field "id" or, if there is none, its number from 0, as in `captions`.

    Raises:
        InputError: the file has another structure, or a record has an invalid field.
    """
    for number, (where, row) in enumerate(_rows(path)):
        texts = row.get(_FALSE) if isinstance(row, dict) else None
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InputError(
                f"{where}: a text or a list of texts {_FALSE!r} is needed, as in Structure-CLIP's files; found "
                f"{describe_json(row)}. Negatives of degla are JSON lines, in a file that ends in .jsonl."
            )
        name = as_name(row["id"], field="id", where=where) if "id" in row else str(number)
        if not isinstance(name, str):
            raise InputError(f"{where}: field 'id' must be a text or a whole number, found {describe_json(name)}.")
        for draw, text in enumerate(texts):
            yield published_negative(text, caption_id=name, draw=draw)


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    document = read_document(path, list, needed="a list of records is needed.")
    return ((f"{path} record {number}", row) for number, row in enumerate(document))


def beginning(path: Path) -> bytes:
    """Return the first 64 KiB of a file, which hold the keys of its first record, without a byte order mark and without
    white space before it; nothing if there is no file."""
    if not path.is_file():
        return b""
    with open_file(path) as stream:
        return stream.read(65_536).removeprefix(b"\xef\xbb\xbf").lstrip()


def read_document(path: Path, kind: type, *, needed: str) -> Any:
    """Read a JSON file whose value must be a list or an object; `needed` ends the message.

    Raises:
        InputError: see `read_json`; or the value is of another kind.
    """
    document = read_json(path, remedy="Files with one record per line must end in .jsonl.")
    if not isinstance(document, kind):
        raise InputError(f"{path}: found {describe_json(document)}, but {needed}")
    return document
