"""What each system folder has to define."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from torch import Tensor

from degla.pages.page import Figure
from degla.ranges import Checked

MeasuredPart = Literal["test", "validation"]
"""What models are measured on; settings are chosen on "validation", a part of the training data."""
Weights = Mapping[str, Tensor]
"""Result of training: named tensors, as in safetensors; may be empty."""


@dataclass(frozen=True)
class SystemSettings(Checked, section=""):
    """Settings of a system: every field is a flag of `degla system NAME`; subclasses give the defaults."""

    data: tuple[str, ...] = ()
    """Data sets, each with its own table: names of built-in ones, or paths of files or folders."""


class Case(NamedTuple):
    """One model: a method on a data set with a seed. All methods get the same data for the same seed."""

    data: str
    method: str
    seed: int


@dataclass(frozen=True)
class ScoreColumn:
    """A score of every model.

    Attributes:
        name: name of the column, and of the score in the result of `System.measure`.
        meaning: one sentence for the page, with its unit.
        better: whether higher or lower is better.
        percent: whether it is a share from 0 to 1, printed in percent; otherwise it is printed as it is.
    """

    name: str
    meaning: str
    better: Literal["higher", "lower"] = "higher"
    percent: bool = True


@dataclass(frozen=True)
class Expectation:
    """A claim of a paper, or an earlier measurement, as a bound on the difference of two methods.

    Attributes:
        first, second: methods.
        column: name of the score.
        bound: minimum of first minus second; the maximum if lower is better.
        data: data sets that it applies to; all by default.
    """

    first: str
    second: str
    column: str
    bound: float
    data: tuple[str, ...] = ()


AnySettings = TypeVar("AnySettings", bound=SystemSettings)
Data = TypeVar("Data")


@dataclass(frozen=True)
class System(Generic[AnySettings, Data]):
    """A system with its baselines.

    All functions are called with torch's generator seeded with the case's seed, and have no other source of randomness
    than it and the seed passed to `read`.

    Attributes:
        title: title of the page.
        paper: arXiv number.
        settings: settings of the default run.
        quick: settings of `--quick`, at most 60 seconds on two cores.
        methods: methods with a one-line description for the page; the baseline first.
        columns: scores of each model.
        beside: files and folders outside the path of a data set that it is also read from; those missing are skipped.
        digest: return a digest of what `read` takes from a file that grows with it, by settings, name and seed; "" for
            nothing, without reading.
        expected: expectations that the table is compared with.
        made: names of data sets that need no path.
        read: return a data set, by name and seed; called for every method, so it should cache its result.
        train: train one model on a data set with a method.
        measure: return the scores of a model by column name.
        draw: draw a figure of the first seed's models by method on one data set; the last argument is its name.
    """

    title: str
    paper: str
    settings: AnySettings
    quick: AnySettings
    methods: Mapping[str, str]
    columns: tuple[ScoreColumn, ...]
    made: tuple[str, ...]
    read: Callable[[AnySettings, str, int], Data]
    train: Callable[[AnySettings, Data, str], Weights]
    measure: Callable[[AnySettings, Data, str, Weights], Mapping[str, float]]
    draw: Callable[[AnySettings, Data, Mapping[str, Weights], str], Figure | None] = lambda *arguments: None
    beside: Callable[[AnySettings, str], Sequence[Path]] = lambda settings, name: ()
    digest: Callable[[AnySettings, str, int], str] = lambda settings, name, seed: ""
    expected: tuple[Expectation, ...] = ()

    @property
    def baseline(self) -> str:
        """The method that the others are compared with."""
        return next(iter(self.methods))


AnySystem = System[Any, Any]
