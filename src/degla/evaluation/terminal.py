"""Render results for the terminal, and look up a result's scores by name."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from degla.evaluation.caveats import floor_notes, missing_images, of_training, probe_notes
from degla.evaluation.cells import has_ceiling
from degla.evaluation.results import AttackResult, ExplainedResult, TracedResult, name_epsilon
from degla.pages.table import Column, Table, TableCell, TableRow
from degla.pages.words import capitalized, counted, percent
from degla.results import Result, Score


def named_scores(result: Result) -> dict[str, float]:
    """Return scores by name, 0 to 1: the headline's columns ("composition", "recognition", ...), parts and averages.

    A name that two benchmarks share belongs to the first of them. Scores where lower is better are left out, since
    named scores are to be gained or kept.
    """
    scores: dict[str, float] = {}
    for benchmark in result.benchmarks:
        own = {name: score.value for name, score in benchmark.named.items() if not score.lower}
        columns = {column: own[name] for column, name in benchmark.headline.items() if name in own}
        scores = columns | own | scores
    return scores


def render_result(result: TracedResult) -> Group:
    """Render one table per benchmark: parts and named averages in percent, with 95 % interval, items, ties and floors.

    Below the tables, one line for each benchmark with images that the model was trained on.
    """
    tables = []
    for benchmark in result.benchmarks:
        floors = list(dict.fromkeys(floor for score in benchmark.named.values() for floor in score.floors))
        ceilings = any(map(has_ceiling, benchmark.named.values()))
        rows: list[TableRow] = []
        for part in benchmark.parts:
            for score in part.scores:
                extra = "" if score is part.scores[0] else f" ({score.metric})"
                rows.append(_row(score, floors, ceilings, name=part.name + extra))
        if benchmark.averages:
            rows.append(TableRow(["averages"], kind="section"))
        rows += [_row(score, floors, ceilings, name=score.name) for score in benchmark.averages]
        notes = [*map(capitalized, (*floor_notes(benchmark), *probe_notes(benchmark))), *missing_images(benchmark)]
        if result.image_reading == "official":
            notes.append("Images are read as in the released codes: EXIF rotation ignored, transparency dropped.")
        heads = ["part", "score", "95 %", "items", "ties", "chance", *floors, *(["order-blind ceiling"] * ceilings)]
        table = Table(heads, rows)
        tables.append(table.terminal(title=f"{benchmark.title}: {result.model.label}", caption="\n".join(notes)))
    titles = {benchmark.name: benchmark.title for benchmark in result.benchmarks}
    return Group(*tables, *map(Text, of_training(result.model.label, result.leakage, titles)))


def _row(score: Score, floors: Sequence[str], ceilings: bool, *, name: str) -> TableRow:
    ends = f"{100 * score.interval.low:.1f} - {100 * score.interval.high:.1f}" if score.interval else ""
    beside = (score.chance, *map(score.floors.get, floors), *([score.ceiling] * ceilings))
    cells = ("" if value is None else percent(value) for value in beside)
    return TableRow([name, percent(score.value), ends, str(score.n), str(score.ties), *cells])


def render_attacks(results: Sequence[AttackResult]) -> Group:
    """Render one table per benchmark: a row per model for each part and named average, in percent, with intervals.

    Args:
        results: of models with the same questions and attacks.
    """
    tables = []
    for place, benchmark in enumerate(results[0].benchmarks):
        rows: list[TableRow] = []
        named: set[str] = set()
        for number, first in enumerate(_scores(results[0], place, 0)):
            if number == len(benchmark.attacked[0].scores):
                rows.append(TableRow(["averages"], kind="section"))
            name = f"{first.name} ({first.metric})" if first.name in named else first.name
            named.add(first.name)
            chance = "" if first.chance is None else f", chance {percent(first.chance)}"
            for row, result in enumerate(results):
                sizes = range(len(result.benchmarks[place].attacked))
                cells = [_cell(_scores(result, place, size)[number]) for size in sizes]
                about = TableCell("") if row else TableCell(name, note=f"{counted(first.n, 'item')}{chance}")
                rows.append(TableRow([about, result.model.label, *cells]))
        sizes_of = [f"ε {name_epsilon(each.epsilon)}" if each.epsilon else "clean" for each in benchmark.attacked]
        title = f"{benchmark.title}: accuracy (%) and its 95 % interval under attack"
        tables.append(Table(["part", Column("model", align="left"), *sizes_of], rows).terminal(title=title))
    return Group(*tables)


def render_explained(results: Sequence[ExplainedResult]) -> Group:
    """Render one table per benchmark: a row per model for each part, drop and increase by evidence and by chance.

    Args:
        results: of models with the same questions and settings.
    """
    tables, warning = [], ""
    if len({result.by for result in results}) > 1:
        kinds = ", ".join(f"{result.model.label} by {result.by}" for result in results)
        warning = f" Not comparable, because the evidence differs: {kinds}. --by gradient measures all models alike."
    for place, benchmark in enumerate(results[0].benchmarks):
        rows = []
        for number, part in enumerate(benchmark.parts):
            for row, result in enumerate(results):
                scores = result.benchmarks[place].parts[number].scores
                about = TableCell("") if row else TableCell(part.part, note=counted(scores[0].n, "item"))
                rows.append(TableRow([about, result.model.label, *map(_cell, scores)]))
        heads = [f"{score.metric} {'↓' if score.lower else '↑'}" for score in benchmark.parts[0].scores]
        caption = (
            f"With {percent(results[0].share)} % of an image's squares kept: drop is the mean relative loss of the "
            "probability of the model's own answer; increase is how often it rises. By chance: random squares."
            f"{warning}"
        )
        table = Table(["part", Column("model", align="left"), *heads], rows)
        tables.append(table.terminal(title=f"{benchmark.title}: what explanations keep (%)", caption=caption))
    return Group(*tables)


def _scores(result: AttackResult, benchmark: int, size: int) -> tuple[Score, ...]:
    attacked = result.benchmarks[benchmark].attacked[size]
    return (*attacked.scores, *attacked.averages)


def _cell(score: Score) -> TableCell:
    ends = score.interval
    # Below the number: next to it, two sizes would not fit on a terminal of 80 columns.
    return TableCell(percent(score.value), note=f"{100 * ends.low:.1f}-{100 * ends.high:.1f}" if ends else "")
