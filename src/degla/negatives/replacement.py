"""What the replacing rules share: which word of a caption was replaced, and an even choice of places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from degla.negatives import words
from degla.negatives.phrases import Caption
from degla.negatives.replies import MOST_CANDIDATES


def replaced_word(caption: Caption, negative: str) -> tuple[int, str]:
    """The index of the only token that differs in a negative, and the new word in lower case.

    Returns (-1, "") where no word differs, (-1, "?") where more than one does or words were added or left out.
    """
    places = [place for place, token in enumerate(caption.tokens) if words.is_word(token.text)]
    content = words.content(negative)
    if len(content) != len(places):
        return -1, "?"
    changed = [(place, new) for place, old, new in zip(places, caption.content, content, strict=True) if old != new]
    if not changed:
        return -1, ""
    return changed[0] if len(changed) == 1 else (-1, "?")


def pick_spread(
    choices: Sequence[tuple[int, Sequence[str]]], rng: Random, *, accept: Callable[[int, str], bool]
) -> list[tuple[int, str]]:
    """Draw (place, word) pairs at random without repeats: every place once before any place twice.

    Args:
        choices: for each place the words that may stand there.
        rng: draws the places and the words.
        accept: the last word on a pair; asked only for pairs that are drawn.
    """
    queues = [(place, rng.sample(found, len(found))) for place, found in choices if found]
    rng.shuffle(queues)
    picked: list[tuple[int, str]] = []
    while len(picked) < MOST_CANDIDATES and any(found for _, found in queues):
        for place, found in queues:
            while found:
                word = found.pop()
                if accept(place, word):
                    picked.append((place, word))
                    break
    return picked[:MOST_CANDIDATES]
