"""Contents of a report's tables: methods and their provenance, rows, and a cell for each method in a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from degla.evaluation.results import TracedResult
from degla.pages.table import Tone
from degla.pages.words import counted, interval, percent, points
from degla.results import BenchmarkResult, Interval, Score
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

    @property
    def seeds(self) -> list[int]:
        """Training seeds; empty for a model that was not trained here, such as the base model."""
        return [seed for seed in self.results if seed is not None]


@dataclass(frozen=True)
class Cell:
    """One method's number in one row; all values from 0 to 1.

    Attributes:
        mean: over seeds.
        deviation: sample standard deviation over seeds; None for one seed.
        interval: 95 % over seeds and items; with one seed, over items.
        values: training seed (as text; "-" for none) to value.
        ties: items with a tie, the most of any seed.
        n: items.
        gain: against the baseline; None for the baseline itself and if the two cannot be compared.
        best: highest of all methods, where every difference to the others is significant.
    """

    mean: float
    deviation: float | None
    interval: Interval | None
    values: dict[str, float]
    ties: int
    n: int
    gain: Difference | None = None
    best: bool = False

    @property
    def spread(self) -> str:
        """Half of the 95 % interval of the mean over seeds, " ± 0.8", as on study pages; empty for one seed."""
        if self.deviation is None or self.interval is None:
            return ""
        return f" ± {percent((self.interval.high - self.interval.low) / 2)}"


@dataclass(frozen=True)
class Row:
    """One part or named average of one benchmark, with one cell per method.

    Attributes:
        title: as printed; in the headline the column ("composition"), else the name.
        name: of the part or average in the benchmark.
        kind: "part" or "average".
        family: of a part, else "".
        tie: of a part, else "".
        ceiling: best score of a model that ignores word order, 0 to 1, if texts are compared.
        comparable: whether all methods answered the same questions under the same tie rule.
        floors: text-only floors (`text_floors`), and labels of floors that were scored as models
            (`models.load_floor`), to their scores on the same questions, 0 to 1.
        lower: lower is better; no gains and no best are shown.
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

    @property
    def key(self) -> str:
        """Identifies the row for programs that read the page (`data-row`)."""
        return f"{self.benchmark} {self.name} {self.metric}"


def has_ceiling(score: Score | Row) -> bool:
    """Whether a model that ignores word order cannot get everything right."""
    return score.ceiling is not None and score.ceiling < 1 - 1e-9  # An average of ones may be rounded.


def gap_words(difference: Difference | None, number: Callable[[float], str] = points) -> str:
    """Format a difference with its interval, as "+7.1 [+5.0, +9.2]"; "" for None."""
    if difference is None:
        return ""
    ends = difference.interval
    return number(difference.value) + (f" {interval(ends.low, ends.high, number)}" if ends else "")


def gap_tone(difference: Difference | None, *, lower: bool = False) -> Tone:
    """Return the colour of a significant difference; `lower`: lower is better."""
    if difference is None or not difference.significant:
        return ""
    return "up" if (difference.value > 0) != lower else "down"


Data = dict[str, Any]


def provenance(method: Method) -> Data:
    """Return the provenance of a method's scores."""
    results = list(method.results.values())

    def distinct(values: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(values))

    return {
        "label": method.label,
        "models": distinct(result.model.name for result in results),
        "fingerprints": distinct(result.model.fingerprint for result in results),
        "activation": distinct(result.model.activation for result in results),
        "precision": distinct(result.model.precision for result in results),
        "image_reading": distinct(result.image_reading for result in results),
        "scorer": distinct(result.scorer for result in results),
        "seeds": method.seeds,
        "versions": distinct(
            ", ".join(f"{name} {value}" for name, value in result.versions.items()) for result in results
        ),
        "dates": distinct(result.date for result in results),
        "training_data": distinct(_training_data(result) for result in results),
        "files": [path.name for path in method.paths.values()],
    }


def _training_data(result: TracedResult) -> str:
    """Description of the images that the model was fine-tuned on."""
    leakage = result.leakage
    if leakage is None:
        return "not known"
    shared = [f"{overlap.shared} of {overlap.images} of {overlap.benchmark}" for overlap in leakage.overlaps]
    earlier = f"; that of {', '.join(leakage.unknown)} is not known" if leakage.unknown else ""
    earlier += f"; changed or moved since: {', '.join(leakage.changed)}" if leakage.changed else ""
    return (
        f"{', '.join(leakage.captions)}: {counted(leakage.images, 'image')}, among them {', '.join(shared) or 'none'}"
        f"{earlier}"
    )


def ordered_results(methods: Iterable[Method]) -> list[tuple[str, TracedResult]]:
    """Return (label, result) of all results in the order of the report."""
    return [(method.label, result) for method in methods for result in method.results.values()]


def entries_of(methods: Iterable[Method], name: str | None = None) -> list[BenchmarkResult]:
    """Return every result of a benchmark, or of all benchmarks, in the order of the report."""
    entries = (entry for _, result in ordered_results(methods) for entry in result.benchmarks)
    return [entry for entry in entries if name in (None, entry.name)]


def benchmark_sources(methods: Iterable[Method]) -> dict[str, Data]:
    """Return title, paper, licence, tie rules and digests of each benchmark, from the first result with it."""
    sources: dict[str, Data] = {}
    for entry in entries_of(methods):
        sources.setdefault(
            entry.name,
            {
                "title": entry.title,
                "paper": entry.paper,
                "licence": entry.licence,
                "ties": sorted({part.tie for part in entry.parts}),
                "items_sha256": entry.items_sha256,
                "annotations": len(entry.annotation_sha256),
                "n": sum(part.scores[0].n for part in entry.parts),
                "missing": sum(part.missing for part in entry.parts),
            },
        )
    return sources
