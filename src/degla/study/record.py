"""`study.json`: every value of every run, and the variance over questions; all pages are rendered from it only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from degla.errors import InputError
from degla.evaluation.results import AskedRecord
from degla.parse import NewerFormError, read_json_object, require_form
from degla.records import Record, validate
from degla.results import Interval
from degla.statistics.seeds import QuestionVariance
from degla.study.jobs import Cost
from degla.study.plan import Plan
from degla.version import __version__

FORMAT = 2


class QuestionsRecord(Record):
    """Variance over questions of a score or difference; see `statistics.seeds.QuestionVariance`.

    Attributes:
        error: standard error, 0 to 1.
        images: number of independent images.
        uneven: number of images answered unlike the rest, or differently by two models.
        low, high: 95 % interval over questions only.
        method: how the interval was computed.
    """

    error: float
    images: int
    uneven: int
    low: float
    high: float
    method: str

    @classmethod
    def of(cls, variance: QuestionVariance) -> QuestionsRecord:
        """Convert to a record; scores over several images have an interval."""
        assert variance.interval is not None
        low, high, method = variance.interval.low, variance.interval.high, variance.interval.method
        return cls(
            error=variance.error, images=variance.images, uneven=variance.uneven, low=low, high=high, method=method
        )

    @property
    def questions(self) -> QuestionVariance:
        """The same values as the statistics functions take them."""
        interval = Interval(low=self.low, high=self.high, method=self.method)
        return QuestionVariance(self.error, self.images, self.uneven, interval)


class RunRecord(Record):
    """Scores of one run, 0 to 1.

    Attributes:
        seed: training seed; None for a base.
        replicate: its name; "" for the plan itself.
        scores: headline columns, and the plan's `gain` and `kept` scores.
        parts: first metric of every part.
        printed: scores by "benchmark:column" of the published tables that the plan compares with.
    """

    seed: int | None
    replicate: str = ""
    scores: dict[str, float]
    parts: dict[str, float]
    printed: dict[str, float] = Field(default_factory=dict)


class ModelRecord(Record):
    """One model of the study: an arm at one setting and one share of averaging.

    Attributes:
        questions: variance over questions of scores, families ("family:...") and the gained, lost and joint
            differences to the base, from verdicts averaged over the plan's own runs.
        cost: mean over the plan's own runs.
    """

    label: str
    arm: str
    setting: dict[str, Any]
    share: float
    runs: tuple[RunRecord, ...] = Field(min_length=1)
    questions: dict[str, QuestionsRecord]
    cost: Cost | None = None


class TestRecord(Record):
    """A test of the first model's score against the second's.

    Attributes:
        score: a score, or "joint".
        questions: variance over questions of the difference, from verdicts averaged over the seeds that the test takes.
        doubt: why it cannot count as a difference; "" if it can.
    """

    first: str
    second: str
    score: str
    questions: QuestionsRecord | None
    doubt: str = ""


RehearsedKind = Literal["items", "pictures", "made"]


class RehearsedPart(Record):
    """How one part was rehearsed.

    Attributes:
        kind: "items", some of its own questions on their own photographs; "pictures", its own questions on drawn
            images; "made", generated questions on drawn images.
    """

    benchmark: str
    part: str
    kind: RehearsedKind


class RehearsalRecord(Record):
    """What a rehearsal used instead of the plan's own: none of the record's numbers is a measurement.

    Attributes:
        base: the plan's base, which a small model replaced.
        steps, batch_size: of every run.
        pairs: training data, in words.
        negatives: what replaced the plan's negatives file; "" if the file itself was read.
    """

    base: str
    steps: int
    batch_size: int
    pairs: str
    negatives: str
    parts: tuple[RehearsedPart, ...]


class StudyRecord(Record):
    """All findings of a study.

    Attributes:
        where: the plan file.
        command: the command that reproduces it.
        degla: version that wrote it.
        base: fingerprint of the base's weights.
        versions: package versions.
        headline: columns of the first table.
        families: parts by family name.
        counts: number of items per column and part.
        compositional: parts that test composition.
        models: the base first.
        failures: title of each failed run, and why it failed.
        caveats: findings about the data, in sentences.
        text_solvable: one sentence per benchmark that names the parts which can be solved from the texts only.
        rehearsal: set if the plan was only rehearsed.
    """

    format: Literal[2] = 2
    title: str
    plan: Plan
    where: str
    command: str
    degla: str = __version__
    base: str
    versions: dict[str, str]
    benchmarks: tuple[AskedRecord, ...]
    headline: tuple[str, ...]
    families: dict[str, tuple[str, ...]]
    counts: dict[str, int]
    compositional: tuple[str, ...]
    models: tuple[ModelRecord, ...] = Field(min_length=1)
    tests: tuple[TestRecord, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    caveats: tuple[str, ...] = ()
    text_solvable: tuple[str, ...] = ()
    rehearsal: RehearsalRecord | None = None


def dump_study(record: StudyRecord) -> str:
    """Return the record as JSON text."""
    return json.dumps(record.model_dump(mode="json"), indent=1) + "\n"


def load_study(path: str | Path) -> StudyRecord:
    """Read a `study.json`.

    Raises:
        InputError: it cannot be read, or has another format.
    """
    values = read_json_object(Path(path), constants=True)
    remedy = "Run the study again; finished runs are kept."
    require_form(values, where=path, remedy=remedy, field="format", reads=FORMAT)
    return validate(StudyRecord, values, where=str(path))


def refuse_newer(path: Path) -> None:
    """Refuse to replace the `study.json` of a newer version.

    Raises:
        NewerFormError: a newer version wrote it.
    """
    try:
        load_study(path)
    except NewerFormError:
        raise
    except InputError:
        pass  # None yet, of an earlier form or damaged: the study writes it anew.
