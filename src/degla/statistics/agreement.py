"""How far two readers agree beyond chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from degla.statistics.proportions import Z


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> tuple[float | None, float | None, float | None]:
    """Kappa of two readers' answers and its 95 % interval; three times None where it is undefined."""
    n = len(pairs)
    share = {(a, b): sum(pair == (a, b) for pair in pairs) / n for a in (False, True) for b in (False, True)}
    first = {a: share[a, False] + share[a, True] for a in (False, True)}
    second = {b: share[False, b] + share[True, b] for b in (False, True)}
    same = share[False, False] + share[True, True]
    chance = sum(first[a] * second[a] for a in (False, True))
    if chance == 1:
        return None, None, None
    kappa = (same - chance) / (1 - chance)
    diagonal = sum(share[a, a] * (1 - (first[a] + second[a]) * (1 - kappa)) ** 2 for a in (False, True))
    beside = (1 - kappa) ** 2 * sum(share[a, not a] * (second[a] + first[not a]) ** 2 for a in (False, True))
    variance = (diagonal + beside - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    half = Z * math.sqrt(max(0.0, variance))
    return kappa, max(-1.0, kappa - half), min(1.0, kappa + half)
