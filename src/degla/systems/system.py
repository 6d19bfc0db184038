"""What a folder of this room has to say of its system."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from torch import Tensor

from degla.pages.page import Figure
from degla.ranges import Checked

MeasuredPart = Literal["test", "validation"]
"""What models are measured on: settings are chosen on "validation", which is a part of the training data."""
Weights = Mapping[str, Tensor]
"""What training leaves: named tensors, as safetensors keeps them; may be empty."""


@dataclass(frozen=True)
class SystemSettings(Checked, section=""):
    """Settings of a system: every field is a flag of `degla system NAME`; subclasses give the defaults."""

    data: tuple[str, ...] = ()
    """Data sets, each with a table of its own: names of those that are made here, or paths of files or folders."""


class Case(NamedTuple):
    """One model: a method on a data set with a seed. The same seed draws the same data for all methods."""

    data: str
    method: str
    seed: int


@dataclass(frozen=True)
class ScoreColumn:
    """A number that every model gets.

    Attributes:
        name: of the column, and of the number in what `System.measure` returns.
        meaning: one sentence for the page, with its unit.
        better: which way.
        percent: a share from 0 to 1, printed in percent; else printed as it is.
    """

    name: str
    meaning: str
    better: Literal["higher", "lower"] = "higher"
    percent: bool = True


@dataclass(frozen=True)
class Expectation:
    """What a paper claims, or what was measured before, as a bound on the difference of two methods.

    Attributes:
        first, second: methods.
        column: name of the score.
        bound: least value of first minus second; where lower is better, the largest.
        data: the data sets that it is about; all by default.
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

    All functions are called with torch's generator at the case's seed, and have no other source of chance than it and
    the seed that `read` is given.

    Attributes:
        title: of the page.
        paper: arXiv number.
        settings: of the default run.
        quick: of `--quick`, at most 60 seconds on two cores.
        methods: each with what it is, in one line for the page; the baseline first.
        columns: the scores.
        expected: what the table is compared with.
        made: names of data sets that need no path.
        read: a data set, by its name and a seed; asked for by every method, so that it keeps what it has made.
        train: one model of a data set, by a method.
        measure: its scores, by name of the column.
        draw: a figure of one data set's models of the first seed, by method; behind them the name of the data set.
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
    draw: Callable[[AnySettings, Data, Mapping[str, Weights], str], Figure | None] = lambda *given: None
    expected: tuple[Expectation, ...] = ()

    @property
    def baseline(self) -> str:
        """What the others are compared with."""
        return next(iter(self.methods))


AnySystem = System[Any, Any]
