"""The published DeGLA file: a JSON list of records with a COCO image's number, a caption and its rewritten captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from degla.data.columns import Columns, Placed, caption, published_negative
from degla.data.formats.json import beginning, read_document
from degla.errors import InputError
from degla.parse import describe_json
from degla.records import NegativeRecord, validate

ENDINGS = (".json",)
_EXAMPLE = (
    'Needed: [{"image_id": 9, "original": "A dog on a sofa.", "enhanced": ["A sofa on a dog.", ...]}, ...]. '
    "A list with other fields is read with format json."
)


class _Item(BaseModel):
    # Other keys are ignored: releases of the file have bookkeeping fields that are irrelevant here.
    image_id: Annotated[int, Field(strict=True, ge=0)]
    original: str
    enhanced: list[str]


def claims(path: Path) -> bool:
    """Claim a file that starts with a list of records with rewritten captions."""
    head = beginning(path)
    return head.startswith(b"[") and b'"original"' in head


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """Yield one caption per record; its id is "IMAGE-N": the image's number and the index of the caption.

    Raises:
        InputError: the file has another structure, a record has an invalid field, `image_pattern` is invalid, or a
            column is named.
    """
    columns.refuse_names(path)
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
    """Yield every rewritten caption as an accepted negative of unknown rule; blank ones are rejected as "empty".

    Raises:
        InputError: the file has another structure, or a record has an invalid field.
    """
    for _, name, item in _items(path):
        for position, text in enumerate(item.enhanced):
            yield published_negative(text, caption_id=name, draw=position)


def _items(path: Path) -> Iterator[tuple[str, str, _Item]]:
    document = read_document(path, list, needed=f"a list is needed. {_EXAMPLE}")
    counts: Counter[int] = Counter()
    for number, row in enumerate(document):
        where = f"{path} record {number}"
        if not isinstance(row, dict) or not _Item.model_fields.keys() <= row.keys():
            raise InputError(f"{where}: found {describe_json(row)}. {_EXAMPLE}")
        item = validate(_Item, row, where=where)
        yield where, f"{item.image_id}-{counts[item.image_id]}", item
        counts[item.image_id] += 1
