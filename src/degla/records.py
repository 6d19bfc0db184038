"""Rows that cross files: captions, negatives, benchmark items, results. Validated on the way in, JSONL in and out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from degla.errors import InputError


class Record(BaseModel):
    """A validated, immutable row; unknown fields are an error, so that a typo never passes in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")


RecordType = TypeVar("RecordType", bound=BaseModel)


class CaptionRecord(Record):
    """One caption of one image.

    Attributes:
        id: the caption's name, unique in its file; negatives are joined by it.
        image: path of the image, relative to the image folder (or absolute).
        text: the caption as written.
        image_id: the image's name; captions that share it are about the same picture.
    """

    id: str = Field(min_length=1)
    image: str = Field(min_length=1)
    text: str = Field(min_length=1)
    image_id: str = Field(min_length=1)


class NegativeRecord(Record):
    """One proposed negative of one caption, with the verdict of the checks.

    Attributes:
        caption_id: the `CaptionRecord.id` that it was made from.
        rule: the rule that made it, a member of the shelf `negatives/rules`.
        kind: what it breaks: "order", "object", "attribute", "relation", ...
        text: the negative; None where the rule found nothing to propose.
        source: what made it: "rules" or the name of a language model.
        accepted: True where every check passed.
        reason: name of the check that refused it, or of the cause that there is none; "" where accepted.
        draw: number of the attempt, 0 for the first.
    """

    caption_id: str = Field(min_length=1)
    rule: str = Field(min_length=1)
    kind: str
    text: str | None
    source: str
    accepted: bool
    reason: str = ""
    draw: int = Field(default=0, ge=0)


class ItemImage(Record):
    """An image of a benchmark item.

    Attributes:
        path: relative to the benchmark's root folder.
        crop: optional (x, y, width, height) in pixels, cut out before the model's own transform.
    """

    path: str = Field(min_length=1)
    crop: tuple[int, int, int, int] | None = None


class PairItem(Record):
    """One question of a compositional benchmark: K images, L texts, and which text is true of which image.

    Attributes:
        id: unique, "benchmark/part/key".
        gold: K rows of L entries, 1 where the text is true of the image.
        group: names to average over, for example the relation.
        keep: False where the protocol's filter leaves the item out; `reason` says which filter.
        meta: everything else of the source record, unchanged.
    """

    id: str = Field(min_length=1)
    benchmark: str
    part: str
    images: tuple[ItemImage, ...] = Field(min_length=1)
    texts: tuple[str, ...] = Field(min_length=1)
    gold: tuple[tuple[Literal[0, 1], ...], ...]
    group: dict[str, str] = Field(default_factory=dict)
    keep: bool = True
    reason: str = ""
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _gold_fits(self) -> PairItem:
        if len(self.gold) != len(self.images) or any(len(row) != len(self.texts) for row in self.gold):
            raise ValueError(f"gold must be {len(self.images)} rows of {len(self.texts)} entries")
        for name, lines in (("row", self.gold), ("column", tuple(zip(*self.gold, strict=True)))):
            if any(0 in line and 1 not in line for line in lines) and (name == "row" or len(self.images) > 1):
                raise ValueError(f"every {name} of gold that has a negative needs a positive")
        return self


def validate(model: type[RecordType], row: object, *, where: str) -> RecordType:
    """Check one outside row against its model.

    Args:
        model: the pydantic model of the row.
        row: the parsed row, usually a dict.
        where: names the file and the record in the message, for example ``captions.jsonl line 3``.

    Raises:
        InputError: names the place, the first wrong field and what is wrong with it.
    """
    try:
        return model.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the record"
        raise InputError(f"{where}: field '{field}': {first['msg']} (got {_short(first['input'])})") from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def read_jsonl(model: type[RecordType], path: Path) -> Iterator[RecordType]:
    """Read one validated record a line; blank lines are passed over.

    Raises:
        InputError: the file is missing, a line is not JSON, or a record has a wrong field (file and line named).
    """
    try:
        stream = path.open(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    with stream:
        try:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                where = f"{path} line {number}"
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise InputError(f"{where}: not JSON: {error.msg} at column {error.colno}.") from None
                yield validate(model, row, where=where)
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from None


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write records one a line, complete or not at all; returns how many were written."""
    temporary = path.with_name(path.name + ".partial")
    count = 0
    with temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(record.model_dump_json() + "\n")
            count += 1
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    return count
