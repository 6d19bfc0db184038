"""Parts of a caption: its units, things and relations, as texts of an epoch; words replaced by the mask token."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from jaxtyping import Int
from torch import Tensor

from degla.data.pairs import said_words
from degla.prefixes import MASKED, Tokenize

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


def mask_words(caption: Int[Tensor, " context"], words: Sequence[str], tokenize: Tokenize) -> Int[Tensor, " context"]:
    """The same tokens with `MASKED` where each word stands first; a word that stands nowhere masks nothing.

    Args:
        caption: token numbers, from a start token to an end token.
        words: parts of the caption, as it writes them.
        tokenize: what made the token numbers.
    """
    masked, numbers = caption.clone(), caption.tolist()
    for parts in _tokens_of(words, tokenize):
        last = len(numbers) - len(parts)
        place = next((at for at in range(last + 1) if numbers[at : at + len(parts)] == parts), None)
        if parts and place is not None:
            masked[place : place + len(parts)] = MASKED
    return masked


def _tokens_of(words: Sequence[str], tokenize: Tokenize) -> Iterator[list[int]]:
    """The tokens of each word, without those of a text's start and end."""
    nothing, *rows = tokenize(["", *words]).tolist()
    end = nothing[1]
    for row in rows:
        yield row[1 : row.index(end, 1)] if end in row[1:] else []
