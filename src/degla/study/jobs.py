"""What a study's processes receive and return: training runs with their measurements, single or in a chain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from degla.config.run import TrainConfig
from degla.evaluation.models import TextScorer
from degla.evaluation.overlap import Leakage
from degla.evaluation.questions import require_files
from degla.evaluation.results import items_name
from degla.files import cannot_write


@dataclass(frozen=True)
class Measure:
    """One model that a job measures."""

    label: str
    share: float
    """Share of the tuned weights in the average with the base; 1 is the tuned model."""
    path: Path
    """Where to write the result."""

    def forget(self) -> None:
        """Delete the result, if there is one.

        Raises:
            InputError: it cannot be deleted.
        """
        for path in (self.path, items_name(self.path)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_write(path, error, remedy="Choose another --out.") from None


@dataclass(frozen=True)
class StudyQuestions:
    """The questions that models are measured on."""

    benchmarks: tuple[str, ...]
    root: Path
    digest: str
    """Digest of the benchmarks' annotation files; "" if it is unknown, as files of one of them are gone."""
    allow_missing: bool = False
    """Measure on the available images if others are missing."""
    scorer: TextScorer = "cosine"
    """How images are compared with texts."""

    def require(self) -> None:
        """Raise InputError if the files of a benchmark are gone."""
        if not self.digest:
            require_files(self.benchmarks, self.root)


@dataclass(frozen=True)
class Job:
    """One training run and its measurements, or only the measurement of the base."""

    label: str
    base: str
    config: TrainConfig | None
    """With data and folder; None: measure the base."""
    inputs: dict[str, str]
    """Digests of the training data."""
    measures: tuple[Measure, ...]
    questions: StudyQuestions
    items: Mapping[str, str] | None = None
    """Digest of the current questions by benchmark, as in results; None: unknown, existing results are kept."""
    leakage: Leakage | None = None
    """Which benchmark images are in the training data."""
    resume: bool = True
    """Whether to reuse the work of earlier calls; if False, the run's training state is also kept at its end."""
    rehearsed: bool = False
    """Whether to ask only a few questions; see `degla.study.rehearsal`."""

    @property
    def seed(self) -> int | None:
        """Training seed; None if the job measures the base."""
        return None if self.config is None else self.config.train.seed

    @property
    def alone(self) -> Chain:
        """A chain with only this job."""
        return Chain(self.label, self.seed, (self,))

    @property
    def title(self) -> str:
        """The title that progress shows."""
        return self.alone.title

    @property
    def has_results(self) -> bool:
        """Whether the results of all its models are there, of whatever they were measured."""
        return all(measure.path.is_file() for measure in self.measures)

    def forget_results(self, but: Collection[str] = ()) -> None:
        """Delete the results of its models, but not those with these labels."""
        for measure in self.measures:
            if measure.label not in but:
                measure.forget()


@dataclass(frozen=True)
class Cost:
    """Cost of a training run. Times of parallel processes depend on the other load of the machine."""

    seconds: float
    """Time in training steps, without loading and evaluation."""
    pairs_per_second: float
    """Median over the run."""
    teacher: bool
    """Whether a teacher was used."""
    negatives: int
    """Negatives per caption."""


@dataclass(frozen=True)
class JobResult:
    """The result of a job."""

    paths: tuple[Path, ...]
    """Result files, in the order of the job's measures; empty if a signal stopped it."""
    cost: Cost | None = None
    notes: tuple[str, ...] = ()
    """What was reused, resumed or run again, in sentences."""
    trained: bool = False
    measured: int = 0
    """Number of models measured in this call."""


@dataclass(frozen=True)
class Chain:
    """Jobs in sequence, each starting from the model of the one before; most chains have one job."""

    label: str
    seed: int | None
    """None if the chain measures a base."""
    jobs: tuple[Job, ...]

    @property
    def title(self) -> str:
        """The title that progress shows."""
        return self.label if self.seed is None else f"{self.label}, seed {self.seed}"


ChainResult = tuple[JobResult, ...]
"""Results of the finished jobs. If a signal stopped the chain, there are fewer, or the last has no paths."""
