"""Results of an evaluation, from the verdict on one item to the file that `degla evaluate` writes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from degla.pages.words import percent
from degla.records import ImageReading, Record

ScoreKey = tuple[str, str, str, str, str]
"""Kind ("part" or "average"), name, metric, family, tie rule; family and tie rule are "" for averages."""


class ItemVerdict(Record):
    """One model's verdicts on one item of a benchmark, with everything that later statistics need.

    Attributes:
        id: id of the item, "benchmark/part/key"; two results on the same items are joined by it.
        image: path of the (first) image; items that share it are not independent. The item's id if it has no image.
        same_as: path of an earlier item's image with the same bytes but another name, because tables may repeat a
            photograph, or of the image that joins pairs which share images; empty if there is none.
        group: names that metrics average over, for example the class or the relation.
        ok: name of the verdict (text_ok, image_ok, group_ok, text_only_ok, top1, image_to_text@5, ...) to its value:
            1 right, 0 wrong; values in between occur only with the tie rule "half", for the floor `blind`, and for
            average_precision.
        ties: name of the verdict to the number of positive-negative comparisons that were exactly equal.
        margin: smallest lead of a positive over its negative, as a difference of cosines (of logits, with
            linear probes); below 0 if one lost.
        degenerate: whether a positive and a negative text have the same tokens, so that no model can tell them apart.
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
        """Name of the image, whose items a bootstrap resamples together."""
        return self.same_as or self.image


class Interval(Record):
    """A confidence interval; `method` says how it was computed, and so what it accounts for."""

    low: float
    high: float
    level: float = Field(default=0.95, gt=0, lt=1)
    method: str


class Score(Record):
    """One score with the information needed to interpret it.

    Attributes:
        name: name of the part or of the named average.
        metric: metric of the part ("accuracy", "top1", ...), or kind of average ("macro", "micro").
        value: 0 to 1.
        n: number of items.
        ties: number of items in which a positive and a negative were exactly equal.
        chance: score of random answers, 0 to 1; None if not known.
        floors: scores of text-only baselines ("shorter text", "words only"), 0 to 1, if texts are compared.
        ceiling: best score of a model that ignores word order, 0 to 1, if texts are compared.
        interval: 95 % confidence interval over items (not over training seeds); None for a single item.
        lower: whether lower is better.
    """

    name: str
    metric: str
    value: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    ties: int = Field(ge=0)
    chance: float | None = Field(default=None, ge=0, le=1)
    floors: dict[str, float] = Field(default_factory=dict)
    ceiling: float | None = Field(default=None, ge=0, le=1)
    interval: Interval | None = None
    lower: bool = False


class FittedProbe(Record):
    """What the linear probes of a part were fitted on; see `evaluation.probe`.

    Attributes:
        images: number of images: of the training split, or of the part with cross-validation.
        folds: number of folds of the cross-validation; 0: there is a training split.
        costs: cost of each probe; the higher, the weaker the regularisation.
        copies: number of scored images that are in the training split, too, with the same bytes.
    """

    images: int = Field(ge=1)
    folds: int = Field(ge=0)
    costs: tuple[float, ...]
    copies: int = Field(ge=0)


class PartResult(Record):
    """All scores of one part.

    Attributes:
        family: what the part tests, in one word ("swap", "recognition", ...).
        tie: value of a tie: "strict" 0, "half" 1/2, "lenient" 1. For `blind`, it is the rule of the models beside it:
            without --tie, its own ties count 1/2 all the same.
        published_n: number of items in the published protocol; None if there is none.
        missing: number of items skipped because an image is missing.
        filtered: number of items excluded by the protocol's own filter.
        degenerate: number of items whose positive and negative have the same tokens.
        scores: one per metric, the part's own score first.
        probe: of results with linear probes.
    """

    name: str
    family: str
    tie: Literal["strict", "half", "lenient"]
    published_n: int | None = None
    missing: int = Field(default=0, ge=0)
    filtered: int = Field(default=0, ge=0)
    degenerate: int = Field(default=0, ge=0)
    scores: tuple[Score, ...] = Field(min_length=1)
    probe: FittedProbe | None = None

    @property
    def scored(self) -> int:
        """Number of scored items, of which a metric may leave some out (ARO's macro); for retrieval the first's."""
        return self.scores[0].n if self.family == "retrieval" else max(score.n for score in self.scores)


class BenchmarkResult(Record):
    """One benchmark's scores and the origin of its questions.

    Attributes:
        annotation_sha256: annotation file, relative to the root, to its sha256.
        items_sha256: sha256 of all scored questions; two results are comparable if it is equal.
        missing_images: number of distinct missing images.
        missing_examples: the first few of their paths.
        text_solvable: part to the text-only floors that can answer it, so that it does not count as composition.
        averages: named averages of parts.
        headline: column of the report's first table to the name of the average or part shown in it.
        declared: `evaluation.neutral.Declared` of a benchmark that was given as an object; None for one on the shelf.
    """

    name: str
    title: str
    paper: str
    licence: str
    annotation_sha256: dict[str, str]
    items_sha256: str
    missing_images: int = Field(default=0, ge=0)
    missing_examples: tuple[str, ...] = ()
    text_solvable: dict[str, tuple[str, ...]]
    parts: tuple[PartResult, ...] = Field(min_length=1)
    averages: tuple[Score, ...] = ()
    headline: dict[str, str] = Field(default_factory=dict)
    declared: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_text_solvable(self) -> BenchmarkResult:
        for part in self.parts:
            if lacking := [name for name in self.text_solvable.get(part.name, ()) if name not in part.scores[0].floors]:
                raise ValueError(
                    f"text_solvable names {lacking[0]!r} for {part.name!r}, but its first score has no such floor"
                )
        return self

    @property
    def keyed_scores(self) -> list[tuple[ScoreKey, Score]]:
        """Every score with its key, parts before averages."""
        rows: list[tuple[ScoreKey, Score]] = [
            (("part", part.name, score.metric, part.family, part.tie), score)
            for part in self.parts
            for score in part.scores
        ]
        return rows + [(("average", score.name, score.metric, "", ""), score) for score in self.averages]

    @property
    def named(self) -> dict[str, Score]:
        """Scores of the parts (first metric) and named averages, by name."""
        return {score.name: score for score in (*(part.scores[0] for part in self.parts), *self.averages)}


class ModelProvenance(Record):
    """The model that was scored.

    Attributes:
        label: the method's name in reports.
        fingerprint: sha256 of its weights.
        base: name of the model that it was fine-tuned from; "" if that is not recorded.
        base_fingerprint: sha256 of the weights that it had then.
    """

    name: str
    label: str = Field(min_length=1)
    fingerprint: str
    activation: str
    precision: str
    base: str = ""
    base_fingerprint: str = ""

    @property
    def floor(self) -> str:
        """The kind of a floor, "random" or "blind"; "" for a network, also in a folder of that name."""
        return self.name.partition(":")[0] if self.activation == "none" else ""


class Result(Record):
    """One model's results on some benchmarks: the file that `degla evaluate` writes and `degla report` reads.

    Attributes:
        schema_version: version of the file format.
        image_reading: how images were decoded, see `data.decoding`.
        scorer: how images are compared with texts: "cosine", "standardised", "probe" (not with texts, but by a linear
            classifier; see `evaluation.run.Evaluation` for these), or the regions, see `evaluation.regions`.
        training_seed: seed of the training run; results with one label and several seeds give a spread.
        seed: seed of the bootstrap for the intervals.
        date: creation date, UTC, ISO 8601.
        versions: of degla, torch, open_clip, python.
        items_file: name of the file beside this one with every item's verdict; "" before it is saved.
        items_count: number of verdicts in it.
        items_file_sha256: sha256 of that file; "" if not recorded.
        sha256: sha256 of everything else in this file, so that damage is detected; "" before it is saved.
        items: every item's verdict; not part of the JSON file.
    """

    schema_version: Literal[1] = 1
    model: ModelProvenance
    image_reading: ImageReading
    scorer: str = "cosine"
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

    def rows(self) -> list[dict[str, str | int | float | None]]:
        """Return every score as a flat row, for example for `pandas.DataFrame(result.rows())`.

        Returns:
            Rows with the model's `label` and `training_seed`; `benchmark`, `kind` ("part" or "average"), `name`,
            `metric`, `family` and `tie` (both "" for averages); `value`, the ends `low` and `high` of its 95 %
            interval over items (it need not be symmetric, so there is no standard error), `chance`, `floor` (the
            highest of the text-only `floors`) and `ceiling`, all 0 to 1 or None; `n` and `ties`, numbers of items.
        """
        return [
            {
                "label": self.model.label,
                "training_seed": self.training_seed,
                "benchmark": benchmark.name,
                **dict(zip(("kind", "name", "metric", "family", "tie"), key, strict=True)),
                "value": score.value,
                "low": None if score.interval is None else score.interval.low,
                "high": None if score.interval is None else score.interval.high,
                "chance": score.chance,
                "floor": max(score.floors.values(), default=None),
                "ceiling": score.ceiling,
                "n": score.n,
                "ties": score.ties,
            }
            for benchmark in self.benchmarks
            for key, score in benchmark.keyed_scores
        ]

    def __repr__(self) -> str:
        shown = [repr(self.model.label)]
        for benchmark in self.benchmarks:
            named = benchmark.named
            columns = benchmark.headline or dict(zip(named, named, strict=True))
            scores = [f"{column} {percent(named[name].value)}" for column, name in columns.items() if name in named]
            shown.append(f"{benchmark.name}: {', '.join(scores)}")
        return f"{type(self).__name__}({'; '.join(shown)})"

    def __str__(self) -> str:
        return repr(self)
