"""The published DeGLA file: a JSON list of a COCO image's number, one caption and its rewritten captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from degla.data.formats.json import first_character, read_document
from degla.data.sources import Columns, Placed, caption, published_negative
from degla.errors import InputError
from degla.parse import describe_json, open_file
from degla.records import NegativeRecord, validate

ENDINGS = (".json",)
_HEAD = 65_536  # Bytes that hold the keys of the first record.
_EXAMPLE = (
    'Needed: [{"image_id": 9, "original": "A dog on a sofa.", "enhanced": ["A sofa on a dog.", ...]}, ...]. '
    "A list with other fields is read with format json."
)


class _Item(BaseModel):
    # Other keys are passed over: releases of the file carry bookkeeping fields that mean nothing here.
    image_id: Annotated[int, Field(strict=True, ge=0)]
    original: str
    enhanced: list[str]


def claims(path: Path) -> bool:
    """A file that starts with a list of records with a rewritten caption."""
    if first_character(path) != "[":
        return False
    with open_file(path) as stream:
        return b'"original"' in stream.read(_HEAD)


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """One caption a record; its id is "IMAGE-N": the image's number, and which of its captions it is.

    Raises:
        InputError: the file has another shape, a record a wrong field, or `image_pattern` cannot be filled.
    """
    for where, name, item in _items(path):
        try:
            image = columns.image_pattern.format(image_id=item.image_id)
        except (LookupError, ValueError) as error:
            raise InputError(
                f"--data.image-pattern {columns.image_pattern!r} cannot be filled in: {error}. "
                "Write the image's number as {image_id} or {image_id:012d}."
            ) from None
        fields = {"id": name, "image": image, "text": item.original, "image_id": str(item.image_id)}
        yield where, caption(fields, where=where, text_field="original")


def negatives(path: Path) -> Iterator[NegativeRecord]:
    """Every rewritten caption as an accepted negative of unknown rule; blank ones are refused as "empty".

    Raises:
        InputError: the file has another shape, or a record a wrong field.
    """
    for _, name, item in _items(path):
        for position, text in enumerate(item.enhanced):
            yield published_negative(text, caption_id=name, draw=position)


def _items(path: Path) -> Iterator[tuple[str, str, _Item]]:
    document = read_document(path, list, needed=f"a list is needed. {_EXAMPLE}")
    seen: Counter[int] = Counter()
    for number, row in enumerate(document):
        where = f"{path} record {number}"
        if not isinstance(row, dict) or not _Item.model_fields.keys() <= row.keys():
            raise InputError(f"{where}: found {describe_json(row)}. {_EXAMPLE}")
        item = validate(_Item, row, where=where)
        yield where, f"{item.image_id}-{seen[item.image_id]}", item
        seen[item.image_id] += 1
