"""The difference of two models on the same items: two results with their items enter, an interval leaves."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from degla.evaluation.aggregate import drawn_values
from degla.evaluation.neutral import benchmark_of
from degla.evaluation.results import load_result
from degla.evaluation.statistics import Values, percentile_interval
from degla.records import Interval
from degla.shelf import BENCHMARKS


def item_difference(benchmark: str, key: tuple[str, str], first: Path, second: Path) -> Interval | None:
    """Paired bootstrap over images of the first result's score minus the second's.

    Args:
        benchmark: its name.
        key: name of the part or average, and metric.
        first, second: files of results; their items lie beside them.

    Returns:
        None where their items are not the same, or not there.
    """
    if benchmark not in BENCHMARKS.names():
        return None
    (one_ids, one), (other_ids, other) = (_drawn(path, path.stat().st_mtime_ns, benchmark) for path in (first, second))
    if one_ids != other_ids or key not in one or key not in other:
        return None
    return percentile_interval(one[key] - other[key], method="paired bootstrap over images")


@lru_cache(maxsize=64)
def _drawn(path: Path, modified: int, benchmark: str) -> tuple[tuple[str, ...], dict[tuple[str, str], Values]]:
    """Ids of a result's items and the draws of its scores; `modified` makes a changed file a new key."""
    if not path.with_name(load_result(path).items_file).is_file():
        return (), {}
    result = load_result(path, items=True)
    verdicts = [row for row in result.items if row.benchmark == benchmark]
    entry = next(entry for entry in result.benchmarks if entry.name == benchmark)
    ids = tuple(row.id for row in verdicts)
    return ids, drawn_values(benchmark_of(entry), verdicts)
