"""Which field of a row holds what, and how one row becomes caption records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from degla.errors import InputError
from degla.parse import in_one_line
from degla.records import CaptionRecord, validate
from degla.shelf import did_you_mean

Placed = tuple[str, CaptionRecord]
"""A record and the place it was read from, for messages: ("captions.jsonl line 3", record)."""


@dataclass(frozen=True)
class Columns:
    """Names of the fields (columns) of the user's file. Fields that are not named here are passed over.

    Attributes:
        id: holds the caption's unique id; None numbers the records of the file from 0.
        image: holds the image's path, relative to the image folder or absolute.
        text: holds the caption, or a list of captions of the image (their ids get "-0", "-1", ... appended).
        image_id: holds the image's name; None takes the image's path for it.
            A file that lacks "id" or "image_id" is read as with None; another name must be there.
        image_pattern: the image's path made from its number, for the published DeGLA file, which names none.
        optional: those of `CaptionRecord`'s optional fields that are read, too; records may lack them.
    """

    id: str | None = "id"
    image: str = "image"
    text: str = "text"
    image_id: str | None = "image_id"
    image_pattern: str = "COCO_train2014_{image_id:012d}.jpg"
    optional: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """The fields that a file must have, each once."""
        wanted = (self.id, self.image, self.text, self.image_id)
        return list(dict.fromkeys(name for name in wanted if name is not None))

    def settle(self, found: list[str], *, where: str) -> Columns:
        """The columns of one file, from its header or first row: default ids that it lacks become None.

        Raises:
            InputError: a field is missing (see `require`).
        """
        lacking = {
            role: None
            for role in ("id", "image_id")
            if getattr(self, role) == getattr(Columns, role) and role not in found
        }
        settled = dataclasses.replace(self, **lacking)  # type: ignore[arg-type]
        settled.require(found, where=where)
        return settled

    def require(self, found: list[str], *, where: str) -> None:
        """Refuse a file or row that lacks a named field.

        Raises:
            InputError: names the place, the role and name of the missing field, what is there and the remedy.
        """
        for role in ("id", "image", "text", "image_id"):
            name = getattr(self, role)
            if name is not None and name not in found:
                flag = f"{role.replace('_', '-')}-column"
                there = in_one_line(", ".join(found)) or "none"
                raise InputError(
                    f"{where}: there is no field {name!r} for the {role}.{did_you_mean(name, found)} "
                    f"Found: {there}. Name the right field: --{flag} (training: --data.{flag})."
                )


DEFAULT_COLUMNS = Columns()


def captions_of_row(row: Mapping[str, object], *, columns: Columns, where: str, number: int) -> Iterator[Placed]:
    """Turn one outside row into its caption records (several where the text is a list).

    Args:
        row: field name to value.
        columns: which field holds what.
        where: the file and record, for messages.
        number: the record's number in the file from 0; the id where `columns.id` is None.

    Raises:
        InputError: a field is missing, has a wrong type or is empty; names the place and the field.
    """
    columns.require(list(row), where=where)
    image = row[columns.image]
    name = str(number) if columns.id is None else as_name(row[columns.id], field=columns.id, where=where)
    if columns.image_id is None:
        image_id: object = image
    else:
        image_id = as_name(row[columns.image_id], field=columns.image_id, where=where)
    optional = {option: _option(row.get(option), option=option) for option in columns.optional}
    texts = row[columns.text]
    if isinstance(texts, list | tuple):
        if not texts:
            raise InputError(f"{where}: field {columns.text!r} is an empty list. Remove the record.")
        for position, text in enumerate(texts):
            fields = {"id": f"{name}-{position}", "image": image, "text": text, "image_id": image_id, **optional}
            yield where, caption(fields, where=where, text_field=f"{columns.text}.{position}")
    else:
        fields = {"id": name, "image": image, "text": texts, "image_id": image_id, **optional}
        yield where, caption(fields, where=where, text_field=columns.text)


def _option(value: object, *, option: str) -> object:
    """An optional field as its record has it: nothing is an empty list, a number of a class is a text."""
    if option == "positives":
        return () if value is None else value
    if value == "":  # an empty cell of a table
        return None
    return str(value) if option == "label" and isinstance(value, int) and not isinstance(value, bool) else value


def as_name(value: object, *, field: str, where: str) -> object:
    """Ids are text, but files often hold whole numbers: 7 becomes "7"; everything else is left as it is.

    Raises:
        InputError: the value is missing (None).
    """
    if value is None:
        raise InputError(f"{where}: field {field!r} is empty; an id is needed.")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def caption(fields: Mapping[str, object], *, where: str, text_field: str) -> CaptionRecord:
    """Validate one caption; white space around its text is dropped.

    Raises:
        InputError: a field has a wrong type, or the text is empty; names the place and the field.
    """
    text = fields["text"]
    if isinstance(text, str):
        text = text.strip()
        if not text:
            raise InputError(
                f"{where}: field {text_field!r} (caption id {fields['id']!r}) holds no text. "
                "Remove the record or write its caption."
            )
    return validate(CaptionRecord, {**fields, "text": text}, where=where)
