"""What a model that ignores word order can reach at best: a benchmark's parts state it, its averages follow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

from degla.errors import DeglaError
from degla.shelf import BENCHMARKS


def ceilings_of(name: str, rules: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Name of a part or average to its order-blind ceiling, 0 to 1; one whose ceiling is not known is left out.

    Args:
        name: of a benchmark; one that is not on the shelf has no ceilings.
        rules: name of each part to the tie rules that it was scored under. A ceiling holds under the benchmark's own
            rule alone.
    """
    if name not in BENCHMARKS.names():
        return {}
    benchmark = BENCHMARKS.load(name).BENCHMARK
    known: dict[str, float] = {}
    for part, used in rules.items():
        try:
            declared = benchmark.part(part)
        except DeglaError:  # the result was written by another version of the benchmark
            continue
        if declared.ceiling is not None and set(used) == {declared.tie}:
            known[part] = declared.ceiling
    names = set(rules)
    for average in benchmark.averages:
        members = {name for name in names if any(fnmatchcase(name, pattern) for pattern in average.of)}
        # The mean over items is known without their numbers only where all ceilings are one.
        ceilings = [known[member] for member in members if member in known]
        sure = bool(members) and len(ceilings) == len(members) and not average.metric
        if sure and (average.how == "macro" or len(set(ceilings)) == 1):
            known[average.name] = sum(ceilings) / len(ceilings)
        names.add(average.name)
    return known
