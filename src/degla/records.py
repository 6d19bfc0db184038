"""Records of captions, negatives and benchmark items, validated when read; reading and writing of JSONL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from degla.errors import InputError
from degla.files import whole_file
from degla.pages.words import counted
from degla.parse import CORRECT_LINE, cut_short, describe_json, parse_json, read_lines
from degla.shelf import did_you_mean


class Record(BaseModel):
    """A validated, immutable row; unknown fields, such as typos, and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


RecordType = TypeVar("RecordType", bound=BaseModel)

ImageReading = Literal["upright", "official"]
"""How image files are decoded, see `degla.data.decoding.decode`."""


POSITIVE: Final = "positive"
"""`NegativeRecord.kind` of true texts, made by rules for positives."""

LONGEST_TEXT: Final = 100_000
"""Largest length of a caption or negative in characters; anything longer is not a caption."""


class CaptionUnit(Record):
    """An object or relation that a caption names, as a text.

    Attributes:
        text: true for the image, for example "a brown dog" or "a dog on a sofa".
        foils: the text with one detail made false.
        kind: "thing" or "relation".
    """

    text: str = Field(min_length=1, max_length=LONGEST_TEXT)
    foils: tuple[str, ...] = ()
    kind: Literal["thing", "relation"] = "thing"

    @model_validator(mode="before")
    @classmethod
    def _without_empty_options(cls, fields: Any) -> Any:
        # All units of a Parquet file or `datasets` folder have the same fields; where one has no value, it is null.
        return {name: each for name, each in fields.items() if each is not None} if isinstance(fields, dict) else fields

    @model_validator(mode="after")
    def _foils_differ(self) -> CaptionUnit:
        if any(not foil.strip() or foil.casefold() == self.text.casefold() for foil in self.foils):
            raise ValueError("a foil is empty or equals the text; remove it")
        return self


class CaptionRecord(Record):
    """One caption of one image.

    Attributes:
        id: id of the caption, unique in its file; negatives are joined by it.
        image: path of the image, relative to the image folder (or absolute).
        text: the caption as written.
        image_id: id of the image; captions that share it describe the same image.
        positives: additional texts that are true for the image, such as paraphrases.
        distractor_image: path of a second image, for which the caption is false.
        distractor_text: text that is true for the second image and false for the first.
        label: name or number of the image's class.
        units: objects and relations that the caption names, with foils.
        concepts: noun phrases of the caption.
        masked_words: attribute and relation words of the caption.
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
            raise ValueError("distractor_image and distractor_text require each other; give both or neither")
        return self

    @model_serializer(mode="wrap")
    def _without_empty_options(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = write(self)
        return {name: value for name, value in fields.items() if value or name not in OPTIONAL_FIELDS}


OPTIONAL_FIELDS = tuple(name for name, field in CaptionRecord.model_fields.items() if not field.is_required())
"""Fields of `CaptionRecord` that only some recipes read."""

LISTS = tuple(name for name in OPTIONAL_FIELDS if CaptionRecord.model_fields[name].default == ())
"""Those of them that hold several values."""

ROW_COLUMNS = ("negatives", "rules", "scores", "groups")
"""Columns of the table of training rows besides those of the captions; see `data.table.NEGATIVES`."""


@cache
def wider_captions(own: tuple[tuple[str, bool], ...]) -> type[CaptionRecord]:
    """Return `CaptionRecord` with fields that own losses read: the name of each, and whether it is a number."""
    if not own:
        return CaptionRecord
    text, number = Annotated[str | None, Field(min_length=1, max_length=LONGEST_TEXT)], float | None
    fields: dict[str, Any] = {name: (number if numeric else text, None) for name, numeric in own}
    return create_model("CaptionRecord", __base__=CaptionRecord, **fields)


class Original(Record):
    """The original file of a packed image, by which benchmarks detect images that a model was trained on.

    Attributes:
        name: path as in the captions.
        bytes: size of the file.
        sha256: hexadecimal sha256 of the file.
    """

    name: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class NegativeRecord(Record):
    """One proposed negative of one caption, with the verdict of the checks.

    Attributes:
        caption_id: the `CaptionRecord.id` of its caption.
        rule: name of the rule that made it, from `negatives/rules` or `negatives/positives`.
        kind: what is changed: "order", "object", "attribute", "relation", ...; "positive" if the text is true.
        text: the negative; None if the rule found nothing to propose.
        source: "rules" or the name of the language model that made it.
        accepted: whether every check passed.
        reason: name of the check that rejected it, or why there is no text; "" if accepted.
        draw: number of the attempt, 0 for the first.
        form: how it was made: "grammar", or the form of a language model's answer ("write", "choose", "fill").
        score: mean log-likelihood per token (nats) by the language model that made it, if available.
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


if TYPE_CHECKING:

    class AcceptedNegative(NegativeRecord):
        """A negative that every check passed, and which therefore has a text: the same record for a type checker."""

        text: str

else:
    AcceptedNegative = NegativeRecord


class ItemImage(Record):
    """An image of a benchmark item.

    Attributes:
        path: relative to the benchmark's root folder.
        crop: optional (x, y, width, height) in pixels, cut out before the model's own transform.
    """

    path: str = Field(min_length=1)
    crop: tuple[int, int, int, int] | None = None


class PairItem(Record):
    """One question of a compositional benchmark: K images, L texts, and which text is true for which image.

    A question without images only tests the text encoder: which of the texts have the same meaning.

    Attributes:
        id: unique, "benchmark/part/key".
        images: K images; none if only texts are compared.
        texts: L texts; one if the question is which of several images matches.
        gold: K rows of L entries, 1 if the text is true for the image; without images one row, 1 for the texts with the
            same meaning.
        group: names to average over, for example the relation. "image" names the image that the question is drawn with,
            because questions about one image are not independent; default: its first, and itself without images.
        keep: False if the protocol's filter excludes the item; `reason` names the filter.
        meta: all other fields of the source record, unchanged.
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
            raise ValueError("without images, gold needs at least two texts with the same meaning")
        # With one text a row is a single entry, with one image a column is: each may be false by itself.
        several = len(self.images) > 1
        gold_rows = () if several and len(self.texts) == 1 else self.gold
        gold_columns = zip(*self.gold, strict=True) if several else ()
        for name, lines in (("row", gold_rows), ("column", gold_columns)):
            if any(0 in line and 1 not in line for line in lines):
                raise ValueError(f"every {name} of gold that has a negative needs a positive")
        return self


def validate(model: type[RecordType], row: object, *, where: str, remedy: str = "") -> RecordType:
    """Validate one external row.

    Args:
        model: the pydantic model of the row.
        row: the parsed row, usually a dict.
        where: name of the file and the record, for messages, for example ``captions.jsonl line 3``.
        remedy: end of the message.

    Raises:
        InputError: the row is invalid; names the place, the first wrong field and what is wrong with it.
    """
    try:
        return model.model_validate(row)
    except ValidationError as error:
        if model is NegativeRecord and isinstance(row, dict) and "image" in row and "caption_id" not in row:
            message = f"{where}: a caption, not a negative; this seems to be a captions file"
            raise InputError(f"{message}. Give the file that degla negatives made from it.") from None
        # A misspelt name is both an unknown field and a missing one; report the unknown one.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        if first["type"] == "model_type" and not first["loc"]:
            raise InputError(f"{where}: must be one JSON object, got {describe_json(row)}. {remedy}".rstrip()) from None
        field = ".".join(str(part) for part in first["loc"])
        # Class names, and that a check raised ValueError, do not help the user.
        wrong = re.sub(r" or instance of \w+", "", first["msg"]).removeprefix("Value error, ")
        # Files have lists, not tuples.
        wrong = wrong.replace("valid tuple", "valid list").replace("Tuple should", "List should")
        if first["type"] in ("extra_forbidden", "missing"):
            *outer, name = first["loc"]
            fields = _fields_at(model, outer)
            hint = did_you_mean(str(name), fields) if first["type"] == "extra_forbidden" else ""
            wrong += f".{hint}" if hint else ""
            remedy = remedy or ("" if hint or not fields else _listed(fields))
        place = f"{where}: field '{field}'" if field else where  # a check of several fields names them itself
        message = f"{place}: {wrong} (got {cut_short(repr(first['input']), 80)})"
        raise InputError(f"{message}. {remedy}" if remedy else message) from None


def _listed(fields: Mapping[str, FieldInfo]) -> str:
    needed = [name for name, field in fields.items() if field.is_required()]
    rest = [name for name in fields if name not in needed]
    optional = f"optional: {', '.join(rest)}" if rest else ""
    return f"Fields: {'; '.join(filter(None, (', '.join(needed), optional)))}."


def _fields_at(model: type[BaseModel], outer: Iterable[int | str]) -> Mapping[str, FieldInfo]:
    """Return the fields of the nested record at a location; none if there is no record."""
    for part in outer:
        if isinstance(part, str):
            field = model.model_fields.get(part)
            inner = None if field is None else _record_of(field.annotation)
            if inner is None:
                return {}
            model = inner
    return model.model_fields


def _record_of(hint: Any) -> type[BaseModel] | None:
    """Return the first record class in a type, such as that of a list's items."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next(filter(None, map(_record_of, get_args(hint))), None)


def read_jsonl(model: type[RecordType], path: Path) -> Iterator[RecordType]:
    """Read one validated record per line; blank lines are skipped.

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
    """Parse and validate a line of plain fields, and objects of plain values, in one step.

    pydantic accepts duplicate keys; as every key and string has two quotes, such a line has too many. Validation is
    strict because a number converted to a string has no quotes.

    Returns:
        None if `parse_json` has to handle the line.
    """
    if b"\\" in line or b"[" in line:
        return None
    try:
        record = model.model_validate_json(line, strict=True)
    except ValidationError:
        return None
    fields = record.model_fields_set
    values = [value for name, value in record.__dict__.items() if name in fields]
    objects = [value for value in values if type(value) is dict]
    names = len(fields) + sum(map(len, objects))
    texts = sum(type(value) is str for value in chain(values, *(inner.values() for inner in objects)))
    whole = line.count(b'"') == 2 * (names + texts) and line.count(b"{") == 1 + len(objects)
    return record if whole else None


def only_negatives(records: Iterable[NegativeRecord], *, remedy: str) -> Iterator[NegativeRecord]:
    """Yield the records, all of texts that are meant to be false.

    Args:
        records: rows of a file of negatives.
        remedy: last sentence of the message.

    Raises:
        InputError: a record is a positive.
    """
    for record in records:
        if record.kind == POSITIVE:
            raise InputError(
                f"negative of caption {record.caption_id!r}, rule {record.rule}: is of kind 'positive', a true text. "
                f"{remedy}"
            )
        yield record


def write_jsonl(path: Path, records: Iterable[BaseModel], *, exclude_none: bool = False) -> int:
    """Write records atomically, one per line; return how many were written.

    Args:
        path: file to write.
        records: records in order.
        exclude_none: omit fields that are None.

    Raises:
        DeglaError: see `whole_file`.
    """
    count = 0
    with whole_file(path) as stream:
        for record in records:
            stream.write(record.model_dump_json(exclude_none=exclude_none) + "\n")
            count += 1
    return count
