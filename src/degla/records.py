"""Rows that cross files: captions, negatives, benchmark items, results. Validated on the way in, JSONL in and
out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

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
from degla.parse import read_json_lines


class Record(BaseModel):
    """A validated, immutable row; unknown fields are an error, so that a typo never passes in silence; so is NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


RecordType = TypeVar("RecordType", bound=BaseModel)

ImageReading = Literal["upright", "official"]
"""How image files become pixels, see `degla.data.decoding.decode`."""


LONGEST_TEXT: Final = 100_000
"""Characters of a caption or negative; more is no caption, and would hold up whatever reads it."""


class CaptionRecord(Record):
    """One caption of one image.

    Attributes:
        id: the caption's name, unique in its file; negatives are joined by it.
        image: path of the image, relative to the image folder (or absolute).
        text: the caption as written.
        image_id: the image's name; captions that share it are about the same picture.
        positives: further texts that are true of the image, paraphrases for example.
        partner_image: path of a second image, of which the caption is not true.
        partner_text: the text that is true of the second image, and not of the first.
        label: name or number of the image's class.
    """

    id: str = Field(min_length=1)
    image: str = Field(min_length=1)
    text: str = Field(min_length=1, max_length=LONGEST_TEXT)
    image_id: str = Field(min_length=1)
    positives: tuple[str, ...] = ()
    partner_image: str | None = Field(default=None, min_length=1)
    partner_text: str | None = Field(default=None, min_length=1)
    label: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _whole_partner(self) -> CaptionRecord:
        if (self.partner_image is None) != (self.partner_text is None):
            raise ValueError("partner_image and partner_text go together; give both or neither")
        return self

    @model_serializer(mode="wrap")
    def _without_empty_options(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = write(self)
        return {name: value for name, value in fields.items() if value or name not in OPTIONAL_FIELDS}


OPTIONAL_FIELDS = ("positives", "partner_image", "partner_text", "label")
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
        rule: the rule that made it, a member of the shelf `negatives/rules`.
        kind: what it breaks: "order", "object", "attribute", "relation", ...
        text: the negative; None where the rule found nothing to propose.
        source: what made it: "rules" or the name of a language model.
        accepted: True where every check passed.
        reason: name of the check that refused it, or of the cause that there is none; "" where accepted.
        draw: number of the attempt, 0 for the first.
        form: how it was made: "grammar", or the form that a language model answered in ("write", "choose", "fill").
        score: mean log-likelihood a token (nats) by the language model that made it, where it tells.
    """

    caption_id: str = Field(min_length=1)
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
        texts: L texts.
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
            raise ValueError(f"gold must be {rows} rows of {len(self.texts)} entries")
        if not self.images and sum(self.gold[0]) < 2:
            raise ValueError("without images, gold needs at least two texts that say the same")
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
        InputError: see `parse.read_json_lines`; or a record has a wrong field.
    """
    for where, row in read_json_lines(path):
        yield validate(model, row, where=where)


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> int:
    """Write records one a line, complete or not at all; returns how many were written.

    Raises:
        DeglaError: see `whole_file`.
    """
    count = 0
    with whole_file(path) as stream:
        for record in records:
            stream.write(record.model_dump_json() + "\n")
            count += 1
    return count


class ItemVerdict(Record):
    """What one model got right in one item of a benchmark: all that later statistics need.

    Attributes:
        id: the item's name, "benchmark/part/key"; two results on the same items are joined by it.
        image: path of the (first) image; items that share it are not independent. Without an image, its own id.
        group: names that metrics average over, for example the class or the relation.
        ok: verdict's name (text_ok, image_ok, group_ok, text_only_ok, top1, image_to_text@5, ...) to its worth: 1
            right, 0 wrong, between them only where the tie rule is "half".
        ties: verdict's name to the number of positive-negative comparisons that were exactly equal.
        margin: smallest lead of a positive over its negative, a difference of cosines; below 0 where one
            lost.
        degenerate: a positive and a negative text are the same tokens, so that no model can tell them apart.
    """

    id: str = Field(min_length=1)
    benchmark: str
    part: str
    image: str
    group: dict[str, str] = Field(default_factory=dict)
    ok: dict[str, float]
    ties: dict[str, int]
    margin: float | None
    degenerate: bool = False


class Interval(Record):
    """A confidence interval; `method` says how it was made and so what varies in it."""

    low: float
    high: float
    level: float = Field(default=0.95, gt=0, lt=1)
    method: str


class Score(Record):
    """One number with what is needed to judge it.

    Attributes:
        name: of the part or of the named average.
        metric: of the part ("accuracy", "top1", ...), or how the average was taken ("macro", "micro").
        value: 0 to 1.
        n: number of items behind it.
        ties: number of items in which a positive and a negative came out exactly equal.
        chance: value of a random answer, 0 to 1; None where it is not known.
        floors: value of what sees the texts alone ("shorter text", "words only"), 0 to 1, where texts are compared.
        interval: 95 % over items (not over training seeds); None where there is one item.
    """

    name: str
    metric: str
    value: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    ties: int = Field(ge=0)
    chance: float | None = Field(default=None, ge=0, le=1)
    floors: dict[str, float] = Field(default_factory=dict)
    interval: Interval | None = None


class PartResult(Record):
    """All scores of one part.

    Attributes:
        family: what the part tests, in one word ("swap", "recognition", ...).
        tie: what a tie was worth: "strict" 0, "half" 1/2, "lenient" 1.
        published_n: number of items in the published protocol; None where there is none.
        missing: items left out because an image is not there.
        filtered: items left out by the protocol's own filter.
        degenerate: items whose positive and negative are the same tokens.
        scores: one a metric, the part's own score first.
    """

    name: str
    family: str
    tie: Literal["strict", "half", "lenient"]
    published_n: int | None = None
    missing: int = Field(default=0, ge=0)
    filtered: int = Field(default=0, ge=0)
    degenerate: int = Field(default=0, ge=0)
    scores: tuple[Score, ...] = Field(min_length=1)


class BenchmarkResult(Record):
    """One benchmark's scores, with where its questions came from.

    Attributes:
        annotation_sha256: annotation file, relative to the root, to its sha256.
        items_sha256: of all questions that were scored; two results are comparable where it is equal.
        missing_images: number of distinct images that were not there.
        missing_examples: the first few of their paths.
        told: part to the floors that answer it from its texts alone, so that it does not count as composition; None
            in results of versions that had no floors.
        averages: named combinations of parts.
        headline: column of the report's first table to the name of the average or part that fills it.
    """

    name: str
    title: str
    paper: str
    licence: str
    annotation_sha256: dict[str, str]
    items_sha256: str
    missing_images: int = Field(default=0, ge=0)
    missing_examples: tuple[str, ...] = ()
    told: dict[str, tuple[str, ...]] | None = None
    parts: tuple[PartResult, ...] = Field(min_length=1)
    averages: tuple[Score, ...] = ()
    headline: dict[str, str] = Field(default_factory=dict)


class ModelProvenance(Record):
    """Which model was scored: `fingerprint` is the sha256 of its weights, `label` the method's name in
    reports."""

    name: str
    label: str = Field(min_length=1)
    fingerprint: str
    activation: str
    precision: str


class Result(Record):
    """One model on some benchmarks: the file that `degla evaluate` writes and `degla report` reads.

    Attributes:
        schema_version: of this file's form.
        image_reading: how images became pixels, see `data.decoding`; None: before it was recorded, never turned.
        training_seed: seed of the training run; results of one label with several seeds give a spread.
        seed: of the bootstrap behind the intervals.
        date: when it was made, UTC, ISO 8601.
        versions: of degla, torch, open_clip, python.
        items_file: name of the file beside this one that holds every item's verdict; "" before it is saved.
        items_count: number of verdicts in it.
        items_file_sha256: of that file; "" where it was not recorded.
        sha256: of everything else in this file, so that a damaged number is not taken for a result; "" in old files.
        items: every item's verdict; not part of the JSON file.
    """

    schema_version: Literal[1] = 1
    model: ModelProvenance
    image_reading: ImageReading | None = None
    training_seed: int | None = None
    seed: int = 0
    date: str
    versions: dict[str, str]
    benchmarks: tuple[BenchmarkResult, ...] = Field(min_length=1)
    items_file: str = ""
    items_count: int = 0
    items_file_sha256: str = ""
    sha256: str = ""
    items: tuple[ItemVerdict, ...] = Field(default=(), exclude=True, repr=False)
