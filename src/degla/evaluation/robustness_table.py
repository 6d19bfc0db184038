"""Models under attack for the terminal: clean accuracy and that within each epsilon, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table

from degla.evaluation.robustness import AttackResult, name_epsilon
from degla.results import Score


def render_attacks(results: Sequence[AttackResult]) -> Group:
    """A table a benchmark: for each part and named average one row a model, in points, with 95 % intervals.

    Args:
        results: of models that were asked alike.
    """
    tables = []
    for place, benchmark in enumerate(results[0].benchmarks):
        table = Table(title=f"{benchmark.title}: accuracy (%) and its 95 % interval under attack", title_justify="left")
        table.add_column("part", overflow="fold")
        table.add_column("model")
        for attacked in benchmark.attacked:
            heading = f"ε {name_epsilon(attacked.epsilon)}" if attacked.epsilon else "clean"
            table.add_column(heading, justify="right")
        named: set[str] = set()
        for number, first in enumerate(_scores(results[0], place, 0)):
            if number == len(benchmark.attacked[0].scores):
                table.add_section()
            name = f"{first.name} ({first.metric})" if first.name in named else first.name
            named.add(first.name)
            chance = "" if first.chance is None else f", chance {100 * first.chance:.1f}"
            about = f"{name}\n{first.n} items{chance}"
            for row, result in enumerate(results):
                sizes = range(len(result.benchmarks[place].attacked))
                cells = [_cell(_scores(result, place, size)[number]) for size in sizes]
                table.add_row("" if row else about, result.model.label, *cells)
        tables.append(table)
    return Group(*tables)


def _scores(result: AttackResult, benchmark: int, size: int) -> tuple[Score, ...]:
    attacked = result.benchmarks[benchmark].attacked[size]
    return (*attacked.scores, *attacked.averages)


def _cell(score: Score) -> str:
    interval = score.interval
    # Below the number: beside it, two sizes would not fit on a terminal of 80 columns.
    spread = f"\n{100 * interval.low:.1f}-{100 * interval.high:.1f}" if interval else ""
    return f"{100 * score.value:.1f}{spread}"
