"""The K negatives that were most likely under the language model that wrote them, the same in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import cast

from degla.data.draws import Offer
from degla.data.table import PairTable
from degla.errors import InputError
from degla.pages.words import counted


def by_score(offer: Offer, count: int, chance: Random) -> Sequence[int]:
    """Highest `NegativeRecord.score` first, ties in the order of their file.

    Use when: a language model wrote the negatives, and the implausible ones should be left out.
    """
    return sorted(range(len(offer)), key=lambda place: -cast(float, offer.scores[place]))[:count]


def check(rows: PairTable) -> None:
    """Refuse negatives without a score, which cannot be ranked.

    Raises:
        InputError: names the first such negative and their number.
    """
    bare = [chunk.flatten().null_count for chunk in rows.chunks("scores")]
    if any(bare):
        row = next(row for row in rows if None in row.scores)
        place, total = row.scores.index(None), int(rows.lengths("negatives").sum())
        raise InputError(
            f"--data.draw by_score: {sum(bare):,} of {counted(total, 'negative has', 'negatives have')} no score, "
            f"for example {row.negatives[place]!r} of caption {row.caption.id!r} (rule {row.rules[place]}). Only "
            "negatives written by a language model have scores. Use another draw, or limit --data.rules to rules whose "
            "negatives have them."
        )
