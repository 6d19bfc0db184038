"""Karpathy's splits of COCO, Flickr30k and Flickr8k: a JSON object with the list "images", each with its sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from degla.data.columns import Columns, Placed, caption
from degla.data.formats.json import beginning, read_document
from degla.errors import InputError
from degla.parse import describe_json, in_one_line
from degla.records import validate

ENDINGS = (".json",)
_ALL = "all"
_EXAMPLE = (
    'Needed: {"images": [{"filepath": "val2014", "filename": "COCO_val2014_000000000042.jpg", "cocoid": 42, '
    '"split": "test", "sentences": [{"raw": "A dog on a sofa.", "sentid": 1}]}, ...]}.'
)
_Number = Annotated[int, Field(strict=True, ge=0)]


class _Sentence(BaseModel):
    raw: str
    sentid: _Number | None = None


class _Other(BaseModel):
    """An image of a split that is not read."""

    split: str
    cocoid: object = None


class _Image(_Other):
    filename: str
    sentences: list[_Sentence]
    filepath: str = ""
    cocoid: _Number | None = None
    imgid: _Number | None = None


def claims(path: Path) -> bool:
    """Claim a file that starts with an object whose first image has sentences and a file name, which may be behind
    more sentences than are read."""
    head = beginning(path)
    return head.startswith(b"{") and b'"sentences"' in head and (b'"filename"' in head or b'"raw"' in head)


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """Yield the sentences of the images of some splits, with their `sentid` (else "IMAGE-N", both from 0) as id.

    `image_id` is `cocoid`, in a file without any `imgid`; the path of an image that has none.

    Raises:
        InputError: the file has another structure, an image has an invalid field, no split or an absent one is named,
            or a column is.
    """
    columns.refuse_names(path, splits=True)
    images = _images(path, columns.split)
    _check(columns.split, Counter(image.split for image in images), path=path)
    # A file with both counts by each from 0: two images could have one id.
    numbered_by = "cocoid" if any(image.cocoid is not None for image in images) else "imgid"
    for number, image in enumerate(images):
        if not isinstance(image, _Image):
            continue
        where = _place(path, number)
        file = f"{image.filepath}/{image.filename}" if image.filepath else image.filename
        own_number = getattr(image, numbered_by)
        name = file if own_number is None else str(own_number)
        for position, sentence in enumerate(image.sentences):
            own = f"{number}-{position}" if sentence.sentid is None else str(sentence.sentid)
            fields = {"id": own, "image": file, "text": sentence.raw, "image_id": name}
            yield where, caption(fields, where=where, text_field="raw")


def _check(wanted: tuple[str, ...], sizes: Counter[str], *, path: Path) -> None:
    """Check that there are splits to read, and that the file has them."""
    listed = in_one_line(", ".join(f"{split} ({size:,})" for split, size in sizes.most_common())) or "none"
    remedy = (
        f"Its splits (images): {listed}. --split all alone (training: --data.split) reads all; where there is no such "
        "flag, write the captions with degla prepare split first."
    )
    if not wanted:
        # Test images must not get into training because nobody thought of them.
        raise InputError(f"{path}: name the splits to read, for example --split train restval. {remedy}")
    if wanted != (_ALL,) and (odd := next((split for split in wanted if split not in sizes), None)):
        raise InputError(f"{path}: has no split {odd!r}. {remedy}")


def _images(path: Path, wanted: tuple[str, ...]) -> list[_Other]:
    document = read_document(path, dict, needed=f"Karpathy's splits are an object. {_EXAMPLE}")
    rows = document.get("images")
    if not isinstance(rows, list):
        raise InputError(f"{path}: the list 'images' is missing: found {describe_json(document)}. {_EXAMPLE}")
    read = [wanted == (_ALL,) or (isinstance(row, dict) and row.get("split") in wanted) for row in rows]
    return [
        validate(_Image if each else _Other, row, where=_place(path, number), remedy=_EXAMPLE)
        for number, (row, each) in enumerate(zip(rows, read, strict=True))
    ]


def _place(path: Path, number: int) -> str:
    return f"{path} images[{number}]"
