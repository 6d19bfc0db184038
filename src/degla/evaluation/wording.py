"""Numbers as a report prints them: scores in percent, differences in points, margins as cosines."""

from __future__ import annotations

from degla.evaluation.changes import ItemAnswers
from degla.evaluation.comparison import Cell


def percent(value: float) -> str:
    """0.6134 as "61.3"."""
    return f"{100 * value:.1f}"


def chance(value: float | None) -> str:
    """As `percent`; a dash where it is not known."""
    return "–" if value is None else percent(value)


def spread(cell: Cell) -> str:
    """Standard deviation over seeds, " ± 0.8"; empty for one seed."""
    return "" if cell.deviation is None else f" ± {percent(cell.deviation)}"


def gain(cell: Cell) -> str:
    """Points against the baseline with their interval, "+7.1 [+5.0, +9.2]"; empty where there is none."""
    if cell.gain is None:
        return ""
    text = f"{100 * cell.gain.value:+.1f}"
    if cell.gain.interval is not None:
        text += f" [{100 * cell.gain.interval.low:+.1f}, {100 * cell.gain.interval.high:+.1f}]"
    return text.replace("-", "−")


def margin(value: float) -> str:
    """A difference of cosines, 0.0612 as "+0.061"."""
    return f"{value:+.3f}".replace("-", "−")


def answered(standing: ItemAnswers) -> str:
    """What a method answered over its seeds: "right", "wrong", "right in 3 of 5 seeds"."""
    if standing.right in (0, standing.seeds):
        return "right" if standing.right else "wrong"
    return f"right in {standing.right} of {standing.seeds} seeds"
