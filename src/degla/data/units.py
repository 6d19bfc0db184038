"""Units of a caption, the things and relations that it names, as texts of an epoch: which ones, and with which foil."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from degla.data.pairs import said_words

Unit = Mapping[str, Any]
"""A `CaptionUnit` as plain values."""


def draw_units(units: Sequence[Unit], count: int, chance: Random) -> list[tuple[str, str | None]]:
    """Units of a caption, each with one of its foils, as CS-CLIP (arXiv 2602.23906) draws them.

    Relations that have a foil come alone where there are any; else things that have one, of which every other is joined
    to a further thing by "and", in unit and foil alike and in an order of their own; else units without a foil. Where
    there are too few, some come again, with a foil that is drawn anew.

    Args:
        units: of one caption.
        count: how many are wanted.
        chance: draws them.

    Returns:
        Text and foil of each; none where the caption has no unit.
    """
    foiled = [unit for unit in units if unit["foils"]]
    pool = [unit for unit in foiled if unit["kind"] == "relation"] or foiled or list(units)
    if not pool:
        return []
    chosen = chance.sample(pool, min(count, len(pool)))
    chosen += [chance.choice(chosen) for _ in range(count - len(chosen))]
    return [_with_foil(unit, units, chance) for unit in chosen]


def _with_foil(unit: Unit, units: Sequence[Unit], chance: Random) -> tuple[str, str | None]:
    text: str = unit["text"]
    foil: str | None = chance.choice(unit["foils"]) if unit["foils"] else None
    others = [other["text"] for other in units if other["kind"] == "thing" and other["text"] != text]
    if unit["kind"] == "relation" or not others or chance.random() < 0.5:
        return text, foil
    other = chance.choice(others)
    return _joined(text, other, chance), None if foil is None else _joined(foil, other, chance)


def _joined(text: str, other: str, chance: Random) -> str:
    return " and ".join(chance.sample([text, other], 2))


def text_number(text: str) -> int:
    """A number of 63 bits that is equal for texts of the same words, in every process and epoch."""
    words = "\n".join(said_words(text))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1
