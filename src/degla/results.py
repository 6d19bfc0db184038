"""What an evaluation found, from the verdict on one item to the file that `degla evaluate` writes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from degla.records import ImageReading, Record


class ItemVerdict(Record):
    """What one model got right in one item of a benchmark: all that later statistics need.

    Attributes:
        id: the item's name, "benchmark/part/key"; two results on the same items are joined by it.
        image: path of the (first) image; items that share it are not independent. Without an image, its own id.
        same_as: path of an earlier item's image with the same bytes, as the rows of a table may repeat a photograph;
            empty where there is none of another name.
        group: names that metrics average over, for example the class or the relation.
        ok: verdict's name (text_ok, image_ok, group_ok, text_only_ok, top1, image_to_text@5, ...) to its worth: 1
            right, 0 wrong, between them only where the tie rule is "half", and of average_precision.
        ties: verdict's name to the number of positive-negative comparisons that were exactly equal.
        margin: smallest lead of a positive over its negative, a difference of cosines; below 0 where one
            lost.
        degenerate: a positive and a negative text are the same tokens, so that no model can tell them apart.
    """

    id: str = Field(min_length=1)
    benchmark: str
    part: str
    image: str
    same_as: str = ""
    group: dict[str, str] = Field(default_factory=dict)
    ok: dict[str, float]
    ties: dict[str, int]
    margin: float | None
    degenerate: bool = False

    @property
    def drawn_with(self) -> str:
        """Name of the picture: a bootstrap draws all items of one together."""
        return self.same_as or self.image


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
        lower: less is better.
    """

    name: str
    metric: str
    value: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    ties: int = Field(ge=0)
    chance: float | None = Field(default=None, ge=0, le=1)
    floors: dict[str, float] = Field(default_factory=dict)
    interval: Interval | None = None
    lower: bool = False


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
        told: part to the floors that answer it from its texts alone, so that it does not count as composition.
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
    told: dict[str, tuple[str, ...]]
    parts: tuple[PartResult, ...] = Field(min_length=1)
    averages: tuple[Score, ...] = ()
    headline: dict[str, str] = Field(default_factory=dict)

    @property
    def named(self) -> dict[str, Score]:
        """Parts by their own first metric, and named averages, by name."""
        return {score.name: score for score in (*(part.scores[0] for part in self.parts), *self.averages)}


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
        image_reading: how images became pixels, see `data.decoding`.
        training_seed: seed of the training run; results of one label with several seeds give a spread.
        seed: of the bootstrap behind the intervals.
        date: when it was made, UTC, ISO 8601.
        versions: of degla, torch, open_clip, python.
        items_file: name of the file beside this one that holds every item's verdict; "" before it is saved.
        items_count: number of verdicts in it.
        items_file_sha256: of that file; "" where it was not recorded.
        sha256: of everything else in this file, so that a damaged number is not taken for a result; "" before
            it is saved.
        items: every item's verdict; not part of the JSON file.
    """

    schema_version: Literal[1] = 1
    model: ModelProvenance
    image_reading: ImageReading
    training_seed: int | None = None
    seed: int = 0
    date: str
    versions: dict[str, str]
    benchmarks: tuple[BenchmarkResult, ...] = Field(min_length=1)
    items_file: str = Field(default="", pattern=r"^([^/\\\x00]+\.jsonl)?$")
    items_count: int = 0
    items_file_sha256: str = ""
    sha256: str = ""
    items: tuple[ItemVerdict, ...] = Field(default=(), exclude=True, repr=False)
