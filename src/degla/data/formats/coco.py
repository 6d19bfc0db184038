"""COCO captions as published at cocodataset.org: a JSON object with the lists "images" and "annotations"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from degla.data.columns import Columns, Placed, caption
from degla.data.formats import karpathy
from degla.data.formats.json import beginning, read_document
from degla.errors import InputError
from degla.parse import describe_json

ENDINGS = (".json",)
_EXAMPLE = (
    'Needed: {"images": [{"id": 9, "file_name": "000000000009.jpg"}], '
    '"annotations": [{"id": 1, "image_id": 9, "caption": "A dog on a sofa."}]}.'
)


def claims(path: Path) -> bool:
    """Claim a file that starts with an object and is not Karpathy's."""
    return beginning(path).startswith(b"{") and not karpathy.claims(path)


def captions(path: Path, columns: Columns) -> Iterator[Placed]:
    """Yield one caption per annotation, in the file's order, with the annotation's id.

    Raises:
        InputError: the file has another structure, a record lacks a field or refers to an unknown image, or a column
            is named.
    """
    columns.refuse_names(path)
    document = read_document(path, dict, needed=f"COCO captions are an object. {_EXAMPLE}")
    for key in ("images", "annotations"):
        if not isinstance(document.get(key), list):
            description = describe_json(document[key]) if key in document else describe_json(document)
            raise InputError(f"{path}: the list {key!r} is missing: found {description}. {_EXAMPLE}")

    files: dict[int, str] = {}
    for number, image in enumerate(document["images"]):
        where = f"{path} images[{number}]"
        name = _whole(image, "id", where=where)
        file = image.get("file_name")
        if not isinstance(file, str) or not file:
            raise InputError(f"{where}: field 'file_name' must be a text, found {describe_json(file)}. {_EXAMPLE}")
        if files.setdefault(name, file) != file:
            raise InputError(f"{where}: image id {name} has two files, {files[name]!r} and {file!r}.")

    for number, annotation in enumerate(document["annotations"]):
        where = f"{path} annotations[{number}]"
        image_id = _whole(annotation, "image_id", where=where)
        if image_id not in files:
            raise InputError(f"{where}: field 'image_id': no entry of 'images' has the id {image_id}.")
        if "caption" not in annotation:
            raise InputError(f"{where}: no field 'caption': found {describe_json(annotation)}. {_EXAMPLE}")
        fields = {
            "id": str(_whole(annotation, "id", where=where)),
            "image": files[image_id],
            "text": annotation["caption"],
            "image_id": str(image_id),
        }
        yield where, caption(fields, where=where, text_field="caption")


def _whole(record: object, field: str, *, where: str) -> int:
    if not isinstance(record, dict) or field not in record:
        raise InputError(f"{where}: no field {field!r}: found {describe_json(record)}. {_EXAMPLE}")
    value = record[field]
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{where}: field {field!r} must be a whole number, found {describe_json(value)}. {_EXAMPLE}")
    return value
