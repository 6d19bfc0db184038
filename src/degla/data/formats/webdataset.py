"""Tar archives of WebDataset and img2dataset with images and captions, read in place.

A record is `KEY.jpg` (or another image) with its caption as `KEY.txt` or as a field of `KEY.json`. The image is named
by its byte range, "00000.tar@1536+20418", so training can read any image directly; nothing is unpacked. In archives of
TripletCLIP a record is `KEY.image`, `KEY.caption`, `KEY.neg_image` and `KEY.neg_caption`: a pair and its second pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from degla.data.columns import Columns, Placed, captions_of_row
from degla.data.containers import IMAGE, SECOND_IMAGE, TarMember, packed_place, records_of
from degla.data.places import base_of, files_of
from degla.errors import InputError
from degla.parse import decode, parse_json
from degla.remote import display_path

SUFFIX: Final = ".tar"
ENDINGS: Final = (SUFFIX,)
PATTERNS: Final = True
_SECOND_TEXT: Final = "distractor_text"
_KINDS: Final = {
    "txt": "text", "json": "fields",
    "image": IMAGE, "caption": "text", "neg_image": SECOND_IMAGE, "neg_caption": _SECOND_TEXT,
}  # fmt: skip


def claims(path: Path) -> bool:
    """Claim files and patterns with this suffix, and folders with such files."""
    return path.suffix.lower() == SUFFIX or bool(files_of(path, SUFFIX))


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """Yield one caption (or list of captions) per record, in the order of the archives' names and of their members.

    The id of a record without one is its archive and key, "00000/000000012".

    Raises:
        InputError: there is no archive, or one is damaged; a record lacks its image or caption, or has an invalid
            field.
    """
    base, number = base_of(path), 0
    for tar in files_of(path, SUFFIX):
        shown = display_path(tar)
        if tar.suffix.lower() != SUFFIX:
            raise InputError(f"{shown}: the name of an archive of images must end in {SUFFIX}. Rename it.")
        before = number
        for key, group in records_of(tar, _KINDS).items():
            where = f"{shown} record {key!r}"
            row = _row(group, columns=columns, where=where, tar=tar)
            name = f"{tar.relative_to(base).with_suffix('').as_posix()}/{key}"
            for field, kind in ((columns.image, IMAGE), (SECOND_IMAGE, SECOND_IMAGE)):
                if place := group.get(kind):
                    row[field] = packed_place(str(tar.relative_to(base)), start=place.start, size=place.size)
            row = {"id": name, "image_id": name} | row
            settled = columns.settle(list(row), where=where)
            yield from captions_of_row(row, columns=settled, where=where, number=number)
            number += 1
        if number == before:
            raise InputError(f"{shown}: has no image with a caption (KEY.jpg and KEY.txt or KEY.json).")


def _row(group: dict[str, TarMember], *, columns: Columns, where: str, tar: Path) -> dict[str, Any]:
    """The fields of a record, including its caption; a text column named by the user is one of the JSON member."""
    if IMAGE not in group:
        only = next(iter(group.values())).name
        raise InputError(f"{where}: has {only!r} but no image. Add the image to the archive, or remove the record.")
    fields, text = group.get("fields"), group.get("text")
    if fields is None and text is None:
        raise InputError(f"{where}: has an image but no caption. Add a .txt member, or .json with a field 'caption'.")
    row: dict[str, Any] = {}
    if fields is not None:
        member = f"{display_path(tar)}: member {fields.name!r}"
        row = parse_json(fields.content or b"", where=member)
        if not isinstance(row, dict):
            raise InputError(f"{member}: must be a JSON object with the record's fields.")
    if columns.text != Columns.text:
        text = None
    elif text is None and columns.text not in row and isinstance(row.get("captions"), list):
        raise InputError(
            f"{where}: written by degla pack, whose captions are in a file beside it. Give that: "
            f"{display_path(tar.with_name('captions.jsonl'))}."
        )
    for field, member_of in ((columns.text, text), (_SECOND_TEXT, group.get(_SECOND_TEXT))):
        if member_of is not None:
            row[field] = decode(
                member_of.content or b"", where=f"{display_path(tar)}: member {member_of.name!r}"
            ).strip()
    return row
