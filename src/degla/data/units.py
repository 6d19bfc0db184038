"""Parts of a caption: its units (things and relations), drawn per epoch; words replaced by the mask token."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from jaxtyping import Int
from torch import Tensor

from degla.data.pairs import normalized_words
from degla.prefixes import MASKED, Tokenize

Unit = Mapping[str, Any]
"""A `CaptionUnit` as a plain mapping."""


def draw_units(units: Sequence[Unit], count: int, chance: Random) -> list[tuple[str, str | None]]:
    """Draw units of a caption, each with one of its foils, as in CS-CLIP (arXiv 2602.23906).

    If any relations have a foil, only these are drawn; else things with a foil, half of which are joined to another
    thing by "and", in unit and foil alike, each in its own random order; else units without a foil. If there are too
    few, some repeat with a newly drawn foil.

    Args:
        units: of one caption.
        count: number of units to draw.
        chance: draws them.

    Returns:
        Text and foil of each; empty if the caption has no units.
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
    """Return a 63-bit number that is equal for texts with the same words, in every process and epoch."""
    words = "\n".join(normalized_words(text))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1


def mask_words(caption: Int[Tensor, " context"], words: Sequence[str], tokenize: Tokenize) -> Int[Tensor, " context"]:
    """Replace the first occurrence of each word by `MASKED`; words that do not occur are ignored.

    Args:
        caption: token ids, from a start token to an end token.
        words: parts of the caption, as written there.
        tokenize: the tokenizer that made the token ids.
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
