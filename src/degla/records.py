"""Rows that cross files: captions, negatives, benchmark items. Validated on the way in, JSONL in and out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from degla.errors import InputError
from degla.files import whole_file
from degla.pages.words import counted
from degla.parse import CORRECT_LINE, parse_json, read_lines
from degla.shelf import did_you_mean


class Record(BaseModel):
    """A validated, immutable row; unknown fields are an error, so that a typo never passes in silence; so is NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


RecordType = TypeVar("RecordType", bound=BaseModel)

ImageReading = Literal["upright", "official"]
"""How image files become pixels, see `degla.data.decoding.decode`."""


POSITIVE: Final = "positive"
"""`NegativeRecord.kind` of true texts, which rules for positives make."""

LONGEST_TEXT: Final = 100_000
"""Characters of a caption or negative; more is no caption, and would hold up whatever reads it."""


class CaptionUnit(Record):
    """A thing or a relation that a caption names, as a text of its own.

    Attributes:
        text: true of the image, for example "a brown dog" or "a dog on a sofa".
        foils: the same with one detail that is false.
        kind: what it is.
    """

    text: str = Field(min_length=1, max_length=LONGEST_TEXT)
    foils: tuple[str, ...] = ()
    kind: Literal["thing", "relation"] = "thing"

    @model_validator(mode="after")
    def _foils_differ(self) -> CaptionUnit:
        if any(not foil.strip() or foil.casefold() == self.text.casefold() for foil in self.foils):
            raise ValueError("a foil is empty or the text itself; leave it out")
        return self


class CaptionRecord(Record):
    """One caption of one image.

    Attributes:
        id: the caption's name, unique in its file; negatives are joined by it.
        image: path of the image, relative to the image folder (or absolute).
        text: the caption as written.
        image_id: the image's name; captions that share it are about the same picture.
        positives: further texts that are true of the image, paraphrases for example.
        distractor_image: path of a second image, of which the caption is not true.
        distractor_text: the text that is true of the second image, and not of the first.
        label: name or number of the image's class.
        units: things and relations that the caption names, with foils.
        concepts: noun phrases of the caption.
        masked_words: attributes and relations of the caption, word by word.
    """

    id: str = Field(min_length=1)
    image: str = Field(min_length=1)
    text: str = Field(min_length=1, max_length=LONGEST_TEXT)
    image_id: str = Field(min_length=1)
    positives: tuple[str, ...] = ()
    distractor_image: str | None = Field(default=None, min_length=1)
    distractor_text: str | None = Field(default=None, min_length=1)
    label: str | None = Field(default=None, min_length=1)
    units: tuple[CaptionUnit, ...] = ()
    concepts: tuple[str, ...] = ()
    masked_words: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _whole_distractor(self) -> CaptionRecord:
        if (self.distractor_image is None) != (self.distractor_text is None):
            raise ValueError("distractor_image and distractor_text go together; give both or neither")
        return self

    @model_serializer(mode="wrap")
    def _without_empty_options(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = write(self)
        return {name: value for name, value in fields.items() if value or name not in OPTIONAL_FIELDS}


OPTIONAL_FIELDS = tuple(name for name, field in CaptionRecord.model_fields.items() if not field.is_required())
"""Fields of `CaptionRecord` that only some recipes read."""


class Original(Record):
    """The file of a packed picture as it was, by which benchmarks find what a model was trained on.

    Attributes:
        name: path as the captions had it.
        bytes: size of the file.
        sha256: of the file, hexadecimal.
    """

    name: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class NegativeRecord(Record):
    """One proposed negative of one caption, with the verdict of the checks.

    Attributes:
        caption_id: the `CaptionRecord.id` that it was made from.
        rule: the rule that made it, a member of the shelf `negatives/rules` or `negatives/positives`.
        kind: what it breaks: "order", "object", "attribute", "relation", ...; "positive" where the text is true.
        text: the negative; None where the rule found nothing to propose.
        source: what made it: "rules" or the name of a language model.
        accepted: True where every check passed.
        reason: name of the check that refused it, or of the cause that there is none; "" where accepted.
        draw: number of the attempt, 0 for the first.
        form: how it was made: "grammar", or the form that a language model answered in ("write", "choose", "fill").
        score: mean log-likelihood a token (nats) by the language model that made it, where it tells.
    """

    caption_id: str = Field(min_length=1, coerce_numbers_to_str=True)  # as captions' own ids may be
    rule: str = Field(min_length=1)
    kind: str
    text: str | None = Field(max_length=LONGEST_TEXT)
    source: str
    accepted: bool
    reason: str = ""
    draw: int = Field(default=0, ge=0)
    form: Literal["", "grammar", "write", "choose", "fill"] = ""
    score: float | None = None


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

    A question without images asks the text encoder alone: which of the texts say the same.

    Attributes:
        id: unique, "benchmark/part/key".
        images: K images; none where only texts are compared.
        texts: L texts; one where the right one of several images is asked for.
        gold: K rows of L entries, 1 where the text is true of the image; without images one row, 1 for the texts that
            say the same.
        group: names to average over, for example the relation. "image" names the picture that a question without
            images is about, since questions about one picture are not independent.
        keep: False where the protocol's filter leaves the item out; `reason` says which filter.
        meta: everything else of the source record, unchanged.
    """

    id: str = Field(min_length=1)
    benchmark: str
    part: str
    images: tuple[ItemImage, ...]
    texts: tuple[str, ...] = Field(min_length=1)
    gold: tuple[tuple[Literal[0, 1], ...], ...]
    group: dict[str, str] = Field(default_factory=dict)
    keep: bool = True
    reason: str = ""
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _gold_fits(self) -> PairItem:
        rows = len(self.images) or 1
        if len(self.gold) != rows or any(len(row) != len(self.texts) for row in self.gold):
            raise ValueError(f"gold must be {counted(rows, 'row')} of {counted(len(self.texts), 'entry', 'entries')}")
        if not self.images and sum(self.gold[0]) < 2:
            raise ValueError("without images, gold needs at least two texts that say the same")
        # Of one text a row is one picture, of one picture a column is one text: each may be false by itself.
        several = len(self.images) > 1
        rows_asked = () if several and len(self.texts) == 1 else self.gold
        columns_asked = zip(*self.gold, strict=True) if several else ()
        for name, lines in (("row", rows_asked), ("column", columns_asked)):
            if any(0 in line and 1 not in line for line in lines):
                raise ValueError(f"every {name} of gold that has a negative needs a positive")
        return self


def validate(model: type[RecordType], row: object, *, where: str, remedy: str = "") -> RecordType:
    """Check one outside row against its model.

    Args:
        model: the pydantic model of the row.
        row: the parsed row, usually a dict.
        where: names the file and the record in the message, for example ``captions.jsonl line 3``.
        remedy: ends the message.

    Raises:
        InputError: names the place, the first wrong field and what is wrong with it.
    """
    try:
        return model.model_validate(row)
    except ValidationError as error:
        # A misspelt name is both an unknown field and a missing one; the unknown one is what to mend.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        field = ".".join(str(part) for part in first["loc"]) or "the record"
        # The name of a class, and that a check raised ValueError, tell a user nothing.
        wrong = re.sub(r" or instance of \w+", "", first["msg"]).removeprefix("Value error, ")
        # No file that is read here has tuples.
        wrong = wrong.replace("valid tuple", "valid list").replace("Tuple should", "List should")
        if first["type"] == "extra_forbidden":
            *outer, name = first["loc"]
            wrong += f".{hint}" if (hint := did_you_mean(str(name), _fields_at(model, outer))) else ""
        told = f"{where}: field '{field}': {wrong} (got {_short(first['input'])})"
        raise InputError(f"{told}. {remedy}" if remedy else told) from None


def _fields_at(model: type[BaseModel], outer: Iterable[int | str]) -> Iterable[str]:
    """Names of the fields of the record inside a record that a place leads to; none where it leads to another thing."""
    for part in outer:
        if isinstance(part, str):
            field = model.model_fields.get(part)
            inner = None if field is None else _record_of(field.annotation)
            if inner is None:
                return ()
            model = inner
    return model.model_fields


def _record_of(hint: Any) -> type[BaseModel] | None:
    """The first kind of record in a type, such as that of a list's members."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next(filter(None, map(_record_of, get_args(hint))), None)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def read_jsonl(model: type[RecordType], path: Path) -> Iterator[RecordType]:
    """Read one validated record a line; blank lines are passed over.

    Raises:
        InputError: see `parse.read_json_lines`; or a record has a wrong field.
    """
    for number, line in read_lines(path):
        record = _flat_record(model, line)
        if record is None:
            where = f"{path} line {number}"
            record = validate(model, parse_json(line, where=where, lines=False, remedy=CORRECT_LINE), where=where)
        yield record


def _flat_record(model: type[RecordType], line: bytes) -> RecordType | None:
    """The record of a line of plain fields, parsed and checked in one; None where `parse_json` has to look at it.

    What pydantic parses may have a key twice; every key and text has two quotes, so the line then has too many. Strict:
    a number that is taken for a text has none.
    """
    if b"\\" in line or b"[" in line or line.count(b"{") != 1:
        return None
    try:
        record = model.model_validate_json(line, strict=True)
    except ValidationError:
        return None
    given = record.model_fields_set
    texts = sum(type(value) is str for name, value in record.__dict__.items() if name in given)
    return record if line.count(b'"') == 2 * (len(given) + texts) else None


def write_jsonl(path: Path, records: Iterable[BaseModel], *, exclude_none: bool = False) -> int:
    """Write records one a line, complete or not at all; returns how many were written.

    Args:
        path: of the file.
        records: in order.
        exclude_none: leave fields out that are None.

    Raises:
        DeglaError: see `whole_file`.
    """
    count = 0
    with whole_file(path) as stream:
        for record in records:
            stream.write(record.model_dump_json(exclude_none=exclude_none) + "\n")
            count += 1
    return count
