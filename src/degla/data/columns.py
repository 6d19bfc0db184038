"""How a record of a user's file becomes captions: names of its columns, and the conversion of its values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from degla.errors import InputError
from degla.parse import describe_json, in_one_line
from degla.records import LISTS, CaptionRecord, NegativeRecord, validate, wider_captions
from degla.shelf import did_you_mean

Placed = tuple[str, CaptionRecord]
"""Where a record was read, for messages, and the record: ("captions.jsonl line 3", record)."""


@dataclass(frozen=True)
class Columns:
    """Names of the fields (columns) of the user's file. Other fields are ignored.

    Attributes:
        id: field of the caption's unique id; None numbers the records of the file from 0.
        image: field of the image's path, relative to the image folder or absolute.
        text: field of the caption, or of a list of captions of the image (their ids get "-0", "-1", ... appended).
        image_id: field of the image's id; None uses the image's path.
            If a file lacks the default "id" or "image_id", None is used; any other name must exist.
        image_pattern: template of the image's path from its number, for the published DeGLA file, which has no paths.
        split: splits to read, for Karpathy's file, which has several; other formats have none.
        optional: the optional fields of `CaptionRecord` to read as well; records may lack them.
        own: those optional fields that only a user's own losses read, and whether each is a number.
        absent: fields that the first record lacks, so no other record may have them (see `settle`).
    """

    id: str | None = "id"
    image: str = "image"
    text: str = "text"
    image_id: str | None = "image_id"
    image_pattern: str = "COCO_train2014_{image_id:012d}.jpg"
    split: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    own: tuple[tuple[str, bool], ...] = ()
    absent: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Any, **further: Any) -> Columns:
        """Return the columns of a run's section `data`, of its record, or of a command's arguments.

        Args:
            settings: has `id_column` and so on, `split`, and may have `image_pattern`.
            further: `optional` and `own`.
        """
        names = {role: getattr(settings, f"{role}_column") for role in _ROLES}
        pattern = getattr(settings, "image_pattern", cls.image_pattern)
        return cls(**names, image_pattern=pattern, split=tuple(settings.split), **further)

    def read_from(self, names: Sequence[str]) -> list[str]:
        """Return the fields to read from a file with these names: those that it must have, then the optional ones."""
        wanted = (self.id, self.image, self.text, self.image_id, *(name for name in names if name in self.optional))
        return list(dict.fromkeys(name for name in wanted if name is not None))

    def settle(self, names: list[str], *, where: str) -> Columns:
        """Adapt the columns to one file, by its header or first row: default ids that it lacks become None.

        If it lacks the default text field, "caption" is used instead.

        Raises:
            InputError: a field is missing (see `require`).
        """
        lacking: dict[str, str | None] = {
            role: None
            for role in ("id", "image_id")
            if getattr(self, role) == getattr(Columns, role) and role not in names
        }
        if self.text == Columns.text not in names and "caption" in names:
            lacking["text"] = "caption"
        absent = tuple(getattr(Columns, role) for role in lacking)
        self._refuse_split(where)
        settled = dataclasses.replace(self, **lacking, absent=absent)  # type: ignore[arg-type]
        settled.require(names, where=where)
        return settled

    def require(self, names: list[str], *, where: str) -> None:
        """Refuse a file or row that lacks a named field, or has one that would be ignored.

        Raises:
            InputError: names the place, the role and name of the missing field, the fields found and the remedy.
        """
        if odd := next((name for name in self.absent if name in names), None):
            raise InputError(f"{where}: has a field {odd!r}, but the first record has none. Add it to all or none.")
        for role in _ROLES:
            name = getattr(self, role)
            if name is not None and name not in names:
                flag = _flag(role)
                # White space around a name would not be seen.
                there = in_one_line(", ".join(name if name == name.strip() else repr(name) for name in names)) or "none"
                texts = f" For texts without images: degla negatives --image-column {self.text}."
                raise InputError(
                    f"{where}: has no field {name!r} for the {role}.{did_you_mean(name, names)} Found: {there}. "
                    f"Set the field with --{flag} (training: --data.{flag}), or add it to every record."
                    f"{texts if role == 'image' and self.text in names else ''}"
                )

    def refuse_names(self, path: Path, *, splits: bool = False) -> None:
        """Raise InputError if fields are named for a file whose format has fixed fields, or splits where it has none.

        Args:
            path: the file.
            splits: whether its format has splits.
        """
        if not splits:
            self._refuse_split(str(path))
        if named := next((role for role in _ROLES if getattr(self, role) != getattr(Columns, role)), None):
            raise InputError(
                f"{path}: its format has fixed fields, so {getattr(self, named)!r} cannot be the {named}. Omit "
                f"--{_flag(named)} (training: --data.{_flag(named)})."
            )

    def _refuse_split(self, where: str) -> None:
        if self.split:
            raise InputError(
                f"{where}: --split (training: --data.split) applies only to Karpathy's json, whose images have a field "
                "'split'. Omit it."
            )


_ROLES = ("id", "image", "text", "image_id")


def _flag(role: str) -> str:
    return f"{role.replace('_', '-')}-column"


DEFAULT_COLUMNS = Columns()


def captions_of_row(row: Mapping[str, object], *, columns: Columns, where: str, number: int) -> Iterator[Placed]:
    """Convert one row of the user's file to caption records (several if the text is a list).

    Args:
        row: field name to value.
        columns: which field holds what.
        where: the file and record, for messages.
        number: the record's number in the file from 0; its id if `columns.id` is None.

    Raises:
        InputError: a field is missing, has the wrong type or is empty; names the place and the field.
    """
    columns.require(list(row), where=where)
    image = row[columns.image]
    if isinstance(image, list | tuple):
        raise InputError(
            f"{where}: field {columns.image!r} is a list, but a record has one image. Write one record per image, "
            "each with its own id."
        )
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
            yield where, caption(fields, where=where, text_field=f"{columns.text}.{position}", own=columns.own)
    else:
        fields = {"id": name, "image": image, "text": texts, "image_id": image_id, **optional}
        yield where, caption(fields, where=where, text_field=columns.text, own=columns.own)


def captions_of_rows(rows: Iterable[tuple[str, object]], columns: Columns) -> Iterator[Placed]:
    """Yield the captions of (place, row) pairs; the first row settles the columns.

    Raises:
        InputError: a row is not an object; or see `captions_of_row`.
    """
    for number, (where, row) in enumerate(rows):
        if not isinstance(row, dict):
            whole = ". If the file is one list of records, name it .json" if isinstance(row, list) else ""
            raise InputError(
                f"{where}: expected an object, found {describe_json(row)}. Write each record as "
                f'{{"image": "1.jpg", "text": "A dog on a sofa."}}{whole}.'
            )
        if number == 0:
            columns = columns.settle(list(row), where=where)
        yield from captions_of_row(row, columns=columns, where=where, number=number)


def _option(value: object, *, option: str) -> object:
    """Convert an optional field for its record: a missing list becomes empty, a class number becomes text."""
    if option in LISTS:
        return () if value in (None, "") else value  # "": an empty cell of a table
    if value == "":
        return None
    return str(value) if option == "label" and isinstance(value, int) and not isinstance(value, bool) else value


def as_name(value: object, *, field: str, where: str) -> object:
    """Convert whole-number ids, which files often have, to text: 7 becomes "7". Other values are returned unchanged.

    Raises:
        InputError: the value is missing (None).
    """
    if value is None:
        raise InputError(f"{where}: field {field!r} is empty, but an id is needed.")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def caption(
    fields: Mapping[str, object], *, where: str, text_field: str, own: tuple[tuple[str, bool], ...] = ()
) -> CaptionRecord:
    """Validate one caption and strip white space around its text.

    Raises:
        InputError: a field has the wrong type, or the text is empty; names the place and the field.
    """
    text = fields["text"]
    if isinstance(text, str):
        text = text.strip()
        if not text:
            raise InputError(
                f"{where}: field {text_field!r} (caption id {fields['id']!r}) has no text. "
                "Remove the record or write its caption."
            )
    return validate(wider_captions(own), {**fields, "text": text}, where=where)


def published_negative(text: str, *, caption_id: str, draw: int, rule: str = "published") -> NegativeRecord:
    """Return a text of a published negatives file as an accepted negative; a blank one is rejected as "empty"."""
    stripped = text.strip()
    return NegativeRecord(
        caption_id=caption_id, rule=rule, kind="unknown", text=stripped or None, source="published",
        accepted=bool(stripped), reason="" if stripped else "empty", draw=draw,
    )  # fmt: skip
