"""`study.json`: every value of every run, and what other questions would do; all pages are rendered from it alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from degla.errors import InputError
from degla.evaluation.results import AskedRecord
from degla.parse import read_json
from degla.records import Record, validate
from degla.results import Interval
from degla.statistics.seeds import QuestionVariance
from degla.study.jobs import Cost
from degla.study.plan import Plan
from degla.version import __version__

FORMAT = 2


class QuestionsRecord(Record):
    """What other questions would do to a score or difference; see `statistics.seeds.QuestionVariance`.

    Attributes:
        error: standard error, 0 to 1.
        images: independent images.
        uneven: images answered otherwise than the rest, or differently by two models.
        low, high: 95 % over questions alone.
        method: of the interval.
    """

    error: float
    images: int
    uneven: int
    low: float
    high: float
    method: str

    @classmethod
    def of(cls, found: QuestionVariance) -> QuestionsRecord:
        """As a record; scores over several images have an interval."""
        assert found.interval is not None
        low, high, method = found.interval.low, found.interval.high, found.interval.method
        return cls(error=found.error, images=found.images, uneven=found.uneven, low=low, high=high, method=method)

    @property
    def questions(self) -> QuestionVariance:
        """As statistics take it."""
        interval = Interval(low=self.low, high=self.high, method=self.method)
        return QuestionVariance(self.error, self.images, self.uneven, interval)


class RunRecord(Record):
    """What one run scored, 0 to 1.

    Attributes:
        seed: of its training; None for a base.
        replicate: its name; "" for the plan as it is.
        scores: headline columns, and the gained and the kept score.
        parts: every part by its own first metric.
        printed: "benchmark:column" of published tables that the plan compares with.
    """

    seed: int | None
    replicate: str = ""
    scores: dict[str, float]
    parts: dict[str, float]
    printed: dict[str, float] = Field(default_factory=dict)


class ModelRecord(Record):
    """One model of the study: an arm at one setting and one share of averaging.

    Attributes:
        questions: of scores, families ("family:...") and the gained, lost and joint differences to the base; of
            verdicts averaged over the plan's own runs.
        cost: the mean over the plan's own runs.
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
        questions: of the difference of verdicts averaged over the seeds in common.
        doubt: why it may not be called a difference; "" where it may.
    """

    first: str
    second: str
    score: str
    questions: QuestionsRecord | None
    doubt: str = ""


RehearsedKind = Literal["items", "pictures", "made"]


class RehearsedPart(Record):
    """How a rehearsal asked one part.

    Attributes:
        kind: some of its own questions on their own photographs; its own questions on drawn pictures; made questions on
            drawn pictures.
    """

    benchmark: str
    part: str
    kind: RehearsedKind


class RehearsalRecord(Record):
    """What stood in for what while a plan was rehearsed: none of the record's numbers is a measurement.

    Attributes:
        base: the plan's, in whose place a small model was.
        steps, batch_size: of every run.
        pairs: what was trained on, in words.
        negatives: what stood in for the plan's file of them; "" where the file itself was read.
    """

    base: str
    steps: int
    batch_size: int
    pairs: str
    negatives: str
    parts: tuple[RehearsedPart, ...]


class StudyRecord(Record):
    """All that a study found.

    Attributes:
        where: the plan's file.
        command: how to make it again.
        degla: version that made it.
        base: fingerprint of the base's weights.
        versions: of packages.
        headline: columns of the first table.
        families: name to its parts.
        counts: items behind each column and each part.
        compositional: parts that are about composition.
        models: the base first.
        failures: title of a run that came to nothing, and why.
        caveats: what was found out about the data, in sentences.
        rehearsal: where the plan was only rehearsed.
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
    rehearsal: RehearsalRecord | None = None


def dump_study(record: StudyRecord) -> str:
    """As JSON text."""
    return json.dumps(record.model_dump(mode="json"), indent=1) + "\n"


def load_study(path: Path) -> StudyRecord:
    """Read a `study.json`.

    Raises:
        InputError: it cannot be read, or was written in another form.
    """
    values = read_json(path, constants=True)
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise InputError(
            f"{path}: field 'format' is {found!r}, this version reads {FORMAT}; run the study again: what is done is "
            "kept."
        )
    return validate(StudyRecord, values, where=str(path))
