"""Sentences about the parts that the texts alone tell, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Iterator

from degla.evaluation.text_floors import TOLD
from degla.results import BenchmarkResult


def told_notes(entry: BenchmarkResult) -> Iterator[str]:
    """One sentence that names every told part with what tells it; none where no part is told."""
    if not entry.told:
        return
    scores = {part.name: part.scores[0] for part in entry.parts}
    named = [
        f"{name} ({', '.join(f'{floor} {100 * scores[name].floors[floor]:.1f}' for floor in floors)})"
        for name, floors in entry.told.items()
        if name in scores
    ]
    left = "composition" in entry.headline
    counted = f"not counted in composition, which is {entry.headline['composition']}" if left else "no part is left"
    yield f"{TOLD[0].upper()}{TOLD[1:]}, {counted}: {', '.join(named)}."
