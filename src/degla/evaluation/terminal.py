"""One result for the terminal, and its scores by name."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table

from degla.evaluation.told import told_notes
from degla.results import BenchmarkResult, Result, Score


def named_scores(result: Result) -> dict[str, float]:
    """Scores by name, 0 to 1: the headline's columns ("composition", "recognition", ...), then parts and averages.

    A name that two benchmarks share belongs to the first of them.
    """
    scores: dict[str, float] = {}
    for benchmark in result.benchmarks:
        own = {score.name: score.value for score in _all(benchmark)}
        columns = {column: own[name] for column, name in benchmark.headline.items() if name in own}
        scores = columns | own | scores
    return scores


def render_result(result: Result) -> Group:
    """A table a benchmark: every part and named average in points, with its 95 % interval, items, ties and floors."""
    tables = []
    for benchmark in result.benchmarks:
        floors = list(dict.fromkeys(floor for score in _all(benchmark) for floor in score.floors))
        table = Table(title=f"{benchmark.title}: {result.model.label}", title_justify="left")
        table.add_column("part")
        for heading in ("score", "95 %", "items", "ties", "chance", *floors):
            table.add_column(heading, justify="right")
        for part in benchmark.parts:
            for score in part.scores:
                extra = "" if score is part.scores[0] else f" ({score.metric})"
                table.add_row(*_cells(score, floors, name=part.name + extra))
        if benchmark.averages:
            table.add_section()
        for score in benchmark.averages:
            table.add_row(*_cells(score, floors, name=score.name))
        notes = list(told_notes(benchmark))
        if benchmark.missing_images:
            notes.append(f"{benchmark.missing_images} images are missing; the scores cover what is there.")
        if result.image_reading == "official":
            notes.append("Images are read as by the released codes: not turned by EXIF, transparency dropped.")
        table.caption, table.caption_justify = "\n".join(notes) or None, "left"
        tables.append(table)
    return Group(*tables)


def _all(benchmark: BenchmarkResult) -> list[Score]:
    return [part.scores[0] for part in benchmark.parts] + list(benchmark.averages)


def _cells(score: Score, floors: Sequence[str], *, name: str) -> tuple[str, ...]:
    interval = score.interval
    spread = f"{100 * interval.low:.1f} - {100 * interval.high:.1f}" if interval else ""
    known = [score.chance, *map(score.floors.get, floors)]
    beside = ("" if value is None else f"{100 * value:.1f}" for value in known)
    return name, f"{100 * score.value:.1f}", spread, str(score.n), str(score.ties), *beside
