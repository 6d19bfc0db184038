"""Word-level differences between a caption and its negative, for counting and for highlighting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Final, NamedTuple

from degla.negatives.grammar import words

_MARKS: Final = ".,;:!?\"'"
"""Punctuation that is ignored at the ends of a word."""


@dataclass(frozen=True, slots=True)
class WordDifference:
    """The change from a caption to its negative.

    Attributes:
        distance: words to insert, delete or replace (Levenshtein), ignoring case, punctuation and a/an.
        put_in: words of the negative that the caption lacks, in lower case, each as often as it occurs in excess.
    """

    distance: int
    put_in: tuple[str, ...]


def measure_difference(caption: str, negative: str) -> WordDifference:
    """Return the word difference between two texts."""
    first, second = words.content(caption), words.content(negative)
    start, end = words.shared_ends(first, second)
    before, after = first[start : len(first) - end], second[start : len(second) - end]
    return WordDifference(_levenshtein(before, after), tuple((Counter(after) - Counter(before)).elements()))


def _levenshtein(first: Sequence[str], second: Sequence[str]) -> int:
    above = list(range(len(second) + 1))
    for row, word in enumerate(first, start=1):
        current = [row]
        for column, other in enumerate(second, start=1):
            current.append(min(above[column] + 1, current[-1] + 1, above[column - 1] + (word != other)))
        above = current
    return above[-1]


class TextPiece(NamedTuple):
    """A piece of a text; `changed` if the other text does not have it at this place."""

    text: str
    changed: bool


def mark_tokens(caption: str, negative: str) -> tuple[list[TextPiece], list[TextPiece]]:
    """Split both texts where highlighting starts and ends, comparing words and punctuation marks but not case.

    Joined, the pieces give the texts exactly.
    """
    first, second = ([piece.lower() for piece, _ in words.split(text)] for text in (caption, negative))
    marks = _differing(first, second)
    return _spans(caption, marks[0]), _spans(negative, marks[1])


def mark_words(caption: str, negative: str) -> tuple[list[TextPiece], list[TextPiece]]:
    """Split both texts for quick reading; joined, the pieces give the texts exactly.

    Words are compared position by position, or aligned if that highlights fewer; case and punctuation at the ends of
    words are ignored.
    """
    old, new = caption.split(" "), negative.split(" ")
    first, second = ([word.lower().strip(_MARKS) for word in text] for text in (old, new))
    marks = _differing(first, second)
    if len(old) == len(new):
        by_place = [one != other for one, other in zip(first, second, strict=True)]
        if sum(by_place) <= sum(marks[0]):
            marks = by_place, by_place
    return _runs(old, marks[0]), _runs(new, marks[1])


def _differing(first: Sequence[str], second: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Mark the items of two sequences that the best alignment leaves unmatched."""
    marks = [True] * len(first), [True] * len(second)
    for block in SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks():
        marks[0][block.a : block.a + block.size] = [False] * block.size
        marks[1][block.b : block.b + block.size] = [False] * block.size
    return marks


def _spans(text: str, changed: Sequence[bool]) -> list[TextPiece]:
    """Split a text into alternating changed and unchanged runs.

    The space between two runs belongs to the unchanged one, so no highlight starts or ends with a space.
    """
    places = words.spans(text)
    turns = [at for at in range(1, len(places)) if changed[at] != changed[at - 1]]
    cuts = [0, *(places[at][0] if changed[at] else places[at - 1][1] for at in turns), len(text)]
    marks = [mark for mark, _ in groupby(changed)] or [False]
    return [TextPiece(text[start:end], mark) for (start, end), mark in zip(pairwise(cuts), marks, strict=True) if text]


def _runs(text: Sequence[str], marks: Sequence[bool]) -> list[TextPiece]:
    runs: list[TextPiece] = []
    for changed, run in groupby(zip(text, marks, strict=True), key=itemgetter(1)):
        if runs:
            runs.append(TextPiece(" ", False))
        runs.append(TextPiece(" ".join(word for word, _ in run), changed))
    return runs
