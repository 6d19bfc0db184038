"""What a report's tables hold: methods, rows, and a cell for each method in a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from degla.evaluation.results import TracedResult
from degla.results import Interval
from degla.statistics.seeds import Difference


@dataclass(frozen=True)
class Method:
    """One row of the report: the results that share a label.

    Attributes:
        results: training seed to result.
        paths: training seed to file.
    """

    label: str
    results: Mapping[int | None, TracedResult]
    paths: Mapping[int | None, Path]


@dataclass(frozen=True)
class Cell:
    """One method's number in one row; all values from 0 to 1.

    Attributes:
        mean: over seeds.
        deviation: sample standard deviation over seeds; None for one seed.
        interval: 95 % over seeds and items; over items where there is one seed.
        values: training seed (as text; "-" for none) to value.
        ties: items with a tie, the most of any seed.
        n: items.
        gain: against the baseline; None for the baseline itself and where the two cannot be compared.
        best: highest of all methods, and every difference to the others has an interval above 0.
    """

    mean: float
    deviation: float | None
    interval: Interval | None
    values: dict[str, float]
    ties: int
    n: int
    gain: Difference | None = None
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One part or named average of one benchmark, with a cell a method.

    Attributes:
        title: as printed; in the headline the column ("composition"), else the name.
        name: of the part or average in the benchmark.
        kind: "part" or "average".
        family: of a part, else "".
        tie: of a part, else "".
        ceiling: the best of a model that ignores word order, where the benchmark states it (see `ceilings.py`).
        comparable: all methods answered the same questions under the same tie rule.
        floors: what sees the texts alone (`text_floors.py`), and label of a floor that was scored as a model
            (`floors.py`), to its score on the same questions, 0 to 1.
        lower: less is better; neither gains nor a best are shown.
    """

    title: str
    benchmark: str
    name: str
    metric: str
    kind: str
    family: str
    tie: str
    n: int
    chance: float | None
    comparable: bool
    cells: dict[str, Cell]
    ceiling: float | None = None
    floors: dict[str, float] = field(default_factory=dict)
    lower: bool = False
