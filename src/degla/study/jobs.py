"""What a study's processes are given and give back: trainings with their measurements, alone or one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from degla.config.run import TrainConfig
from degla.evaluation.overlap import Leakage


@dataclass(frozen=True)
class Measure:
    """One model that a job measures."""

    label: str
    share: float
    """Share of the tuned weights in the average with the base; 1 is the tuned model."""
    path: Path
    """Where the result goes."""


@dataclass(frozen=True)
class StudyQuestions:
    """What models are asked."""

    benchmarks: tuple[str, ...]
    root: Path
    digest: str
    """Of the benchmarks' annotation files."""
    allow_missing: bool = False
    """Ask about the images that are there where others are missing."""


@dataclass(frozen=True)
class Job:
    """One training run and its measurements, or the measurement of the base alone."""

    label: str
    base: str
    config: TrainConfig | None
    """With data and folder; None measures the base."""
    inputs: dict[str, str]
    """Digests of what the run is trained on."""
    measures: tuple[Measure, ...]
    asked: StudyQuestions
    items: Mapping[str, str] | None = None
    """By benchmark, the digest of all that is asked now, as results have it; None: not known, results stay."""
    leakage: Leakage | None = None
    """Which of the benchmarks' images the run is trained on."""
    resume: bool = True
    """Whether what an earlier call did is kept; without it nothing of the run's state is removed at its end either."""
    rehearsed: bool = False
    """Whether a few questions are enough, see `degla.study.rehearsal`."""

    @property
    def seed(self) -> int | None:
        """Of the training; None where the base is measured."""
        return None if self.config is None else self.config.train.seed

    @property
    def alone(self) -> Chain:
        """A chain of this job."""
        return Chain(self.label, self.seed, (self,))

    @property
    def title(self) -> str:
        """As told while it runs."""
        return self.alone.title


@dataclass(frozen=True)
class Cost:
    """What a training took. Times of processes side by side depend on what else the machine did."""

    seconds: float
    """In training steps, without loading and evaluation."""
    pairs_per_second: float
    """Median over the run."""
    teacher: bool
    """Whether a teacher was run."""
    negatives: int
    """Negatives a caption."""


@dataclass(frozen=True)
class JobResult:
    """What a job did."""

    paths: tuple[Path, ...]
    """Results, in the order of the job's measures; none where a signal stopped it."""
    cost: Cost | None = None
    notes: tuple[str, ...] = ()
    """What was kept from earlier, resumed or made again, in sentences."""
    trained: bool = False
    measured: int = 0
    """Models that were measured now, not before."""


@dataclass(frozen=True)
class Chain:
    """Jobs one after another, each from the model that the one before gave; most are of one job."""

    label: str
    seed: int | None
    """None where bases are measured."""
    jobs: tuple[Job, ...]

    @property
    def title(self) -> str:
        """As told while it runs."""
        return self.label if self.seed is None else f"{self.label}, seed {self.seed}"


ChainResult = tuple[JobResult, ...]
"""Of the jobs that were done; fewer than the chain has, or the last without paths, where a signal stopped it."""
