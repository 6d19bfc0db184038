"""One number a method: composition gained minus recognition lost, against the baseline, with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from degla.evaluation.caveats import spoiled
from degla.evaluation.cells import Method, Row
from degla.evaluation.item_difference import item_score, questions_of_lead
from degla.statistics.seeds import Difference, doubt_of, seed_difference

if TYPE_CHECKING:
    from degla.evaluation.aggregate import ItemScore


@dataclass(frozen=True)
class JointScore:
    """Gained plus what was kept or lost, of every method but the baseline.

    Attributes:
        gained: the composition row.
        kept: the recognition row, or that of retrieval where there is none.
        methods: label to the sum of both differences to the baseline; all values from 0 to 1.
    """

    gained: Row
    kept: Row
    methods: Mapping[str, Difference]


def joint_score(
    gained: Row, kept: Row, methods: Mapping[str, Method], *, baseline: str, price: float = 1.0
) -> JointScore | None:
    """The sum of both differences, seed by seed; its interval covers the questions of both.

    Args:
        gained: the score that is to rise.
        kept: the score that is to stay.
        methods: by label, the baseline among them.
        baseline: label.
        price: points gained that a point lost costs.

    Returns:
        None where a row cannot be compared, or no method has both.
    """
    if not (gained.comparable and kept.comparable):
        return None
    rows = ((1.0, gained), (price, kept))
    has_both = gained.cells.keys() & kept.cells.keys()
    if baseline not in has_both:
        return None

    def values(label: str) -> dict[int | None, float]:
        cells = [(factor, row.cells[label].values) for factor, row in rows]
        names = {"-" if seed is None else str(seed): seed for seed in methods[label].results}
        shared = [name for name in names if all(name in own for _, own in cells)]
        return {names[name]: sum(factor * own[name] for factor, own in cells) for name in shared}

    def difference(label: str) -> Difference:
        leads: list[tuple[float, ItemScore, ItemScore]] = []
        for factor, row in rows:
            key = (row.name, row.metric)
            one, other = (item_score(row.benchmark, key, [*methods[each].paths.values()]) for each in (label, baseline))
            if one is None or other is None or one[0] != other[0]:
                leads = []
                break
            leads.append((factor, one[1], other[1]))
        questions = questions_of_lead(leads) if leads else None
        results = [result for each in (label, baseline) for result in methods[each].results.values()]
        leaked, missing = spoiled(results, {row.benchmark for _, row in rows})
        doubt = doubt_of(questions, leaked=leaked, missing=missing)
        return seed_difference(values(label), values(baseline), questions, doubt=doubt)

    found = {label: difference(label) for label in methods if label in has_both and label != baseline}
    return JointScore(gained, kept, found) if found else None
